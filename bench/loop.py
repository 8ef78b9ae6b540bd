"""The whole loop at the intervals that ship: half a day of history, a message, and that it is over.

node_exporter, Prometheus with the rules as they are, Alertmanager with the example as it is, Pushgateway,
MLflow, anomaly-trainer, anomaly-agent, and a fault of this host (tests/host_faults.py), all real; invented is
the past. tests/e2e/test_loop.py is the same at a tick of one second, and so is this with --hurried.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import host_faults  # noqa: E402 -- the story of the tests
import loop_run  # noqa: E402
import loop_world  # noqa: E402


def main() -> None:
    """Run it once and print the seconds of each phase."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fault", choices=sorted(host_faults.FAULTS), default="sockets")
    parser.add_argument("--hurried", action="store_true", help="a tick of a second, as in the test")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    pace = loop_world.HURRIED if options.hurried else loop_world.SHIPPED
    with tempfile.TemporaryDirectory(prefix="node-anomaly-loop-") as folder:
        story = loop_run.run(
            Path(folder), pace, options.fault, 1_800.0, lambda line: print(line, file=sys.stderr, flush=True)
        )
    if options.json:
        print(json.dumps(story.seconds, indent=2))
        return
    print(f"| phase, at a tick of {pace.tick_s} s | s |\n|---|---:|")
    for name, seconds in story.seconds.items():
        print(f"| {name} | {seconds:.1f} |")
    for name, text in story.fired.alert["annotations"].items() if story.fired else ():
        print(f"\n{name}: {text}")


if __name__ == "__main__":
    main()
