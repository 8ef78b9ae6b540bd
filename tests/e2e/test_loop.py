"""From history to a message and back, once, with the real parts: what node-anomaly promises as a whole."""

from __future__ import annotations

import re

import pytest

import loop_run
import loop_world
import rig
from loop_run import Story

# A second where a user has fifteen, so that it takes a minute; bench/loop.py has the times as they ship.
pytestmark = [pytest.mark.alone, pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    for part in (rig.NODE_EXPORTER, rig.PROMETHEUS, rig.PROMTOOL, rig.ALERTMANAGER, rig.PUSHGATEWAY):
        rig.need(part)
    return loop_run.run(tmp_path_factory.mktemp("loop"), loop_world.HURRIED, patience_s=120.0)


def test_what_was_trained_is_what_mlflow_calls_champion_and_what_the_agent_scores_with(story: Story) -> None:
    assert story.trained != story.starter
    assert story.in_use == story.trained == story.champion


def test_prometheus_knows_of_the_run_by_the_pushgateway(story: Story) -> None:
    assert story.outcomes == {"accepted": 1.0, "failed": 0.0, "rejected": 0.0}


def test_the_fault_reaches_the_operators_with_its_reasons(story: Story) -> None:
    receiver, alert = story.fired
    assert receiver == "operators"
    assert alert["labels"]["severity"] == "warning"
    assert alert["annotations"]["runbook_url"].endswith("/NodeAnomalous.md")
    said = alert["annotations"]["description"]
    reasons = re.findall(r"(mail_\w+) [\d.]+%, is \S+, expected \S+", said)
    assert reasons[0] in {loop_world.QUEUE, loop_world.WAIT}, said


def test_its_end_reaches_them_too(story: Story) -> None:
    receiver, alert = story.resolved
    assert receiver == "operators"
    assert alert["endsAt"] > alert["startsAt"]
    assert alert["fingerprint"] == story.fired[1]["fingerprint"]


def test_no_tick_was_lost_and_nobody_was_woken(story: Story) -> None:
    assert story.lost_ticks == 0
    assert "NodeAnomalousWithSymptom" not in story.told
