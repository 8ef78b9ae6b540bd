"""A backtest in MLflow: a run beside the training runs, with its figures and its report."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

from node_anomaly_core.errors import TrainingError
from node_anomaly_trainer.backtest.report import Written
from node_anomaly_trainer.backtest.run import Backtest
from node_anomaly_trainer.config_delivery import MlflowConfig
from node_anomaly_trainer.registry import REPORT_FOLDER, experiment_of
from node_anomaly_trainer.registry_client import as_training_error, open_client


def record(
    config: MlflowConfig, result: Backtest, written: Written, note: Callable[[str], None]
) -> str | None:
    """Record it; the run's id, or None without MLflow.

    Raises TrainingError only where mlflow.required says so; otherwise what is lost is a note.
    """
    if not config.tracking_uri:
        return None
    try:
        client = open_client(config)
        with as_training_error(config):
            tags = {
                "mlflow.runName": f"backtest {result.bundle}",
                "kind": "backtest",
                "bundle_version": result.bundle,
            }
            run = client.create_run(experiment_of(client, config.experiment), tags=tags).info.run_id
            try:
                for name, value in figures(result).items():
                    client.log_metric(run, name, value, timestamp=int(1000 * time.time()))
                for path in (written.html, written.json):
                    client.log_artifact(run, str(path), REPORT_FOLDER)
            except BaseException:
                client.set_terminated(run, "FAILED")
                raise
            client.set_terminated(run, "FINISHED")
    except TrainingError as error:
        if config.required:
            raise
        note(f"warning: {error.message}: the backtest is on this disk only")
        return None
    return str(run)


def figures(result: Backtest) -> Mapping[str, float]:
    """What is known as a number, by its name in MLflow."""
    found = {
        "backtest_node_weeks": result.node_weeks,
        "backtest_alerts": float(len(result.alerts)),
        "backtest_incidents": float(len(result.incidents)),
        "backtest_incidents_caught": float(result.caught),
        "backtest_seen_share": result.seen_share,
    }
    for rate in result.rates:
        found[f"backtest_{rate.name}_per_node_week"] = rate.per_node_week
        found[f"backtest_{rate.name}_at_no_known_incident"] = float(rate.false)
    return {name: value for name, value in found.items() if math.isfinite(value)}
