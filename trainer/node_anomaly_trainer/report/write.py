"""Write a run's directory: report.html, report.json, model_card.md, whole or not at all."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from node_anomaly_core.errors import TrainingError
from node_anomaly_trainer.forecast_figures import duration
from node_anomaly_trainer.moment import moment
from node_anomaly_trainer.report import pictures
from node_anomaly_trainer.report.record import RunRecord

if TYPE_CHECKING:
    from markupsafe import Markup

HTML, JSON, CARD = "report.html", "report.json", "model_card.md"
RUN = re.compile(r"\d{8}T\d{6}Z(-\d+)?")


@dataclass(frozen=True, slots=True)
class Artifacts:
    """Where a run's report is."""

    directory: Path
    html: Path
    json: Path
    card: Path


def write_report(root: Path, record: RunRecord, keep: int) -> Artifacts:
    """Write the run's directory below `root`, and keep the `keep` latest. Raises TrainingError."""
    scratch = root / f".{os.getpid()}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        for name, text in (
            (HTML, page(record)),
            (JSON, json.dumps(plain(record), indent=1, allow_nan=False) + "\n"),
            (CARD, card(record)),
        ):
            (scratch / name).write_text(text, encoding="utf-8")
        directory = named(root, scratch)
        _retire(root, keep)
    except OSError as error:
        raise TrainingError(
            f"cannot write the report to {root}: {error.strerror or error}",
            "choose a writable directory with free space: report.directory",
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return Artifacts(directory, directory / HTML, directory / JSON, directory / CARD)


def page(record: RunRecord) -> str:
    """The report as one HTML page that needs nothing from anywhere."""
    return (
        _environment(html=True)
        .get_template("page.html.j2")
        .render(record=record, result=record.evaluation, pictures=_pictures(record))
    )


def card(record: RunRecord) -> str:
    """The model card in Markdown."""
    text = (
        _environment(html=False)
        .get_template("model_card.md.j2")
        .render(record=record, result=record.evaluation)
    )
    return text.rstrip() + "\n"


def plain(value: object) -> object:
    """As JSON has it; a figure that is not known is null."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _pictures(record: RunRecord) -> Mapping[str, Markup | str]:
    from markupsafe import Markup

    result, data = record.evaluation, record.data
    recall, kinds = result["fault_recall"], result["recall_by_kind"]
    if not isinstance(recall, Mapping) or not isinstance(kinds, Mapping):
        raise TypeError("the evaluation of a record is that of evaluate.Evaluation")
    drawn = {
        "detectors": pictures.recall_bars(recall, "Faults found, by detector"),
        "kinds": pictures.recall_bars(kinds, "Faults found by the combined score, by kind"),
        "scores": pictures.score_distribution(record.distributions),
        "calibration": pictures.calibration(record.distributions),
        "losses": pictures.learning_curve(record.losses) if record.losses else "",
        "coverage": pictures.coverage_map(record.coverage, data.nodes, data.start, data.stop),
    }
    # Drawn by matplotlib, which escapes the names in it.
    return {name: Markup(text) for name, text in drawn.items()}  # noqa: S704


def _environment(*, html: bool) -> Environment:
    made = Environment(
        loader=PackageLoader("node_anomaly_trainer", "report"),
        autoescape=select_autoescape(("html.j2",), default_for_string=False) if html else False,  # noqa: S701
        undefined=StrictUndefined,
    )
    made.filters |= {
        "share": share,
        "figure": figure,
        "duration": duration,
        "moment": moment,
        "small": lambda value: f"{value:.1g}",
    }
    return made


def share(value: float | None, digits: int = 0) -> str:
    """As a percentage."""
    return "unknown" if value is None or math.isnan(value) else f"{value:.{digits}%}"


def figure(value: float | None, otherwise: str = "unknown") -> str:
    """With three digits that count."""
    if value is None or math.isnan(value):
        return otherwise
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def named(root: Path, scratch: Path) -> Path:
    """Give the finished directory its name; two runs may end in one second."""
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    for number in range(1, 100):
        target = root / (name if number == 1 else f"{name}-{number}")
        if target.exists():
            continue
        try:
            scratch.rename(target)
        except OSError:
            if target.exists():
                continue
            raise
        return target
    raise FileExistsError(f"{root / name}")


def _retire(root: Path, keep: int) -> None:
    found = sorted(entry for entry in root.iterdir() if RUN.fullmatch(entry.name) and entry.is_dir())
    for entry in found[:-keep]:
        shutil.rmtree(entry, ignore_errors=True)
