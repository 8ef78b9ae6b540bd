"""Which logs are read, from flags and file, and what this host gets without either."""

from __future__ import annotations

import re

import pytest

import journal
from node_anomaly_agent.cli import main
from node_anomaly_agent.config import load_config
from node_anomaly_agent.config_logs import LogsConfig
from node_anomaly_agent.logs.assembly import build_logs, chooser
from node_anomaly_core.errors import ConfigError


def loaded(**overrides):
    return load_config(None, {f"collector.logs.{key}": value for key, value in overrides.items()}, {}).logs


def test_flags_repeat_and_switch(capsys):
    arguments = [
        "check-config",
        "--collector.logs.files=/a/*.log",
        "--collector.logs.files=/b",
        "--no-collector.logs.journald",
    ]
    assert main([*arguments, "--collector.logs.containers"]) == 0
    shown = re.sub(r" +", " ", capsys.readouterr().out)
    assert "collector.logs.files /a/*.log, /b\n" in shown
    assert "collector.logs.journald off\n" in shown
    assert "collector.logs.containers on\n" in shown


def test_a_file_says_the_same(tmp_path):
    file = tmp_path / "agent.yml"
    file.write_text(
        "collector:\n  logs:\n    files: [/a/*.log]\n    journald: false\n    max-bytes: 1MiB\n"
        "    groups: ['db=postgresql*.service,/var/log/postgresql/*']\n"
    )
    logs = load_config(file, {}, {}).logs
    assert (logs.files, logs.journald, logs.containers, logs.max_bytes) == (
        ("/a/*.log",),
        False,
        None,
        1 << 20,
    )
    assert logs.groups == (("db", ("postgresql*.service", "/var/log/postgresql/*")),)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("files", "var/log/x", "absolute glob"),
        ("files", ["/a"] * 65, "at most 64"),
        ("files", [3], "absolute glob"),
        ("journald", "perhaps", "collector.logs.journald"),
        ("groups", ["db"], "NAME=PATTERN"),
        ("groups", ["DB=x"], "NAME=PATTERN"),
        ("groups", ["a=x", "a=y"], "twice"),
        ("groups", [f"g{n}=x" for n in range(17)], "at most 16"),
        ("max-bytes", "1", "64KiB"),
        ("max-bytes", True, "64KiB"),
        ("max-time", "1ms", "must be from"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_key(key, value, message):
    with pytest.raises(ConfigError, match=message) as caught:
        loaded(**{key: value})
    assert f"collector.logs.{key}" in caught.value.message


def test_an_unknown_key_names_the_nearest(tmp_path):
    file = tmp_path / "agent.yml"
    file.write_text("collector: {logs: {journal: true}}\n")
    with pytest.raises(ConfigError, match=r"did you mean collector\.logs\.journald"):
        load_config(file, {}, {})


def test_with_everything_off_no_log_is_read(tmp_path):
    off = LogsConfig(files=(), journald=False, containers=False)
    assert not off.enabled
    assert build_logs(off, tmp_path) is None


def test_units_are_included_excluded_and_grouped_by_the_first_that_matches():
    settings = LogsConfig(
        include=("*.service", "/var/log/*"),
        exclude=("noise*",),
        groups=(("db", ("pg*", "/x/*")), ("all", ("*",))),
    )
    group_of = chooser(settings, paths=False)
    assert group_of is not None
    assert [group_of(unit) for unit in ("pg.service", "web.service", "noise.service", "a.scope")] == [
        "db", "all", None, None,
    ]  # fmt: skip
    assert chooser(LogsConfig(include=("/var/log/*",), groups=(("x", ("/y/*",)),)), paths=False) is None


def test_show_lines_prints_new_patterns_with_secrets_masked(tmp_path, capsys, monkeypatch):
    """The journal of another root, into which lines come while `--once` looks for three seconds."""
    place = tmp_path / "var/log/journal" / ("a" * 32)
    journal.write(place / "system.journal", [{"MESSAGE": "old"}])

    def log_something(_clock: object, _seconds: float) -> None:
        if not (place / "system@2.journal").exists():
            said = [{"MESSAGE": "login failed password=hunter2", "PRIORITY": "3"}]
            journal.write(place / "system@2.journal", said, journal.START_US + 10**9)

    monkeypatch.setattr("node_anomaly_agent.clock.SystemClock.wait", log_something)
    paths = [f"--path.rootfs={tmp_path}", f"--state.directory={tmp_path / 'state'}"]
    main(["--once", "--show-lines=5", *paths])
    shown = capsys.readouterr().out
    assert "login failed password=***" in shown
    assert "hunter2" not in shown
    main(["--once", "--show-lines=5", "--output=json", *paths])
    assert "login failed" not in capsys.readouterr().out


def test_a_host_without_any_setting_is_read_by_its_journal_or_by_its_files(tmp_path):
    """Never by both: they hold the same lines."""
    (tmp_path / "var/log").mkdir(parents=True)
    (tmp_path / "var/log/syslog").write_text("")
    pods = tmp_path / "var/log/pods/shop_web-1_uid/web"
    pods.mkdir(parents=True)
    (pods / "0.log").write_text("")
    meter = build_logs(LogsConfig(), tmp_path)
    assert meter is not None
    meter.read()
    (tmp_path / "var/log/syslog").write_text("Nov 25 10:00:00 h app: ERROR one\n")
    (pods / "0.log").write_text("2026-01-02T03:04:05.000000000Z stdout F all is well\n")
    reading = meter.read()
    assert reading["anomaly_agent_log_errors_total", "files"] == 1
    assert reading["anomaly_agent_log_lines_total", "containers"] == 1
    assert ("anomaly_agent_log_lines_total", "journald") not in reading
    assert meter.status().sources["journald"] == (False, True, 0)
    meter.close()
    journal.write(tmp_path / "var/log/journal" / ("a" * 32) / "system.journal", [{"MESSAGE": "x"}])
    again = build_logs(LogsConfig(), tmp_path)
    assert again is not None
    again.read()
    assert set(again.status().sources) == {"journald", "containers"}
    again.close()


def test_paths_are_the_hosts_wherever_its_root_is(tmp_path):
    folder = tmp_path / "srv/logs"
    folder.mkdir(parents=True)
    for name in ("db.log", "web.log", "noise.log"):
        (folder / name).write_text("")
    settings = LogsConfig(
        files=("/srv/logs/*.log",), journald=False, containers=False,
        exclude=("/srv/logs/noise*",), groups=(("db", ("/srv/logs/db*",)),),
    )  # fmt: skip
    meter = build_logs(settings, tmp_path)
    assert meter is not None
    meter.read()
    for name in ("db.log", "web.log", "noise.log"):
        (folder / name).write_text("a line\n")
    meter.read()
    assert meter.status().counted["files"].lines == 2
    assert meter.status().groups["db"].lines == 1
    meter.close()
