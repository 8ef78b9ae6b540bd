"""Old log files become the numbers that an agent would have had."""

from __future__ import annotations

import gzip
import json
import math
import os
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from node_anomaly_core.errors import SourceError
from node_anomaly_trainer.commands import app
from node_anomaly_trainer.config import FileConfig
from node_anomaly_trainer.log_lines import MAX_LINE_BYTES, line_time, read_lines
from node_anomaly_trainer.progress import ignore_report
from node_anomaly_trainer.replay_logs import LOG_FEATURES, replay_logs
from node_anomaly_trainer.sources.file import read_file

WRITTEN = 1_767_571_200.0  # 2026-01-05 00:00 UTC


@pytest.mark.parametrize(
    ("line", "before_s"),
    [
        (b"Jan  4 23:59:50 host app[1]: hello", 10),
        (b"<13>Jan  4 23:59:50 host app: hello", 10),
        (b"Dec 31 00:00:00 host app: last year's", 5 * 86400),
        (b"I0104 23:59:50.123456       1 x.go:1] hello", 10),
        (b"2026-01-04T23:59:50Z hello", 10),
        (b"2026-01-05 01:59:50.5+02:00 hello", 9.5),
        (b"2026-01-04 23:59:50,250 INFO hello", 9.75),
        (b'{"ts":"2026-01-04T23:59:50.000Z","msg":"hello"}', 10),
        (b"level=info time=2026-01-04T23:59:50Z msg=hello", 10),
        (b'::1 - - [05/Jan/2026:01:59:50 +0200] "GET / HTTP/1.1" 200 1', 10),
    ],
)
def test_a_time_is_read_in_every_usual_form(line, before_s):
    assert line_time(line, WRITTEN) == pytest.approx(WRITTEN - before_s, abs=1e-3)


def test_a_time_a_little_ahead_of_the_file_is_of_its_year_and_a_leap_second_is_the_last_of_its_minute():
    """The clock of the host that wrote it may be ahead of that of the disk."""
    assert line_time(b"Jan  5 00:00:30 host app: hello", WRITTEN) == WRITTEN + 30
    assert line_time(b"Jan  4 23:59:60 host app: hello", WRITTEN) == WRITTEN - 1


@pytest.mark.parametrize(
    "line", [b"", b"hello", b"2026-13-45T99:99:99Z", b"Xyz 99 99:99:99 h", b"I9999 99:99:99.0 x"]
)
def test_what_is_no_time_is_none(line):
    assert math.isnan(line_time(line, WRITTEN))


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    os.utime(path, (WRITTEN, WRITTEN))
    return path


def test_a_line_without_a_time_belongs_to_the_one_before(tmp_path):
    file = write(
        tmp_path / "a.log", "  no time yet\n2026-01-04T00:00:00Z ERROR\n  at x.y.Z\n2026-01-04T00:00:09Z b\n"
    )
    lines = list(read_lines(file))
    assert [line.message for line in lines] == [
        b"2026-01-04T00:00:00Z ERROR",
        b"  at x.y.Z",
        b"2026-01-04T00:00:09Z b",
    ]
    assert lines[0].time == lines[1].time == lines[2].time - 9


def test_what_wraps_a_message_is_taken_off(tmp_path):
    entry = {"__REALTIME_TIMESTAMP": "1767484800000000", "MESSAGE": [104, 105], "PRIORITY": "3"}
    text = f"2026-01-04T00:00:00.1Z stderr F ERROR x\n{json.dumps(entry)}\n"
    first, second = read_lines(write(tmp_path / "a.log", text))
    assert first.message == b"ERROR x"
    assert (second.message, second.severity) == (b"hi", 3)


def test_the_features_are_the_rates_that_were_logged(tmp_path):
    """Two lines a second, one in ten an error, over two files that overlap, one of them packed."""
    lines = [
        f"2026-01-04T00:{n // 120:02}:{n // 2 % 60:02}Z {'ERROR' if n % 10 == 0 else 'INFO'} request {n}"
        for n in range(2400)
    ]
    plain = write(tmp_path / "b.log", "\n".join(lines[::2]) + "\n")
    packed = tmp_path / "a.log.gz"
    packed.write_bytes(gzip.compress(("\n".join(lines[1::2]) + "\n").encode()))
    frame = replay_logs([plain, packed], "web-01", 15.0)
    assert list(frame.columns) == ["timestamp", "node", *(feature.name for feature in LOG_FEATURES)]
    assert len(frame) == 80
    assert np.diff(frame.timestamp).tolist() == [15.0] * 79
    late = frame.iloc[10:]
    assert late.log_lines_per_second.to_numpy() == pytest.approx(2.0)
    assert late.log_errors_per_second.to_numpy() == pytest.approx(0.2)
    assert late.log_errors_ratio.to_numpy() == pytest.approx(0.1)
    assert (late.log_templates_count == 2).all()


