"""What people said about alarms: a YAML file for git, written whole, sorted, and checked when it is read.

`false-alarm` makes its time normal data, whatever an alert said, and a test: the next bundle must not alarm
there. `incident` is an incident like those of `labels.incidents`: a label for the Random Forest.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import yaml

from node_anomaly_core.errors import SourceError
from node_anomaly_trainer.labels import Incident, time_of
from node_anomaly_trainer.settings import nearest
from node_anomaly_trainer.whole_file import write_whole

FALSE_ALARM, INCIDENT = "false-alarm", "incident"
VERDICTS = (FALSE_ALARM, INCIDENT)
KEYS = ("from", "to", "node", "verdict", "note")
LONGEST_S = 7 * 86400.0
"""One verdict is about one alarm; a whole month of them is a mistake in a date."""

MOST = 5_000
HEADER = """\
# Verdicts on alarms, written by `anomaly-trainer label`; keep it in git, edit it if you like.
# false-alarm: normal data, and the next bundle must not alarm there.  incident: teaches the Random Forest.
"""


@dataclass(frozen=True, slots=True, order=True)
class Verdict:
    """One person's word on `node` from `start` to `stop` (unix seconds)."""

    start: float
    stop: float
    node: str
    verdict: str
    note: str = ""

    def __str__(self) -> str:
        """As one line of a report."""
        named = f" ({self.note})" if self.note else ""
        return f"{self.verdict} on {self.node}, {_moment(self.start)} to {_moment(self.stop)}{named}"


def read_feedback(path: Path) -> tuple[Verdict, ...]:
    """Every verdict of the file, sorted. Raises SourceError naming the entry that is wrong."""
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}", "check labels.feedback") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: not YAML: {error}", "correct it, or take git's last version") from error
    if entries is None:
        return ()
    if not isinstance(entries, list):
        raise SourceError(f"{path}: expected a list of verdicts", f"each with {', '.join(KEYS)}")
    if len(entries) > MOST:
        raise SourceError(f"{path}: {len(entries)} verdicts, {MOST} are the most", "drop the oldest")
    return checked(
        [_verdict(entry, f"{path}: verdict {number}") for number, entry in enumerate(entries, 1)], str(path)
    )


def checked(verdicts: Sequence[Verdict], where: str) -> tuple[Verdict, ...]:
    """The same, sorted. Raises SourceError where two of one node contradict each other."""
    ordered = sorted(verdicts, key=lambda one: (one.node, one.start, one.stop))
    longest: dict[tuple[str, str], Verdict] = {}  # by node and verdict, of those that began before
    for other in ordered:
        for verdict in VERDICTS:
            one = longest.get((other.node, verdict))
            if one is not None and verdict != other.verdict and other.start < one.stop:
                raise SourceError(
                    f"{where}: contradiction: {one}, but {other}", "keep one of them, or part their times"
                )
        before = longest.get((other.node, other.verdict))
        if before is None or other.stop > before.stop:
            longest[other.node, other.verdict] = other
    return tuple(sorted(verdicts))


def add_verdict(path: Path, verdict: Verdict) -> tuple[Verdict, ...]:
    """Put one verdict into the file, which is made if there is none; all that it then holds.

    The file is written whole and sorted; two who write at once wait for each other, and a verdict that is
    there already is not doubled. Raises SourceError for one that contradicts another or cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path.parent):
            known = read_feedback(path) if path.exists() else ()
            verdicts = checked([*known, *([] if verdict in known else [verdict])], str(path))
            write_whole(path, HEADER.encode() + _yaml(verdicts))
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror or error}", "choose a writable --file") from error
    return verdicts


def parse_verdict(start: str, stop: str, node: str, verdict: str, note: str) -> Verdict:
    """A verdict from the options of the command line. Raises SourceError."""
    entry: dict[str, object] = {"from": start, "to": stop, "node": node, "verdict": verdict, "note": note}
    return _verdict(entry, "label")


def as_incidents(verdicts: Sequence[Verdict], verdict: str) -> tuple[Incident, ...]:
    """Those of one kind, as the labelling takes them."""
    return tuple(
        Incident(one.start, one.stop, (one.node,), one.note) for one in verdicts if one.verdict == verdict
    )


def _verdict(entry: object, where: str) -> Verdict:
    if not isinstance(entry, Mapping):
        raise SourceError(f"{where} is not a mapping", f"write {', '.join(KEYS)}")
    for key in entry:
        if key not in KEYS:
            raise SourceError(
                f"{where}: unknown key {key}{nearest(str(key), KEYS)}", f"known: {', '.join(KEYS)}"
            )
    # As they are written, or the same verdict would be another one when it is read back.
    start, stop = (round(time_of(entry.get(key), where, key), 3) for key in ("from", "to"))
    node, verdict = str(entry.get("node") or "").strip(), entry.get("verdict")
    if stop <= start:
        raise SourceError(f"{where} ends before it starts", "swap from and to")
    if stop - start > LONGEST_S:
        days = (stop - start) / 86400.0
        raise SourceError(
            f"{where} lasts {days:.0f} days, {LONGEST_S / 86400:.0f} are the most", "check the dates"
        )
    if not node:
        raise SourceError(f"{where}: no node", "a verdict is about one node: name it as the alert does")
    if verdict not in VERDICTS:
        raise SourceError(
            f"{where}: verdict {verdict!r}{nearest(str(verdict), VERDICTS)}", f"one of {', '.join(VERDICTS)}"
        )
    return Verdict(start, stop, node, str(verdict), " ".join(str(entry.get("note") or "").split()))


def _yaml(verdicts: Sequence[Verdict]) -> bytes:
    rows = [
        {
            "from": _moment(one.start),
            "to": _moment(one.stop),
            "node": one.node,
            "verdict": one.verdict,
            **({"note": one.note} if one.note else {}),
        }
        for one in verdicts
    ]
    return str(yaml.safe_dump(rows, sort_keys=False, allow_unicode=True, width=1000)).encode()


def _moment(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="seconds" if seconds == int(seconds) else "milliseconds").replace(
        "+00:00", "Z"
    )


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Hold the directory's lock: reading, adding and writing must not interleave with another's."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
