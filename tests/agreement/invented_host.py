"""A /proc and /sys of our own making, with what the test's host may lack: swap in use, sensors, OOM kills.

It is tests/fixtures/host, in motion: every STEP_S its counters and gauges move by a known amount. Numbers
keep their width and are overwritten in place, because the agent holds the files open.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import rig

STEP_S = 0.25
WIDTH = 12
SWAP_TOTAL_KIB, SWAP_FREE_KIB, SWAP_STEP_KIB = 4_096_000, 3_072_000, 2_048
PER_SECOND = {"pswpin": 40.0, "pswpout": 60.0, "pgmajfault": 24.0, "oom_kill": 4.0}
"""How fast the counters of /proc/vmstat move."""
TEMPERATURES = {
    "class/thermal/thermal_zone0/temp": 46_500,
    "class/thermal/thermal_zone1/temp": 61_000,
    "class/hwmon/hwmon0/temp1_input": 58_000,
    "class/hwmon/hwmon0/temp2_input": 64_500,
    "class/hwmon/hwmon1/device/temp1_input": 41_000,
}
"""Thousandths of a degree at first; all rise by WARMING a step, and begin again after COOLING steps."""
WARMING, COOLING = 50, 40

ALSO = {
    "class/thermal/thermal_zone0/type": "x86_pkg_temp",
    "class/thermal/thermal_zone0/policy": "step_wise",
    "class/thermal/thermal_zone1/type": "acpitz",
    "class/thermal/thermal_zone1/policy": "step_wise",
    "class/thermal/cooling_device0/type": "Processor",
    "class/thermal/cooling_device0/max_state": "10",
}
"""What node_exporter wants of thermal zones besides their temperature."""


@contextlib.contextmanager
def invented_host(folder: Path) -> Iterator[Path]:
    """The root of it, with proc/ and sys/ below; it moves until the block ends."""
    root = Path(shutil.copytree(rig.REPOSITORY / "tests" / "fixtures" / "host", folder / "host"))
    for name, text in ALSO.items():
        (root / "sys" / name).write_text(text + "\n")
    vmstat = (root / "proc/vmstat").read_text().splitlines()
    start = {line.split()[0]: int(line.split()[1]) for line in vmstat}
    meminfo = (root / "proc/meminfo").read_text()
    stopped = threading.Event()

    def show(step: int) -> None:
        counters = {
            name: value + round(PER_SECOND.get(name, 0.0) * STEP_S * step) for name, value in start.items()
        }
        _overwrite(root / "proc/vmstat", "".join(f"{k} {v:0{WIDTH}d}\n" for k, v in counters.items()))
        free = f"{SWAP_FREE_KIB - SWAP_STEP_KIB * step:7d}"
        _overwrite(root / "proc/meminfo", meminfo.replace(str(SWAP_FREE_KIB), free))
        for name, value in TEMPERATURES.items():
            _overwrite(root / "sys" / name, f"{value + WARMING * (step % COOLING):05d}\n")

    def move() -> None:
        step = 0
        while not stopped.wait(STEP_S):
            step += 1
            show(step)

    show(0)
    mover = threading.Thread(target=move, name="invented host", daemon=True)
    mover.start()
    try:
        yield root
    finally:
        stopped.set()
        mover.join()


def _overwrite(path: Path, text: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        os.pwrite(file, text.encode(), 0)
        os.ftruncate(file, len(text))
    finally:
        os.close(file)
