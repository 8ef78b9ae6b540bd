"""What share of a core the agent takes in real time: ticks, state, idle threads and all.

    python bench/cpu_share.py [--interval 5] [--ticks 16]

The agent as it ships, alone, without scrapes, from its 22nd tick on (it is warm at the 20th and learnt anew
at the 40th). CPU is that of the scheduler, to the nanosecond, of all its threads.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import rig  # noqa: E402 -- a free port

FIRST_TICK = 22


def cpu_s(pid: int) -> float:
    """Seconds on a CPU of all threads that live."""
    tasks = Path(f"/proc/{pid}/task")
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()) / 1e9


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--interval", type=float, default=5.0)
    parser.add_argument("--ticks", type=int, default=16)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "node_anomaly_agent", f"--interval={options.interval:g}"]
        command += [f"--web.listen-address=127.0.0.1:{rig.free_port()}", "--log.level=warning"]
        command += [f"--state.directory={folder}/state", f"--bundle.directory={folder}/bundles"]
        with subprocess.Popen(command) as agent:
            try:
                time.sleep((FIRST_TICK - 0.5) * options.interval)
                before = cpu_s(agent.pid)
                time.sleep(options.ticks * options.interval)
                used = cpu_s(agent.pid) - before
            finally:
                agent.terminate()
    share = 100 * used / (options.ticks * options.interval)
    tick_ms, load = 1e3 * used / options.ticks, os.getloadavg()[0]
    print(f"{tick_ms:.2f} ms of CPU a tick, {share:.3f} % of a core, load {load:.1f}")


if __name__ == "__main__":
    main()
