"""From history to a message and back, once, with the real parts: what node-anomaly promises as a whole."""

from __future__ import annotations

import re

import pytest

import host_faults
import loop_run
import loop_world
import rig
from loop_run import Story
from node_anomaly_core.log_errors import LOG_ERRORS
from node_anomaly_trainer.config_models import MEMBERS

# A second where a user has fifteen, so that it takes a minute; bench/loop.py has the times as they ship.
pytestmark = [pytest.mark.alone, pytest.mark.e2e, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    for part in (rig.NODE_EXPORTER, rig.PROMETHEUS, rig.PROMTOOL, rig.ALERTMANAGER, rig.PUSHGATEWAY):
        rig.need(part)
    # Windows are in seconds, also at a tick of one: a fault may stay in those of five minutes.
    return loop_run.run(tmp_path_factory.mktemp("loop"), loop_world.HURRIED, "sockets", patience_s=330.0)


def test_what_was_trained_is_what_mlflow_calls_champion_and_what_the_agent_scores_with(story: Story) -> None:
    assert story.trained != story.starter
    assert story.in_use == story.trained == story.champion


def test_prometheus_knows_of_the_run_by_the_pushgateway(story: Story) -> None:
    assert story.outcomes == {"accepted": 1.0, "failed": 0.0, "rejected": 0.0}


def test_every_kind_of_model_was_trained_but_the_one_for_logs_which_this_host_has_none_of(
    story: Story,
) -> None:
    assert story.members == set(MEMBERS) - {LOG_ERRORS}


def test_the_host_was_quiet_when_the_fault_began(story: Story) -> None:
    """Earlier it may have been anomalous in earnest: a model was being trained on it."""
    assert story.before < 1


def test_the_fault_reaches_the_operators_with_its_reasons(story: Story) -> None:
    """Thousands of leaked connections: the first of three reasons is one that shows them, with its unit."""
    assert story.fired is not None
    assert story.fired.receiver == "operators"
    assert story.fired.alert["labels"]["severity"] == "warning"
    assert story.fired.alert["annotations"]["runbook_url"].endswith("/NodeAnomalous.md")
    said = story.fired.alert["annotations"]["description"]
    reasons = re.findall(r"(\w+) [\d.]+%, is \S+, expected \S+", said)
    assert reasons[0] in host_faults.FEATURES["sockets"], said


def test_its_end_reaches_them_too(story: Story) -> None:
    assert story.fired is not None
    assert story.resolved is not None
    assert story.resolved.receiver == "operators"
    assert story.resolved.alert["endsAt"] > story.resolved.alert["startsAt"]
    assert story.resolved.alert["fingerprint"] == story.fired.alert["fingerprint"]


def test_hardly_a_tick_was_lost_and_nobody_was_woken(story: Story) -> None:
    """At a tick of a second beside a training run the machine may come too late for one or the other."""
    assert story.lost_ticks <= 3
    assert "NodeAnomalousWithSymptom" not in story.told
