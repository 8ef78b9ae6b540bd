"""Log lines: JSON for machines, one plain line for people."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import rig
from node_anomaly_agent.log_setup import configure_logging


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def lines():
    return io.StringIO()


def test_json_is_one_object_a_line(lines):
    configure_logging("info", "json", lines).info("bundle loaded", version="abc", features=3)
    document = json.loads(lines.getvalue())
    assert document["event"] == "bundle loaded"
    assert (document["level"], document["version"], document["features"]) == ("info", "abc", 3)
    assert document["ts"].endswith("Z")


def test_a_console_line_has_time_level_text_and_fields(lines):
    configure_logging("info", "console", lines).warning("bundle refused", why="a b", empty="", rate=0.123456)
    assert lines.getvalue()[8:] == " warning  bundle refused  why='a b'  empty=''  rate=0.1235\n"


class Lost(io.StringIO):
    """A disk that is full, a pipe that nobody reads."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        raise self.error

    def flush(self) -> None:
        raise self.error


@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left on device"), BrokenPipeError(32, "Broken pipe"), ValueError("closed")],
)
def test_a_line_that_cannot_be_written_is_lost_and_nothing_else(error):
    configure_logging("info", "json", Lost(error)).info("bundle loaded")


def test_a_reader_that_has_stopped_reading_makes_nobody_wait(tmp_path):
    reading, writing = os.pipe()
    try:
        with os.fdopen(writing, "w", encoding="utf-8") as stream:
            log = configure_logging("info", "json", stream)
            begun = time.monotonic()
            for number in range(200):
                log.info("a line", number=number, text="\N{SNOWMAN}" * 3_000)
            assert time.monotonic() - begun < 10
            lost = len(os.read(reading, 1 << 20))
            assert 0 < lost <= 1 << 16
            log.info("heard again")
            assert b"heard again" in os.read(reading, 1 << 20)
    finally:
        os.close(reading)


def test_a_terminal_that_is_stopped_makes_nobody_wait():
    """Ctrl-S, or the window of a session that hangs: it is ready, and takes next to nothing."""
    main, side = os.openpty()
    try:
        with os.fdopen(side, "w", encoding="utf-8") as stream:
            log = configure_logging("info", "json", stream)
            begun = time.monotonic()
            for number in range(300):
                log.info("a line", number=number, text="x" * 300)
            assert time.monotonic() - begun < 10
            assert os.get_blocking(stream.fileno()), "the shell's own view of it is left alone"
    finally:
        os.close(main)


def test_a_line_that_was_cut_does_not_glue_the_next_one_to_it(tmp_path):
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 8192)
    try:
        with os.fdopen(writing, "w", encoding="utf-8") as stream:
            log = configure_logging("info", "json", stream)
            log.info("long", text="x" * 20_000)
            os.read(reading, 1 << 20)
            log.info("next")
            assert json.loads(os.read(reading, 1 << 20).splitlines()[-1])["event"] == "next"
    finally:
        os.close(reading)


def test_an_agent_without_standard_error_runs(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)  # as Python has it after `2>&-`
    configure_logging("info", "auto").info("nobody hears this")


def test_a_daemon_whose_log_fills_its_disk_goes_on_and_saves_its_state_at_the_end(tmp_path):
    """/dev/full is such a disk; a buffer of Python's would keep what it did not take, and fail at the end."""
    port = rig.free_port()
    with Path("/dev/full").open("w") as full:
        agent = subprocess.Popen(
            [
                *(sys.executable, "-m", "node_anomaly_agent", "--interval=200ms", "--config.file="),
                *(f"--web.listen-address=127.0.0.1:{port}", f"--state.directory={tmp_path}"),
            ],
            stderr=full,
            env=os.environ | {"PYTHONUNBUFFERED": ""},
        )
    try:
        deadline = time.monotonic() + 60
        ready = False
        while not ready and time.monotonic() < deadline:
            time.sleep(0.1)
            assert agent.poll() is None
            with contextlib.suppress(OSError):
                ready = rig.fetch(f"http://127.0.0.1:{port}/-/ready")[0] == 200
        for _ in range(10):
            agent.send_signal(signal.SIGHUP)
            time.sleep(0.1)
            assert agent.poll() is None
        agent.terminate()
        assert agent.wait(timeout=20) == 0
    finally:
        agent.kill()
    assert (tmp_path / "agent.state").exists()


def test_a_traceback_is_shown_on_the_console_and_kept_in_json(lines):
    for form in ("console", "json"):
        log = configure_logging("info", form, lines)
        try:
            raise ValueError("boom")
        except ValueError:
            log.exception("evaluation failed")
    console, _, last = lines.getvalue().rstrip().rpartition("\n")
    assert "Traceback" in console
    assert "boom" in json.loads(last)["exception"]


@pytest.mark.parametrize(
    ("stream", "is_json"), [(io.StringIO(), True), (Terminal(), False)], ids=["pipe", "tty"]
)
def test_auto_chooses_by_where_it_writes(stream, is_json):
    configure_logging("info", "auto", stream).info("hello")
    assert stream.getvalue().startswith("{") is is_json


def test_lines_below_the_level_are_dropped(lines):
    configure_logging("error", "json", lines).warning("quiet")
    assert lines.getvalue() == ""


@pytest.mark.parametrize("heavy", ["rich", "asyncio"])
def test_logging_brings_no_heavy_import_along(heavy):
    """structlog imports both for features that are not used here: 6 MiB on every node."""
    code = f"import sys, node_anomaly_agent.log_setup; print({heavy!r} in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"


def test_what_is_hidden_while_logging_is_imported_can_be_imported_afterwards():
    code = "import node_anomaly_agent.log_setup, asyncio, rich; asyncio.run(asyncio.sleep(0)); print('ok')"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "ok\n"


def test_what_somebody_else_has_imported_stays():
    code = "import asyncio, sys, node_anomaly_agent.log_setup; print(sys.modules['asyncio'] is asyncio)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "True\n"
