"""Progress: lines in a log, bars on a terminal, silence on request."""

from __future__ import annotations

import io
import time

from rich.console import Console

from node_anomaly_trainer.progress import PlainProgress, SilentProgress, TerminalProgress, open_progress


def test_a_log_gets_a_line_per_tenth_and_not_per_report():
    stream = io.StringIO()
    with PlainProgress(stream, clock=lambda: 0.0).phase("Fitting") as report:
        for at in range(1001):
            report(at / 1000, f"step {at}")
    lines = stream.getvalue().splitlines()
    assert lines[0] == "Fitting ..."
    assert lines[-1].startswith("Fitting 100%")
    assert 8 <= len(lines) <= 13


def test_a_slow_phase_shows_that_it_lives():
    stream, now = io.StringIO(), [0.0]
    with PlainProgress(stream, clock=lambda: now[0]).phase("Waiting") as report:
        for _ in range(4):
            now[0] += 20.0
            report(0.01, "still at it")
    assert stream.getvalue().count("still at it") == 4


def test_a_terminal_gets_bars_and_notes_are_printed_as_they_are():
    stream = io.StringIO()
    progress = TerminalProgress(Console(file=stream, force_terminal=True, width=120))
    with progress.phase("Fitting") as report:
        report(0.5, "tree 50")
        progress.note("[not markup]")
    assert "Fitting" in stream.getvalue()
    assert "100%" in stream.getvalue()
    assert "[not markup]" in stream.getvalue()


def test_names_with_brackets_are_shown_on_a_terminal_as_they_are():
    stream = io.StringIO()
    with TerminalProgress(Console(file=stream, force_terminal=True, width=120)).phase("e[/x]") as report:
        report(0.5, "web[prod]/one[/y]")
        time.sleep(0.3)  # a bar is drawn ten times a second
    assert "e[/x]" in stream.getvalue()
    assert "web[prod]/one[/y]" in stream.getvalue()


def test_a_stream_that_is_no_terminal_gets_lines():
    assert isinstance(open_progress(io.StringIO()), PlainProgress)


def test_silence_is_silent(capsys):
    with SilentProgress().phase("x") as report:
        report(0.5, "y")
    SilentProgress().note("z")
    assert capsys.readouterr() == ("", "")
