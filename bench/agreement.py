"""Does a node compute what PromQL computes from node_exporter? Every feature, instant by instant.

    python bench/agreement.py [--interval 5] [--seconds 300] [--json]

Starts a real node_exporter, a real Prometheus that scrapes it and the agent at the same interval, and load on
CPU, disk, memory, sockets and network; then compares each feature's anomaly_feature_value with query_range of
the PromQL that `anomaly-agent features --output json` prints. Exit code 1 if a feature is at one end only, or
differs by more than the catalogue's tolerance. Runs in a network namespace of its own where the user may have
one (root, or unprivileged user namespaces); elsewhere there is no load on the network, which is then said.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT / "tests")  # instead of bench/, where `agreement` would be this file

from agreement.comparison import WINDOW_TICKS, Agreement, measure  # noqa: E402 -- the tests' own rig
from agreement.stage import load, private_network, stage  # noqa: E402 -- same
from node_anomaly_core.catalogue import FEATURES_BY_NAME  # noqa: E402 -- after its users, as sorted

INSIDE = "--inside"


def main() -> int:
    """Measure, print, and judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--interval", type=float, default=5.0, help="of both scrapes and of the agent's ticks, s"
    )
    parser.add_argument("--seconds", type=float, default=300.0, help="how long to compare")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument(INSIDE, action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.inside:
        wrapper = private_network()
        if wrapper:
            os.execvp(wrapper[0], [*wrapper, sys.executable, *sys.argv, INSIDE])  # noqa: S606 -- our own argv
    else:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with tempfile.TemporaryDirectory(prefix="agreement-") as name:
        folder = Path(name)
        fill = (WINDOW_TICKS + 1) * options.interval
        with (
            stage(folder / "stage", options.interval) as running,
            load(folder / "load", options.seconds + fill + 60.0, network=options.inside),
        ):
            time.sleep(fill)
            since = time.time()
            time.sleep(options.seconds)
            found = measure(running, since)
            shift = running.shift_s
    if options.json:
        document = {
            "interval_s": options.interval,
            "seconds": options.seconds,
            "shift_s": shift,
            "network_load": options.inside,
            "features": [asdict(row) | {"complaint": row.complaint()} for row in found],
        }
        print(json.dumps(document, indent=2))
    else:
        print(f"interval {options.interval:g} s, {options.seconds:g} s, ticks {shift * 1000:+.0f} ms off")
        if not options.inside:
            print("no network namespace to be had here: no load on the network")
        print(table(found))
    return int(any(row.complaint() for row in found))


def table(found: list[Agreement]) -> str:
    """Markdown, one row for each feature."""
    lines = [
        "| feature | instants | typical | median | p95 | tolerance | |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for row in found:
        feature = FEATURES_BY_NAME[row.feature]
        if row.missing:
            lines.append(f"| {row.feature} | 0 | | | | {feature.tolerance:.0%} | missing at both ends |")
            continue
        said = row.complaint().partition(": ")[2] or feature.tolerance_reason
        figures = f"{row.instants} | {row.typical:.4g} | {row.median:.2%} | {row.p95:.1%}"
        lines.append(f"| {row.feature} | {figures} | {feature.tolerance:.0%} | {said} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