def test_a_message_of_several_lines_is_one_line_of_a_tick(tmp_path):
    """As journald's JSON holds them: the second half is no line without a level."""
    entry = {"__REALTIME_TIMESTAMP": "1767484800000000", "MESSAGE": list(b"it broke\nERROR deep below")}
    (line,) = read_lines(write(tmp_path / "a.log", json.dumps(entry) + "\n"))
    assert line.message == b"it broke ERROR deep below"


def test_a_line_without_end_is_cut(tmp_path):
    (line,) = read_lines(write(tmp_path / "a.log", "2026-01-04T00:00:00Z " + "x" * 100_000 + "\n"))
    assert len(line.message) == MAX_LINE_BYTES


def test_a_tick_without_lines_is_silence_and_not_missing(tmp_path):
    file = write(tmp_path / "a.log", "2026-01-04T00:00:00Z a\n2026-01-04T00:10:00Z b\n")
    frame = replay_logs([file], "web-01", 15.0)
    assert len(frame) == 41
    assert (frame.log_lines_per_second.iloc[8:40] == 0).all()


def test_the_command_writes_what_the_file_source_reads(tmp_path):
    file = write(
        tmp_path / "a.log", "".join(f"2026-01-04T00:0{n // 60}:{n % 60:02}Z INFO n\n" for n in range(300))
    )
    output = tmp_path / "logs.parquet"
    done = CliRunner().invoke(app, ["replay-logs", str(file), "--node", "web-01", "--output", str(output)])
    assert done.exit_code == 0, done.output
    history = read_file(FileConfig(path=str(output)), LOG_FEATURES, 15.0, ignore_report, print)
    assert history.nodes == ("web-01",)
    assert len(pd.read_parquet(output)) == len(history.timestamps) == 20
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.log", "logs.parquet"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["{log}", "--output", "x.csv"], 2, "not a .parquet"),
        (["{log}", "--output", "x.parquet", "--interval", "soon"], 2, "--interval"),
        (["{log}", "--output", "x.parquet", "--interval", "0s"], 2, "--interval"),
        (["{none}", "--output", "x.parquet"], 1, "No such file"),
        (["{untimed}", "--output", "x.parquet"], 1, "no line has a time"),
        (["{empty}", "--output", "x.parquet"], 1, "no log line"),
    ],
)
def test_what_cannot_be_read_is_refused_in_a_sentence(tmp_path, arguments, code, message):
    names = {
        "log": write(tmp_path / "a.log", "2026-01-04T00:00:00Z a\n"),
        "untimed": write(tmp_path / "b.log", "hello\n"),
        "empty": write(tmp_path / "c.log", ""),
        "none": tmp_path / "none.log",
    }
    given = [argument.format(**names) for argument in arguments]
    done = CliRunner().invoke(app, ["replay-logs", *given, "--node", "n"])
    assert done.exit_code == code
    assert message in done.output
    assert "Traceback" not in done.output


def test_packed_garbage_is_refused(tmp_path):
    file = tmp_path / "a.gz"
    file.write_bytes(b"not gzip")
    with pytest.raises(SourceError, match="gz"):
        list(read_lines(file))


def test_a_line_that_is_decades_early_is_named_at_once(tmp_path):
    """A host that began to log before its clock was set."""
    log = tmp_path / "app.log"
    log.write_text("1980-01-01T00:00:00Z booting\n2026-05-01T12:00:00Z ready\n")
    with pytest.raises(SourceError, match=r"1980-01-01 00:00Z the next is of 2026-05-01 12:00Z") as caught:
        replay_logs([log], "n", 15.0)
    assert "whose times are wrong" in caught.value.hint


def test_the_29th_of_february_is_of_the_year_that_had_one():
    written = datetime(2025, 1, 10, tzinfo=UTC).timestamp()
    expected = datetime(2024, 2, 29, 12, tzinfo=UTC).timestamp()
    assert line_time(b"Feb 29 12:00:00 host app: x", written) == expected


def test_an_offset_after_a_space_counts():
    assert line_time(b"2026-01-05 01:59:50 +0200 GET /", WRITTEN) == line_time(
        b"2026-01-04T23:59:50Z", WRITTEN
    )
