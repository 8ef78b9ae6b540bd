"""Who moves is named: the shipped models put a disturbed feature among the first reasons."""

from __future__ import annotations

from bench_programs import program
from node_anomaly_core.bundle import starter_bundle, verify_bundle
from node_anomaly_trainer.config import parse_config
from node_anomaly_trainer.progress import ignore_report
from node_anomaly_trainer.sources import fetch


def test_a_feature_moved_by_eight_scales_is_among_the_first_three_reasons_in_nine_cases_of_ten(monkeypatch):
    """It, or one that goes with it; every feature of one node in turn."""
    bench = program("attribution", monkeypatch)
    source = {"type": "synthetic", "synthetic": {"nodes": 1, "range": "1h"}}
    config = parse_config({"interval": "15s", "training": {"seed": 7}, "source": source})
    history = fetch(config, ignore_report, lambda _line: None)
    found = list(bench.cases(verify_bundle(starter_bundle()), history, 8.0))
    assert len(found) > 30
    assert sum(case.related for case in found) >= 0.9 * len(found)
