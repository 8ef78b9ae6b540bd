"""When an episode begins and ends, and what is recorded of it.

It begins with the alarm, a score of 1 or more for three ticks in a row, and ends when the score has stayed
below 1 for a while, so that an incident with pauses is one episode. Between episodes a tick only remembers
what it has anyway: the last scores, by reference.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from node_anomaly_agent.episode import (
    TOP_REASONS,
    Cause,
    Episode,
    Flight,
    ProcessUse,
    episode_id,
)
from node_anomaly_agent.episode_status import EpisodeStatus
from node_anomaly_agent.episode_store import EpisodeStore
from node_anomaly_agent.log_setup import Log
from node_anomaly_agent.score_history import ALARM_TICKS
from node_anomaly_agent.snapshot import BundleInfo, Snapshot, reasons
from node_anomaly_agent.threads import NO_THREAD, started
from node_anomaly_core.score import Score

RECENT = 20
"""Episodes that are kept in memory, without their flight records."""

WRITE_EVERY_S = 60.0
"""While an episode goes on: what a kill can cost of it."""

_MISSED_INTERVALS = 2.5
"""After so long without a tick the next one is not in a row with those before."""


class _Moment(NamedTuple):
    """One tick, by reference to what the snapshot held.

    `value` is the score, NaN where there is none. The `score` itself goes with the last ticks: what its
    reasons can be worked out from is too much to keep of all.
    """

    time: float
    value: float
    observed: NDArray[np.float64] | None
    bundle: BundleInfo | None
    templates: int
    score: Score | None
    outgrown: bool

    @classmethod
    def of(cls, now: float, snapshot: Snapshot) -> _Moment:
        """What is published at unix `now`."""
        score = snapshot.score
        value = score.score if score is not None and score.warm else math.nan
        observed = None if score is None else score.observed
        outgrown = score is not None and score.outgrown
        return cls(now, value, observed, snapshot.bundle, snapshot.logs.new_templates, score, outgrown)

    def causes(self) -> tuple[Cause, ...]:
        """The largest known shares."""
        shown = Snapshot(0.0, 0.0, 0.0, score=self.score, bundle=self.bundle)
        return tuple(Cause.of(one) for one in reasons(shown, TOP_REASONS) if one.share > 0)


class Episodes:
    """Watches the score. The loop's thread alone.

    Args:
        store: where episodes are kept.
        interval_s: the tick.
        end_after_s: how long the score has to stay below 1 for an episode to be over.
        flight_ticks: ticks recorded before and after the start.
        processes: finds those that use most; on a thread, may take seconds and raise.
        log: told of begin and end.
        quiet: whether at this time (unix seconds) no episode is to begin.
    """

    def __init__(
        self,
        store: EpisodeStore,
        interval_s: float,
        end_after_s: float,
        flight_ticks: int,
        processes: Callable[[], tuple[ProcessUse, ...]],
        log: Log,
        quiet: Callable[[float], bool] = lambda _now: False,
    ) -> None:
        self._store = store
        self._interval_s = interval_s
        self._end_after_s = end_after_s
        self._flight_ticks = flight_ticks
        self._processes = processes
        self._log = log
        self._quiet = quiet
        self._past: deque[_Moment] = deque(maxlen=max(flight_ticks + ALARM_TICKS, ALARM_TICKS))
        self._run = 0  # ticks in a row with a score of 1 or more
        self._open: Episode | None = None
        self._after = 0  # rows that the flight record still lacks
        self._templates_before = 0
        self._seen_below = False
        self._outgrown = False  # at the last tick below 1
        self._written = -math.inf
        self._found: tuple[str, tuple[ProcessUse, ...]] | None = None
        self._broken = False
        self.status = EpisodeStatus()

    def start(self, now: float) -> None:
        """Go on with the episode that was open when the agent stopped, if that was not too long ago."""
        recent = self._store.load(RECENT)
        for at, episode in enumerate(recent):
            if not episode.ongoing:
                continue
            if episode is recent[-1] and -self._end_after_s <= now - episode.last < self._end_after_s:
                self._open = episode
                self._log.info("episode goes on", episode=episode.id)
            else:
                recent[at] = replace(episode, end=episode.last, ended="no_score")
                self._store.put(recent[at])
        self._show(recent=tuple(_light(one) for one in recent))

    def tick(self, now: float, snapshot: Snapshot) -> EpisodeStatus:
        """Take in what a tick at unix `now` published. Never raises."""
        try:
            self._tick(now, snapshot)
            self._broken = False
        except Exception:  # noqa: BLE001  # what is only recorded must not disturb what is scored
            if not self._broken:
                self._log.exception("episodes failed")
            self._broken = True
        return self.status

    def stop(self) -> None:
        """Write an open episode a last time; the next start goes on with it."""
        if self._open is not None:
            self._store.put(self._open)
        self._store.finish()

    def _tick(self, now: float, snapshot: Snapshot) -> None:
        self._store.work()
        if self._past and not 0 <= now - self._past[-1].time <= _MISSED_INTERVALS * self._interval_s:
            self._run = 0
        moment = _Moment.of(now, snapshot)
        if len(self._past) >= ALARM_TICKS:
            self._past[-ALARM_TICKS] = self._past[-ALARM_TICKS]._replace(score=None)
        self._past.append(moment)
        quiet = self._quiet(now)
        self._run = self._run + 1 if moment.value >= 1.0 else 0  # NaN is not
        if self._open is not None:
            self._go_on(self._open, moment)
        elif quiet:
            self._run = 0
        elif self._run >= ALARM_TICKS:
            self._begin(moment)
        self._show(quiet=quiet)

    def _begin(self, moment: _Moment) -> None:
        run = list(self._past)[-ALARM_TICKS:]
        highest = max(run, key=lambda one: one.value)
        score = moment.score
        episode = Episode(
            id=episode_id(run[0].time),
            start=run[0].time,
            last=moment.time,
            peak=highest.value,
            peak_time=highest.time,
            start_reasons=moment.causes(),
            peak_reasons=highest.causes(),
            bundle_version="" if moment.bundle is None else moment.bundle.version,
            threshold_ratio=math.nan if score is None else score.threshold_ratio,
            flight=self._flight(moment),
        )
        self._templates_before = self._past[0].templates
        self._after = max(self._flight_ticks - ALARM_TICKS + 1, 0)
        self._seen_below = False
        self._open = self._with_templates(episode, moment)
        self._found = None
        # Only now: a normal tick looks at no process.
        finder = threading.Thread(
            target=self._find, args=(episode.id,), name="episode-processes", daemon=True
        )
        if not started(finder):
            self._log.warning("processes are not recorded", error=NO_THREAD)
        self._log.warning(
            "episode begins",
            episode=episode.id,
            score=episode.peak,
            features=[cause.feature for cause in episode.start_reasons[:3]],
        )
        self._show(detected=self.status.detected + 1)
        self._write(moment.time)

    def _flight(self, moment: _Moment) -> Flight:
        """The rows before the start, under the bundle in use."""
        if moment.bundle is None or not self._flight_ticks:
            return Flight()
        version = moment.bundle.version
        rows = [one for one in self._past if one.bundle is not None and one.bundle.version == version]
        flight = Flight(tuple(feature.name for feature in moment.bundle.features))
        for one in rows:
            flight = _longer(flight, one)
        return flight

    def _go_on(self, episode: Episode, moment: _Moment) -> None:
        before = episode
        found, self._found = self._found, None
        if found is not None and found[0] == episode.id:
            episode = replace(episode, processes=found[1])
        if self._after > 0:
            self._after -= 1
            episode = self._with_templates(self._recorded(episode, moment), moment)
        due = (before.processes, before.flight) != (episode.processes, episode.flight) and not self._after
        if moment.time < episode.last:  # the clock was set back
            episode = replace(episode, last=moment.time)
        if moment.value >= 1.0:
            episode = replace(episode, last=moment.time)
            self._seen_below = False
            if moment.value > episode.peak:
                causes = moment.causes()
                episode = replace(episode, peak=moment.value, peak_time=moment.time, peak_reasons=causes)
        elif moment.value < 1.0:
            self._seen_below, self._outgrown = True, moment.outgrown
        self._open = episode
        if not moment.value >= 1.0 and moment.time - episode.last >= self._end_after_s:
            self._end(episode, moment.time)
        elif due or not 0 <= moment.time - self._written < WRITE_EVERY_S:
            self._write(moment.time)

    def _recorded(self, episode: Episode, moment: _Moment) -> Episode:
        names = () if moment.bundle is None else tuple(one.name for one in moment.bundle.features)
        if moment.observed is None or names != episode.flight.features:
            return episode
        return replace(episode, flight=_longer(episode.flight, moment))

    def _with_templates(self, episode: Episode, moment: _Moment) -> Episode:
        return replace(episode, new_log_templates=max(moment.templates - self._templates_before, 0))

    def _end(self, episode: Episode, now: float) -> None:
        ended = ("outgrown" if self._outgrown else "recovered") if self._seen_below else "no_score"
        over = replace(episode, end=episode.last, ended=ended)
        self._open = over
        self._write(now)
        self._open = None
        self._run = 0
        self._log.info(
            "episode ends", episode=over.id, ended=ended, seconds=over.end - over.start, peak=over.peak
        )

    def _write(self, now: float) -> None:
        if self._open is None:
            return
        self._written = now
        self._store.put(self._open)
        light = _light(self._open)
        others = tuple(one for one in self.status.recent if one.id != light.id)
        self._show(recent=(*others, light)[-RECENT:])

    def _show(self, **changes: object) -> None:
        now = {"ongoing": self._open is not None, "failures": self._store.failures, **changes}
        if any(getattr(self.status, name) != value for name, value in now.items()):
            self.status = replace(self.status, **now)  # type: ignore[arg-type]

    def _find(self, episode: str) -> None:
        try:
            self._found = (episode, self._processes())
        except Exception as error:  # noqa: BLE001  # the episode goes without
            self._log.warning("processes are not recorded", error=repr(error))


def _light(episode: Episode) -> Episode:
    return replace(episode, flight=Flight())


def _longer(flight: Flight, moment: _Moment) -> Flight:
    if moment.observed is None:
        return flight
    row = tuple(float(value) for value in moment.observed)
    return replace(
        flight,
        times=(*flight.times, moment.time),
        scores=(*flight.scores, moment.value),
        rows=(*flight.rows, row),
    )
