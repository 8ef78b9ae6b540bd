"""From a finished run to the files of its report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from node_anomaly_core.bundle_store import Bundle
from node_anomaly_trainer.assess import Assessed
from node_anomaly_trainer.config import ReportConfig
from node_anomaly_trainer.evaluate import Evaluation
from node_anomaly_trainer.fitting import TAUGHT_BY
from node_anomaly_trainer.models.lstm import LSTMModel
from node_anomaly_trainer.moment import moment
from node_anomaly_trainer.report.record import (
    RunRecord,
    changes,
    coverage_picture,
    distributions,
    summarise_data,
)
from node_anomaly_trainer.report.write import Artifacts, write_report

if TYPE_CHECKING:  # the pipeline writes reports, so this module cannot import it
    from node_anomaly_trainer.pipeline import TrainingReport

__all__ = ["Artifacts", "record_of", "write_run"]


def write_run(
    config: ReportConfig, report: TrainingReport, assessed: Assessed, production: Bundle | None
) -> Artifacts:
    """Write report.html, report.json and model_card.md of a run. Raises TrainingError if it cannot."""
    return write_report(Path(config.directory), record_of(report, assessed, production), config.keep)


def record_of(report: TrainingReport, assessed: Assessed, production: Bundle | None) -> RunRecord:
    """Everything that the report says."""
    parts = assessed.parts
    models = assessed.candidate.models.values()
    losses = next((model.losses for model in models if isinstance(model, LSTMModel)), ())
    return RunRecord(
        outcome=report.outcome,
        version=report.version,
        finished=moment(datetime.now(UTC).timestamp()),
        seconds=report.seconds,
        reasons=report.reasons,
        allowances=report.allowances,
        notes=report.notes,
        excluded=report.excluded,
        events=report.events,
        data=summarise_data(parts.clean, parts),
        evaluation=figures_of(report.evaluation),
        distributions=distributions(assessed, parts),
        losses=losses,
        changes=changes(assessed.candidate.manifest, production),
        coverage=coverage_picture(parts.clean),
        forecast=report.forecast,
        taught_by=str(assessed.candidate.manifest.provenance.get(TAUGHT_BY, "")),
    )


def figures_of(evaluation: Evaluation) -> Mapping[str, object]:
    """The evaluation as plain data, what is computed from it too."""
    plain = asdict(evaluation)
    for name in ("incidents", "production"):
        figures = getattr(evaluation, name)
        if figures is not None:
            plain[name]["f1_score"] = figures.f1_score
    return plain
