"""The trainer's configuration: defaults work, every wrong key is named with its path."""

from __future__ import annotations

import contextlib
import re
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from node_anomaly_core.errors import ConfigError
from node_anomaly_trainer.config import (
    TrainConfig,
    configuration_notes,
    load_config,
    parse_config,
    with_options,
)
from node_anomaly_trainer.config_comments import COMMENTS
from node_anomaly_trainer.config_file import commented, differences
from node_anomaly_trainer.settings import parse_duration


def refused(raw) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(raw)
    assert caught.value.hint
    return caught.value.message


def test_no_file_and_an_empty_one_give_the_defaults(tmp_path):
    empty = tmp_path / "empty.yml"
    empty.write_text("")
    assert load_config(None) == load_config(empty) == TrainConfig()


def test_the_example_file_is_what_config_init_writes(repository):
    """`anomaly-trainer config init --force --output trainer/anomaly-trainer.example.yml` makes it again."""
    assert (repository / "trainer" / "anomaly-trainer.example.yml").read_text() == commented()


def test_every_key_has_a_comment_and_no_comment_is_of_a_key_that_is_gone():
    def paths(value, prefix=""):
        for entry in fields(value):
            inner = getattr(value, entry.name)
            yield prefix + entry.name
            if is_dataclass(inner):
                yield from paths(inner, f"{prefix}{entry.name}.")

    assert set(COMMENTS) == set(paths(TrainConfig()))


def test_the_example_file_lists_every_key_at_its_default(repository):
    path = repository / "trainer" / "anomaly-trainer.example.yml"
    assert load_config(path) == TrainConfig()

    def keys(value, prefix=""):
        if not isinstance(value, dict):
            return {prefix}
        return {key for name, item in value.items() for key in keys(item, f"{prefix}.{name}")} or {prefix}

    from dataclasses import asdict

    commented_out = re.sub(r"^( *)# (\w+: )", r"\1\2", path.read_text(), flags=re.MULTILINE)
    assert keys(yaml.safe_load(commented_out)) == keys(asdict(TrainConfig()))


def test_the_environment_is_heard_by_whoever_starts_from_the_example_file(repository):
    """As on a host with systemd: the example is trainer.yml there, and trainer.env has the server."""
    path = repository / "trainer" / "anomaly-trainer.example.yml"
    said = {
        "PROMETHEUS_URL": "http://p:9090",
        "MLFLOW_TRACKING_URI": "http://m:5000",
        "PROMETHEUS_GATEWAY": "g:9091",
    }
    config = load_config(path, said)
    assert (config.source.type, config.source.prometheus.url) == ("prometheus", "http://p:9090")
    assert (config.mlflow.tracking_uri, config.metrics.pushgateway) == ("http://m:5000", "g:9091")
    assert configuration_notes(path, said) == ()


def test_a_variable_that_the_file_outvotes_is_said_to_go_unheard(tmp_path):
    (tmp_path / "c.yml").write_text("source: {type: synthetic}\n")
    [note] = configuration_notes(tmp_path / "c.yml", {"PROMETHEUS_URL": "http://p:9090"})
    assert "PROMETHEUS_URL is set and not used" in note
    assert configuration_notes(tmp_path / "c.yml", {}) == ()
    assert configuration_notes(None, {"PROMETHEUS_URL": "http://p:9090"}) == ()


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"intervall": "15s"}, "intervall: unknown key; did you mean interval?"),
        ({"models": {"lstm": {"epoch": 3}}}, "models.lstm.epoch: unknown key; did you mean epochs?"),
        ({"interval": "15 parsecs"}, "interval: expected a duration such as 15s"),
        ({"interval": "1h"}, "interval: expected a value from 1 to 300 seconds, got '1h'"),
        (
            {"models": {"lstm": {"units": [50, "x"]}}},
            "models.lstm.units[1]: expected a whole number, got 'x'",
        ),
        ({"models": {"lstm": {"units": [50]}}}, "models.lstm: units: expected two sizes"),
        ({"models": {"enabled": []}}, "models: enabled: expected at least one"),
        ({"labels": {"least_events": 30}}, "labels: enough_events is 20, less than least_events (30)"),
        ({"models": {"enabled": ["lstn"]}}, "did you mean lstm?"),
        ({"source": {"type": "promethus"}}, "did you mean prometheus?"),
        ({"source": {"type": "file"}}, "source: file.path is required"),
        ({"source": {"prometheus": {"url": "localhost:9090"}}}, "source.prometheus: url: expected http://"),
        ({"source": {"prometheus": {"url": "http://me:pw@host"}}}, "put the user into username"),
        ({"source": {"prometheus": {"url": "http://[::1"}}}, "url: expected a URL such as http://host:port"),
        ({"source": {"prometheus": {"url": "http://h:99999"}}}, "url: expected a URL"),
        ({"source": {"prometheus": {"url": "http://h", "end": 1.75e12}}}, "source.prometheus.end"),
        ({"mlflow": {"tracking_uri": "http://[::1"}}, "tracking_uri: expected a URL"),
        ({"metrics": {"pushgateway": "h:port"}}, "pushgateway: expected a URL"),
        ({"training": {"fit_fraction": 1.5}}, "training.fit_fraction: expected a value from 0.5 to 0.95"),
        ({"training": {"seed": True}}, "training.seed: expected a whole number, got True"),
        ({"gate": {"beat_baselines": "yes"}}, "gate.beat_baselines: expected true or false, got 'yes'"),
        ({"exclusions": {"node_labels": ["no de"]}}, "exclusions: node_labels: 'no de' is no label name"),
        ({"exclusions": {"node_labels": []}}, "exclusions: node_labels: expected at least one label"),
        ({"exclusions": {"reboot": "5m"}}, "exclusions.reboot: unknown key; did you mean after_reboot?"),
        ({"models": 3}, "models: expected a mapping of keys, got 3"),
        ([1], "the configuration: expected a mapping of keys"),
    ],
)
def test_a_wrong_setting_is_named_by_its_path(raw, said):
    assert said in refused(raw)


