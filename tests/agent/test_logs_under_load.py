"""Log files while another process writes and rotates them, and while the reader is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest

from log_world import EVERY_LOOK, Reader, read_all
from node_anomaly_agent.logs.discovery import Pattern
from node_anomaly_agent.logs.files import FileSource
from node_anomaly_agent.logs.source import Budget

pytestmark = pytest.mark.alone  # a reader that waits for a CPU misses files that come and go meanwhile

WRITER = """
import sys, time
from pathlib import Path
path, seconds, pause = Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
after = Path(sys.argv[4]) if len(sys.argv) > 4 else None
file, number, turn, begun = path.open("ab", buffering=0), 0, 0, time.monotonic()
while time.monotonic() - begun < seconds:
    for _ in range(20):
        file.write(b"".join(b"%d of a line that goes on\\n" % (number + step) for step in range(50)))
        number += 50
    turn += 1
    path.rename(f"{path}.{turn}")
    file.write(b"%d after the rename, before the writer knows\\n" % number)
    number += 1
    file.close()
    file = path.open("ab", buffering=0)
    time.sleep(pause)
    looks = after.stat().st_size if after else 0
    while after and after.stat().st_size < looks + 2 and time.monotonic() - begun < seconds:
        time.sleep(0.001)
print(number)
"""


def start_writer(
    path: Path, seconds: float, pause: float, after: Path | None = None
) -> subprocess.Popen[bytes]:
    """A process that writes and rotates for so many seconds; it prints how many lines it wrote.

    No file is renamed before `after`, where it is given, has grown by two bytes since the file was made.
    """
    command = [
        sys.executable,
        "-c",
        WRITER,
        str(path),
        str(seconds),
        str(pause),
        *([str(after)] if after else []),
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def make(directory: Path) -> FileSource:
    return FileSource([Pattern(f"{directory}/app.log")], limits=EVERY_LOOK)


def test_a_writer_that_rotates_many_times_a_second_loses_no_line(tmp_path):
    """At any moment of a look, not twice in one: a file that came and went between looks nobody can see."""
    reader = Reader(lambda: make(tmp_path))
    reader.tick()
    (tmp_path / "looks").touch()
    with (
        (tmp_path / "looks").open("ab", buffering=0) as looks,
        start_writer(tmp_path / "app.log", 1.5, 0.0, tmp_path / "looks") as writer,
    ):
        while writer.poll() is None:
            reader.tick(size=0)
            looks.write(b".")
        reader.tick(size=0)
        assert reader.lines == int(writer.stdout.read())
    assert len(list(tmp_path.glob("app.log.*"))) > 15


def run_until_killed(directory: Path, saved: Path) -> None:
    """An agent's loop: read, count, and save both in one file that appears whole."""
    kept = json.loads(saved.read_text())
    source = make(directory)
    assert source.restore(kept["source"])
    lines = kept["lines"]
    while True:
        lines += sum(batch.lines for batch in read_all(source))
        staging = saved.with_name("staging")
        staging.write_text(json.dumps({"lines": lines, "source": source.state()}))
        staging.replace(saved)
        lines += sum(batch.lines for batch in read_all(source))  # counted and not saved: must not be lost


def test_a_reader_that_is_killed_again_and_again_counts_every_line_once(tmp_path):
    source = make(tmp_path)
    read_all(source)
    saved = tmp_path / "state.json"
    saved.write_text(json.dumps({"lines": 0, "source": source.state()}))
    with start_writer(tmp_path / "app.log", 2.0, 0.1) as writer:
        while writer.poll() is None:
            child = os.fork()
            if child == 0:
                try:
                    run_until_killed(tmp_path, saved)
                finally:
                    os._exit(1)
            time.sleep(0.25)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        written = int(writer.stdout.read())
    kept = json.loads(saved.read_text())
    source = make(tmp_path)
    assert source.restore(kept["source"])
    assert kept["lines"] + sum(batch.lines for batch in read_all(source)) == written


def test_reading_a_large_file_takes_little_memory(tmp_path):
    source = make(tmp_path)
    read_all(source)
    (tmp_path / "app.log").write_bytes((b"x" * 99 + b"\n") * 400_000)
    tracemalloc.start()
    lines = 0
    for batch in source.read(Budget(time.monotonic() + 60, 1 << 40)):
        lines += batch.lines
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert lines == 400_000
    assert peak < 2 << 20
