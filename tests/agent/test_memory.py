"""Freed memory goes back to the system."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import numpy as np
from node_anomaly_agent.memory import map_large_blocks, trim
from node_anomaly_agent.process_stats import read_process_stats
{prepare}
blocks = [np.ones(9_000) for _ in range(1_000)]
keep = blocks[::100]
full = read_process_stats().resident_bytes
del blocks
{finish}
print((full - read_process_stats().resident_bytes) / 72e6)
"""


def freed(prepare: str, finish: str) -> float:
    """The share of 72 MB, freed but for every hundredth block, that has left the process."""
    code = CODE.format(prepare=prepare, finish=finish)
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(found.stdout)


def test_trimming_returns_what_lies_between_blocks_in_use():
    assert freed("", "trim()") > 0.9


def test_large_blocks_are_returned_as_they_are_freed():
    code = """
import numpy as np
from node_anomaly_agent.memory import map_large_blocks
from node_anomaly_agent.process_stats import read_process_stats
map_large_blocks()
for _ in range(3):
    big = np.ones(1 << 20)
    before = read_process_stats().resident_bytes
    tail = [np.ones(100) for _ in range(10)]
    del big
    assert before - read_process_stats().resident_bytes > 7e6
"""
    subprocess.run([sys.executable, "-c", code], check=True)
