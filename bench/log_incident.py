"""A service on this host begins to log errors at twenty times its usual rate: when does the agent say so?

    python bench/log_incident.py [--hours 4] [--times 20] [--lines 2.0] [--share 0.01] [--seed 1]
        [--interval 15] [--real] [--bundles DIR] [--record FILE] [--json]

The daemon as it ships with the starter bundle, over the real /proc and a real log file, with a clock that
does not wait (as fast_agent.py) or, with `--real`, one that does: each tick the service writes its lines,
Poisson around `--lines` a second, `--share` of them errors. After `--hours` the errors come `--times` as
often, everything else goes on. A clock that does not wait makes a host look noisier than it is: what others
do in a few milliseconds passes for what they do in a tick. `--record` writes what was observed as a CSV that
`anomaly-trainer train --data` takes, so that `--bundles` can hold a bundle of this host's own.
Printed: the false alarms before, the ticks from the first wrong line to the alarm, and the first reasons, of
the alarm or else of the highest score.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from node_anomaly_agent import assembly
from node_anomaly_agent.clock import SystemClock
from node_anomaly_agent.config import load_config
from node_anomaly_agent.daemon import Daemon
from node_anomaly_agent.snapshot import Snapshot

INCIDENT_S = 600.0
HOLD_TICKS = 3
"""An alarm is a score of 1 for so many ticks."""

WORK = (
    "INFO handled GET /orders/{} in {} ms",
    "INFO stored order {} after {} ms",
    "INFO cache refreshed, {} entries, {} ms",
    "WARNING retry {} of upstream call after {} ms",
)
ERRORS = ("ERROR order {} failed: upstream timed out after {} ms",)


@dataclass
class Service:
    """Writes what it logs in one tick."""

    path: Path
    lines: float
    share: float
    random: np.random.Generator
    interval_s: float = 15.0
    times: float = 1.0

    def work(self) -> None:
        """Append one tick's lines in random order."""
        quiet = self.random.poisson(self.lines * (1 - self.share) * self.interval_s)
        wrong = self.random.poisson(self.lines * self.share * self.times * self.interval_s)
        kinds = [WORK[at] for at in self.random.choice(len(WORK), quiet, p=(0.6, 0.3, 0.08, 0.02))]
        kinds += [ERRORS[0]] * int(wrong)
        self.random.shuffle(kinds)
        with self.path.open("a", encoding="utf-8") as file:
            for kind in kinds:
                numbers = self.random.integers(1, 9_999, 2)
                file.write(f"2026-01-01T00:00:00Z shop[7]: {kind.format(*numbers)}\n")


@dataclass
class Story:
    """What happens tick by tick, and what the agent said."""

    service: Service
    before: int
    wrong: int
    times: float
    said: list[Snapshot] = field(default_factory=list)

    def next(self, snapshot: Snapshot) -> bool:
        """Take in what a tick said and write the next one's lines; False at the end."""
        self.said.append(snapshot)
        self.service.times = self.times if len(self.said) > self.before else 1.0
        self.service.work()
        return len(self.said) < self.before + self.wrong


class StoryClock(SystemClock):
    """Tells the story a tick further before it waits, if it waits at all."""

    story: Story
    real = False
    daemon: Any = None

    def __init__(self) -> None:
        super().__init__()
        self._skipped = 0.0

    def time(self) -> float:
        """Unix seconds, waits included."""
        return super().time() + self._skipped

    def monotonic(self) -> float:
        """Monotonic seconds, waits included."""
        return super().monotonic() + self._skipped

    def wait(self, seconds: float) -> None:
        """Wait, or skip the wait; before the next tick the service works."""
        if self.real:
            super().wait(seconds)
        else:
            self._skipped += max(seconds, 0.0)
        said = self.story.said
        snapshot = self.daemon.snapshot
        if (not said or snapshot.heartbeat != said[-1].heartbeat) and not self.story.next(snapshot):
            self.daemon.request_stop()


