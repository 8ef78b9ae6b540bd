"""Freed memory goes back to the system."""

from __future__ import annotations

import os
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


def test_the_agent_computes_on_one_thread_however_many_cpus_the_host_has() -> None:
    code = "import os, node_anomaly_agent.assembly; print(len(os.listdir('/proc/self/task')))"
    environ = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == 1


def test_the_agent_loads_no_openssl_unless_it_speaks_tls() -> None:
    """Its digests are the same ones."""
    code = """
import sys, node_anomaly_agent.assembly, node_anomaly_agent.logs.assembly, hashlib
print("libcrypto" in open("/proc/self/maps").read(), hashlib.sha256(b"abc").hexdigest()[:8],
      hashlib.blake2b(b"abc", digest_size=4).hexdigest())
import hmac, ssl
print(hmac.new(b"k", b"abc", "sha256").hexdigest()[:8])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "ba7816bf", "63906248", "342e519c"]
