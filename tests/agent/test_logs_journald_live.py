"""A real journald is followed while it writes, rotates and vacuums, and while the reader is killed."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

import rig
from live_journald import live_journald, until
from log_world import read_all
from node_anomaly_agent.logs.journald import JournaldSource

pytestmark = pytest.mark.alone  # daemons, and a reader that must keep up with a vacuum


@pytest.fixture
def journald(tmp_path):
    with live_journald(tmp_path) as running:
        yield running


def read_lines(source: JournaldSource) -> list[bytes]:
    """The numbered lines that came; journald's own words are left out."""
    batches = read_all(source)
    assert sum(batch.lines for batch in batches) == sum(batch.data.count(b"\n") for batch in batches)
    return [line for batch in batches for line in batch.data.splitlines() if line.startswith(b"line ")]


def numbered(count: int) -> list[bytes]:
    return [b"line %d" % number for number in range(count)]


def test_what_is_logged_is_read_in_order_over_rotations_and_vacuums(journald):
    source = JournaldSource(journald.root)
    read_lines(source)
    found = []
    for _ in range(5):
        for _ in range(4):
            journald.say(200)
            found += read_lines(source)
        journald.rotate()
        found += read_lines(source)
        journald.vacuum(1)
        assert source.status().success
    until(lambda: found.extend(read_lines(source)) or len(found) >= 4000, "lines are missing")
    assert len(journald.files()) == 1  # all that was rotated is gone
    assert found == numbered(4000)


def test_of_a_storm_that_nobody_has_time_for_every_entry_is_counted(journald, monkeypatch):
    """By the numbers that journald gives its entries, over a rotation too."""
    monkeypatch.setattr("node_anomaly_agent.logs.journald.LOOK_SHARE", 0.0)
    monkeypatch.setattr("node_anomaly_agent.logs.journald.COUNT_SHARE", 0.0)
    source = JournaldSource(journald.root)
    read_all(source)
    before = journald.entries()
    journald.say(2500)
    journald.rotate()
    journald.say(2500)
    until(lambda: journald.entries() - before >= 5000, "journald has lost entries")
    (batch,) = read_all(source)
    assert batch.estimated
    assert batch.lines == journald.entries() - before


def run_until_killed(root: Path, saved: Path) -> None:
    """An agent's loop: read, and save what was read and the cursor in one file that appears whole."""
    kept = json.loads(saved.read_text())
    source = JournaldSource(root)
    assert source.restore(kept["source"])
    lines = kept["lines"]
    while True:
        lines += [line.decode() for line in read_lines(source)]
        staging = saved.with_name("staging")
        staging.write_text(json.dumps({"lines": lines, "source": source.state()}))
        staging.replace(saved)
        lines += [line.decode() for line in read_lines(source)]  # read and not saved: must not be lost
        time.sleep(0.01)


def test_a_reader_that_is_killed_again_and_again_reads_every_entry_once(journald, tmp_path):
    source = JournaldSource(journald.root)
    read_lines(source)
    saved = tmp_path / "state.json"
    saved.write_text(json.dumps({"lines": [], "source": source.state()}))
    source.close()
    for turn in range(6):
        child = os.fork()
        if child == 0:
            try:
                run_until_killed(journald.root, saved)
            finally:
                os._exit(1)
        for _ in range(10):
            journald.say(50)
            time.sleep(0.02)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        journald.say(100)  # while nobody reads
        if turn % 2:
            journald.rotate()
    kept = json.loads(saved.read_text())
    source = JournaldSource(journald.root)
    assert source.restore(kept["source"])
    found = [line.encode() for line in kept["lines"]]
    until(lambda: found.extend(read_lines(source)) or len(found) >= 3600, "lines are missing")
    assert Counter(found).most_common(1)[0][1] == 1
    assert sorted(found) == sorted(numbered(3600))


def test_the_agent_itself_counts_every_entry_once_over_a_kill(journald, tmp_path):
    """Stopped, started, killed with SIGKILL, started: the counter is the number of entries."""
    port = rig.free_port()
    config = tmp_path / "agent.yml"
    config.write_text("interval: 500ms\n")
    command = [
        *(sys.executable, "-m", "node_anomaly_agent", f"--config.file={config}"),
        *(f"--path.rootfs={journald.root}", "--collector.logs.files=off", "--no-collector.logs.containers"),
        *(f"--web.listen-address=127.0.0.1:{port}", f"--state.directory={tmp_path / 'state'}"),
        f"--bundle.directory={tmp_path / 'bundles'}",
    ]

    def counted() -> float:
        _, text = rig.fetch(f"http://127.0.0.1:{port}/metrics")
        found = re.search(r'^anomaly_agent_log_lines_total\{source="journald"\} (\S+)', text, re.MULTILINE)
        return float(found[1]) if found else -1.0

    def agent():
        return rig.service("agent", command, port, "/-/healthy", tmp_path)

    with agent():
        until(lambda: counted() == 0, "the journal was not found")
        before = journald.entries()
        journald.say(300)
        until(lambda: counted() >= 300, "the first entries were not counted")
    journald.say(150)
    with agent() as killed:
        until(lambda: counted() >= 450, "what came while no agent ran was not counted")
        journald.say(250)
        until(lambda: counted() >= 700, "the next entries were not counted")
        killed.process.kill()
        killed.process.wait()
    journald.rotate()  # which journald logs itself
    journald.say(50)
    until(lambda: journald.entries() - before >= 750, "journald has lost entries")
    with agent():
        until(lambda: counted() >= 750, "after the kill not all entries were counted")
        time.sleep(1.0)
        assert counted() == journald.entries() - before
