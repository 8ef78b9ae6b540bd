"""Settings: defaults, file, flags, and errors that name the key."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_anomaly_agent.config import (
    KEYS,
    Address,
    InvalidValue,
    file_of,
    format_duration,
    load_config,
    parse_address,
    parse_duration,
    read_yaml,
)
from node_anomaly_core.errors import ConfigError

COLLECTORS = {"cpu": True, "memory": True, "processes": False}


def config_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "agent.yml"
    path.write_text(text)
    return path


def load(tmp_path: Path, text: str, **flags: object):
    overrides = {name.replace("__", ".").replace("_", "-"): value for name, value in flags.items()}
    return load_config(config_file(tmp_path, text), overrides, COLLECTORS)


def test_no_config_at_all_gives_the_documented_defaults():
    config = load_config(None, {}, COLLECTORS)
    assert config.interval_s == 15.0
    assert config.window_s == 60.0
    assert config.listen_address == Address("", 9917)
    assert config.telemetry_path == "/metrics"
    assert config.procfs == Path("/proc")
    assert config.bundle_poll_interval_s == 30.0
    assert config.state_directory is None
    assert config.collectors == COLLECTORS


def test_nested_keys_of_the_file_are_read(tmp_path):
    config = load(
        tmp_path,
        """
        interval: 5s
        web: {listen-address: "127.0.0.1:1", telemetry-path: /m}
        state: {directory: /srv/state}
        bundle: {directory: /srv/bundles, poll-interval: 1m}
        log: {level: debug, format: json}
        collector: {cpu: false, processes: on}
        """,
    )
    assert config.interval_s == 5.0
    assert config.listen_address == Address("127.0.0.1", 1)
    assert config.telemetry_path == "/m"
    assert config.state_directory == Path("/srv/state")
    assert config.bundle_directory == Path("/srv/bundles")
    assert config.bundle_poll_interval_s == 60.0
    assert (config.log_level, config.log_format) == ("debug", "json")
    assert config.collectors == {"cpu": False, "memory": True, "processes": True}


def test_a_dotted_key_means_the_same_as_a_nested_one(tmp_path):
    assert load(tmp_path, "web.telemetry-path: /m").telemetry_path == "/m"


def test_flags_override_the_file(tmp_path):
    config = load(tmp_path, "interval: 5s\ncollector: {cpu: false}", interval="20s", collector__cpu=True)
    assert config.interval_s == 20.0
    assert config.collectors["cpu"] is True


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n", "web:\n", "collector:\n"], ids=repr)
def test_an_empty_file_or_section_is_the_defaults(tmp_path, text):
    assert load(tmp_path, text).interval_s == 15.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("intervall: 5s", "intervall: unknown key (did you mean interval?)"),
        ("web: {listen-adress: ':1'}", "web.listen-adress: unknown key (did you mean web.listen-address?)"),
        ("listen-address: ':1'", "listen-address: unknown key (did you mean web.listen-address?)"),
        ("collector: {cpus: true}", "collector.cpus: unknown key (did you mean collector.cpu?)"),
        ("zzz: 1", "zzz: unknown key (known keys: interval, "),
        ("interval: soon", "interval: expected a duration such as 15s or 1m, got 'soon'"),
        ("interval: 0", "interval: must be from 0.1s to 1h, got 0"),
        ("interval: true", "interval: expected a duration"),
        ("interval: .nan", "interval: expected a duration"),
        ("interval: [1]", "interval: expected a duration"),
        ("web: {listen-address: 9917}", "web.listen-address: expected HOST:PORT or :PORT, got 9917"),
        ("web: {listen-address: ':70000'}", "web.listen-address: expected a port from 0 to 65535"),
        ("web: {listen-address: '::1:80'}", "web.listen-address: expected HOST:PORT, [IPV6]:PORT or :PORT"),
        ("web: {telemetry-path: metrics}", "web.telemetry-path: expected a path such as /metrics"),
        ("web: {telemetry-path: /-/ready}", "web.telemetry-path: /-/ready is taken"),
        ("web: metrics", "web: expected a mapping of settings, got str"),
        ("path: {procfs: proc}", "path.procfs: expected an absolute path, got 'proc'"),
        ("path: {procfs: 3}", "path.procfs: expected a path"),
        ('path: {procfs: "/a\\0b"}', r"path.procfs: expected a path, got '/a\x00b'"),
        ('path: {rootfs: "/\\ud800"}', r"path.rootfs: expected a path, got '/\ud800'"),
        ('state: {directory: "/a\\0b"}', "state.directory: expected a directory"),
        ('bundle: {directory: "~\\0"}', "bundle.directory: expected a directory"),
        ('bundle: {trusted-keys: ["/a\\0b"]}', r"bundle.trusted-keys: '/a\x00b' cannot be read"),
        ('collector: {logs: {files: "/a\\0b"}}', "collector.logs.files: expected an absolute glob"),
        ("state: {directory: 3}", "state.directory: expected a directory"),
        ("log: {level: loud}", "log.level: must be one of debug, info, warning, error, got 'loud'"),
        ("collector: {cpu: maybe}", "collector.cpu: expected true or false, got 'maybe'"),
        ("- a\n- b", "the file must hold a mapping of settings, got list"),
        ("web: {telemetry-path: /a}\nweb.telemetry-path: /b", "web.telemetry-path: given twice"),
    ],
)
def test_a_wrong_setting_is_named_with_its_whole_path(tmp_path, text, message):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert message in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_all_problems_are_told_at_once(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, "intervall: 1\nlog: {level: loud}\npath: {sysfs: x}")
    assert caught.value.message.count("; ") == 2


# Deeper than Python recurses by default, and no deeper: what is read is looked at again at every level.
NOT_YAML = ["a: b: c", "x: [1", "\t- 1", "a: \x00", "[" * 1000, "? {a: 1}\n: 2", "!!seq '': 1"]


@pytest.mark.parametrize("text", NOT_YAML, ids=str)
def test_a_file_that_is_not_yaml_is_one_line(tmp_path, text):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert str(tmp_path) in caught.value.message + caught.value.hint
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("text", "place", "key"),
    [
        ("interval: 5s\nlog:\n  level: info\ninterval: 6s\n", "line 4, column 1", "interval"),
        ("log: {level: info, format: json, level: debug}", "line 1, column 34", "level"),
        ("collector: {on: 1, 'x': 1, yes: 2}", "line 1, column 28", "yes"),
        ("suppressors:\n- {a: 1}\n- b: 1\n  b: 2\n", "line 4, column 3", "b"),
        ("a: &a {x: 1, x: 2}\nb: {<<: *a}", "line 1, column 14", "x"),
    ],
    ids=["top", "flow", "meaning", "in a list", "merged elsewhere"],
)
def test_a_key_that_is_given_twice_is_refused_with_its_place(tmp_path, text, place, key):
    """YAML's own loader takes the last one and drops the others unsaid."""
    path = config_file(tmp_path, text)
    for flag in ("config.file", "features.file", "web.config.file"):
        with pytest.raises(ConfigError, match=f"{place}: the key {key} is given twice") as caught:
            read_yaml(path, flag)
        assert str(path) in caught.value.message
        assert caught.value.hint == "keep one of the two"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: &a {x: 1, y: 1}\nb: {<<: *a, x: 2}", {"a": {"x": 1, "y": 1}, "b": {"x": 2, "y": 1}}),
        ("p: {a: &a {x: 1}, b: &b {<<: *a, x: 2}}\nc: {<<: *b}", {"c": {"x": 2}}),
        ("p: &a {x: 1}\nq: &b {y: 1}\nc: {<<: *a, <<: *b}", {"c": {"x": 1, "y": 1}}),
        ("c: {=: 1, '1': 1, 1: 2}", {"c": {"=": 1, "1": 1, 1: 2}}),
    ],
    ids=["overridden", "overridden deeper than it is merged", "merged twice", "other types"],
)
def test_keys_that_only_seem_to_be_given_twice_are_taken(tmp_path, text, expected):
    assert expected.items() <= read_yaml(config_file(tmp_path, text)).items()