def test_all_wrong_keys_are_reported_at_once():
    message = refused(
        {"intervall": 1, "training": {"seeds": 2}, "budget": {"false_alarms_per_node_week": -1}}
    )
    assert len(message.splitlines()) == 3


def test_a_password_in_the_url_is_not_repeated_in_the_error():
    assert "hunter2" not in refused({"source": {"prometheus": {"url": "http://me:hunter2@host"}}})


def test_a_file_that_is_no_yaml_is_named(tmp_path):
    path = tmp_path / "broken.yml"
    path.write_text("a: [1,\n")
    with pytest.raises(ConfigError, match=r"broken\.yml: not YAML"):
        load_config(path)
    with pytest.raises(ConfigError, match=r"gone\.yml: No such file"):
        load_config(Path("gone.yml"))


def test_a_key_that_is_given_twice_is_refused_with_its_lines(tmp_path):
    path = tmp_path / "twice.yml"
    path.write_text("training:\n  seed: 1\n  seed: 2\n")
    with pytest.raises(ConfigError, match=r"twice\.yml: line 3, column 3: the key seed is given twice"):
        load_config(path)


def test_every_line_of_an_error_in_a_file_names_the_file(tmp_path):
    path = tmp_path / "typo.yml"
    path.write_text("a: 1\nb: 2\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert all("typo.yml: " in line for line in caught.value.message.splitlines())


def test_prometheus_url_of_the_environment_fills_in_and_the_file_wins():
    environ = {"PROMETHEUS_URL": "http://prom:9090"}
    config = parse_config({}, environ)
    assert (config.source.type, config.source.prometheus.url) == ("prometheus", "http://prom:9090")
    assert parse_config({"source": {"type": "synthetic"}}, environ).source.type == "synthetic"
    own = parse_config({"source": {"prometheus": {"url": "http://own:9090"}}}, environ)
    assert own.source.prometheus.url == "http://own:9090"
    with pytest.raises(ConfigError, match="url: expected http://"):
        parse_config({}, {"PROMETHEUS_URL": "prom:9090"})


def test_whoever_names_a_server_or_a_file_and_no_type_is_not_trained_on_a_simulated_fleet():
    assert parse_config({"source": {"prometheus": {"url": "http://own:9090"}}}).source.type == "prometheus"
    file = {"source": {"file": {"path": "history.csv"}}}
    assert parse_config(file).source.type == "file"
    assert parse_config(file, {"PROMETHEUS_URL": "http://p:9090"}).source.type == "file"
    assert parse_config({"source": {"file": {"path": ""}, "prometheus": None}}).source.type == "synthetic"
    both = file["source"] | {"prometheus": {"url": "http://own:9090"}}
    with pytest.raises(ConfigError, match=r"type: is absent, and source\.file\.path"):
        parse_config({"source": both})
    assert parse_config({"source": {"type": "synthetic"} | both}).source.type == "synthetic"


def test_options_of_the_command_line_win():
    config = with_options(TrainConfig(), data="x.csv", interval=60.0, publish="out", seed=3)
    assert (config.source.type, config.source.file.path) == ("file", "x.csv")
    assert (config.interval, config.publish.directory, config.training.seed) == (60.0, "out", 3)
    with pytest.raises(ConfigError, match="--data"):
        with_options(TrainConfig(), data="x.csv", source="prometheus")
    with pytest.raises(ConfigError, match=r"file\.path is required"):
        with_options(TrainConfig(), source="file")


@pytest.mark.parametrize(
    ("text", "seconds"), [("15s", 15), ("1h30m", 5400), ("2d", 172800), ("500ms", 0.5), (7, 7), ("20", 20)]
)
def test_durations_are_read_as_prometheus_writes_them(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(["source", "interval", "features", "models", "gate", "labels"]), VALUES)
)
def test_whatever_the_file_holds_the_answer_is_a_config_or_a_config_error(raw):
    with contextlib.suppress(ConfigError):
        assert isinstance(parse_config(raw), TrainConfig)


def test_differences_are_written_as_a_file_would_have_them():
    config = parse_config({"interval": "1m", "source": {"prometheus": {"matchers": 'job="node"'}}})
    assert differences(config) == {"interval": "1m", "source.prometheus.matchers": "'job=\"node\"'"}
    assert differences(TrainConfig()) == {}
