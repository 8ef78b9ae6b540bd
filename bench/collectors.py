"""What reading the host costs at a tick, beside psutil reading about the same things.

python bench/collectors.py [--ticks 500] [--json]

Ours: every collector and the whole feature catalogue, as the agent's sampler runs them. psutil's set is what
it offers of the same subjects; it has no pressure, no per-second kernel counters beyond CPU statistics, no
TCP counters, and counts no threads without walking every process, so it does less.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import psutil

from node_anomaly_agent.collectors import build_collectors
from node_anomaly_agent.collectors.paths import Paths
from node_anomaly_agent.sampler import Sampler
from node_anomaly_core.features import CATALOGUE


def psutil_set() -> None:
    """CPU, memory, swap, disks, file systems, interfaces, load, processes and temperatures."""
    psutil.cpu_times()
    psutil.cpu_stats()
    psutil.virtual_memory()
    psutil.swap_memory()
    psutil.disk_io_counters(perdisk=True)
    for partition in psutil.disk_partitions():
        psutil.disk_usage(partition.mountpoint)
    psutil.net_io_counters(pernic=True)
    psutil.getloadavg()
    psutil.pids()
    psutil.sensors_temperatures()


def median_ms(once: Callable[[], object], ticks: int) -> tuple[float, float]:
    """Median CPU and wall time of one call, in milliseconds."""
    cpu, wall = [], []
    for _ in range(ticks):
        begun, started = time.thread_time(), time.perf_counter()
        once()
        wall.append(time.perf_counter() - started)
        cpu.append(time.thread_time() - begun)
    return 1e3 * statistics.median(cpu), 1e3 * statistics.median(wall)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ticks", type=int, default=500)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    sampler = Sampler(build_collectors(Paths()), CATALOGUE, 60.0)
    clock = iter(range(0, 10**9, 15))

    def tick() -> object:
        return sampler.sample(1.7e9 + next(clock))

    median_ms(tick, 20)
    ours = median_ms(tick, options.ticks)
    theirs = median_ms(psutil_set, options.ticks)
    sampler.close()
    if options.json:
        print(json.dumps({"agent_cpu_ms": ours[0], "psutil_cpu_ms": theirs[0], "ticks": options.ticks}))
        return
    print(f"{len(CATALOGUE)} features, median of {options.ticks} ticks")
    print("| | CPU, ms | wall, ms |")
    print("|---|---:|---:|")
    print(f"| all collectors and features | {ours[0]:.2f} | {ours[1]:.2f} |")
    print(f"| psutil {psutil.__version__}, about the same subjects | {theirs[0]:.2f} | {theirs[1]:.2f} |")


if __name__ == "__main__":
    main()