def test_a_file_that_cannot_be_read_says_why(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        load_config(tmp_path / "absent.yml", {}, COLLECTORS)
    with pytest.raises(ConfigError, match="Is a directory"):
        load_config(tmp_path, {}, COLLECTORS)
    with pytest.raises(ConfigError, match="larger than 1 MiB"):
        load(tmp_path, "#" * (1 << 20 | 1))


def test_a_wrong_flag_is_named_without_a_file():
    with pytest.raises(ConfigError, match="interval: expected a duration") as caught:
        load_config(None, {"interval": "x"}, COLLECTORS)
    assert "--help" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("15s", 15), ("1m", 60), ("1m30s", 90), ("500ms", 0.5), ("1h", 3600), (15, 15), (0.5, 0.5), ("7", 7)],
    ids=str,
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@given(st.floats(min_value=0.001, max_value=1e6, allow_nan=False).map(lambda value: round(value, 3)))
def test_a_formatted_duration_reads_back(seconds):
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=1e-5)


@given(st.one_of(st.text(), st.floats(), st.integers(), st.none(), st.lists(st.integers())))
def test_no_value_makes_a_parser_fail_otherwise_than_by_its_own_error(value):
    for parse in (parse_duration, parse_address, *(setting.parse for setting in KEYS)):
        with contextlib.suppress(InvalidValue):
            parse(value)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (":9917", Address("", 9917)),
        ("127.0.0.1:9917", Address("127.0.0.1", 9917)),
        ("[::1]:9917", Address("::1", 9917)),
        ("localhost:0", Address("localhost", 0)),
    ],
)
def test_addresses(text, address):
    assert parse_address(text) == address
    assert str(address) == text