def live(arguments: argparse.Namespace, folder: Path) -> Story:
    """Run the daemon through the story."""
    log = folder / "shop.log"
    log.touch()
    service = Service(
        log, arguments.lines, arguments.share, np.random.default_rng(arguments.seed), arguments.interval
    )
    before, wrong = (round(seconds / arguments.interval) for seconds in (arguments.hours * 3600, INCIDENT_S))
    story = Story(service, before, wrong, arguments.times)
    StoryClock.story, StoryClock.real = story, arguments.real

    class Watched(Daemon):
        """Known to the clock."""

        def __init__(self, parts: Any) -> None:
            super().__init__(parts)
            StoryClock.daemon = self

    vars(assembly)["SystemClock"] = StoryClock
    vars(assembly)["Daemon"] = Watched
    settings = {
        "interval": arguments.interval,
        "web.listen-address": "127.0.0.1:0",
        "state.directory": str(folder / "state"),
        "collector.logs.files": [str(log)],
        "collector.logs.journald": False,
        "collector.logs.containers": False,
        "log.level": "error",
    }
    if arguments.bundles:
        settings["bundle.directory"] = str(arguments.bundles)
    config = load_config(None, settings, assembly.collector_switches())
    assembly.run_daemon(config, "bench", {})
    return story


def told(story: Story) -> dict[str, Any]:
    """The figures of a story."""
    if len(story.said) < story.before + story.wrong:
        raise SystemExit(f"the agent was stopped after {len(story.said)} ticks, before the story ended")
    scores = np.array([np.nan if one.score is None else one.score.score for one in story.said])
    high = np.nan_to_num(scores) >= 1.0
    held = high[2:] & high[1:-1] & high[:-2]
    alarms = np.flatnonzero(held) + 2
    wrong = alarms[alarms >= story.before]
    begins = [at for at in alarms[alarms < story.before] if at - 1 not in alarms]
    answer: dict[str, Any] = {
        "ticks_before": story.before,
        "warm_after": int(np.flatnonzero(np.isfinite(scores))[0]),
        "false_alarms_before": len(begins),
        "highest_score": float(np.nanmax(scores[story.before :])),
        "ticks_to_alarm": int(wrong[0] - story.before) if len(wrong) else None,
    }
    highest = story.before + int(np.nanargmax(scores[story.before :]))
    answer["reasons"] = reasons(story.said[int(wrong[0]) if wrong.size else highest])
    return answer


def record(story: Story, path: Path) -> None:
    """Write the observed values of every tick, missing ones empty."""
    scores = [one.score for one in story.said if one.score is not None]
    bundle = story.said[-1].bundle
    assert bundle is not None  # noqa: S101  # it scored
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["timestamp", "node", *(feature.name for feature in bundle.features)])
        for score in scores:
            values = ["" if np.isnan(value) else repr(float(value)) for value in score.observed]
            table.writerow([f"{score.timestamp:.0f}", "here", *values])


def reasons(snapshot: Snapshot) -> Mapping[str, float]:
    """The three features with the largest share, largest first."""
    assert snapshot.score is not None  # noqa: S101  # there was an alarm
    assert snapshot.bundle is not None  # noqa: S101
    shares = np.nan_to_num(snapshot.score.contributions)
    first = np.argsort(-shares)[:3]
    return {snapshot.bundle.features[at].name: round(float(shares[at]), 3) for at in first}


def main() -> int:
    """Read the command line; 1 where no alarm came, or the log was not its first reason."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, default=4.0, help="of usual work before")
    parser.add_argument("--times", type=float, default=20.0, help="as many errors as usual")
    parser.add_argument("--lines", type=float, default=2.0, help="a second")
    parser.add_argument("--share", type=float, default=0.01, help="of errors among the lines")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--interval", type=float, default=15.0, help="seconds between two ticks")
    parser.add_argument("--bundles", type=Path, help="a directory as agents watch it, instead of the starter")
    parser.add_argument("--real", action="store_true", help="wait as a daemon does")
    parser.add_argument("--record", type=Path, help="a CSV of what was observed, for anomaly-trainer train")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.bundles and not (arguments.bundles / "current").exists():
        parser.error(f"{arguments.bundles} holds no published bundle, and the starter would take its place")
    with tempfile.TemporaryDirectory(prefix="anomaly-log-incident-") as scratch:
        story = live(arguments, Path(scratch))
    if arguments.record:
        record(story, arguments.record)
    answer = told(story)
    if arguments.json:
        print(json.dumps(answer))
    else:
        for name, value in answer.items():
            print(f"{name:22} {value}")
    named = next(iter(answer["reasons"]))
    return 0 if answer["ticks_to_alarm"] is not None and named.startswith("log_") else 1


if __name__ == "__main__":
    sys.exit(main())