class TestWhereAnInstalledAgentHasItsSettings:
    def test_the_usual_file_is_read_where_it_exists_and_none_is_named(self, tmp_path):
        usual = tmp_path / "agent.yml"
        assert file_of(None, usual) is None
        usual.write_text("interval: 30s\n")
        assert file_of(None, usual) == usual
        assert file_of("other.yml", usual) == Path("other.yml")
        assert file_of("", usual) is None

    def test_the_environment_says_where_the_host_is_mounted_and_file_and_flag_win(self, tmp_path):
        environ = {"HOST_PROC": "/host/proc", "HOST_SYS": "/host/sys", "HOST_ROOT": ""}
        file = config_file(tmp_path, "path: {sysfs: /other/sys}")
        config = load_config(file, {}, COLLECTORS, environ)
        assert [str(one) for one in (config.procfs, config.sysfs, config.rootfs)] == [
            "/host/proc", "/other/sys", "/",
        ]  # fmt: skip
        assert str(load_config(None, {"path.procfs": "/p"}, COLLECTORS, environ).procfs) == "/p"

    def test_a_wrong_variable_is_named_with_what_it_should_be(self):
        with pytest.raises(ConfigError) as caught:
            load_config(None, {}, COLLECTORS, {"HOST_PROC": "proc"})
        assert caught.value.message == "$HOST_PROC: expected an absolute path, got 'proc'"
        assert caught.value.hint == "correct HOST_PROC in the environment"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("url: http://bundles", "bundle.url: http:// lets anybody"),
        ("url: http://localhost.example.org", "bundle.url: http:// lets anybody"),
        (
            "url: http://b, insecure-http: true, token-file: /t",
            "bundle.token-file: would be sent unencrypted",
        ),
        ("tls-cert-file: /c", "bundle.tls-cert-file: goes with"),
        ("tls-key-file: /k", "bundle.tls-cert-file: goes with"),
        ("shadow-channel: candidate", "bundle.shadow-channel: has no bundle.url"),
        ("url: https://b, shadow-channel: stable", "bundle.shadow-channel: is the channel that is in use"),
    ],
)
def test_bundle_settings_that_do_not_fit_together_are_refused(tmp_path, keys, message):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, f"bundle: {{{keys}}}")
    assert message in caught.value.message


@pytest.mark.parametrize(
    "keys", ["url: http://b, insecure-http: true", "url: http://localhost, token-file: /t"]
)
def test_plain_http_is_taken_where_it_is_asked_for_and_of_this_machine(tmp_path, keys):
    assert load(tmp_path, f"bundle: {{{keys}}}").distribution.url.startswith("http://")
