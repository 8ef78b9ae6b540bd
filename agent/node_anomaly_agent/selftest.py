"""Would it see an anomaly? The agent makes one up every six hours and looks whether its models find it.

An agent whose score stays low whatever happens is worse than none: its silence is taken for health. So a copy
of the scorer in use, with this node's past and its own threshold, is shown rows in which every feature does
what would alarm an operator. It lives beside the loop on a thread; nothing of the real score is touched.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from node_anomaly_agent.log_setup import Log
from node_anomaly_agent.scorer import AgentScorer, Fork
from node_anomaly_agent.selftest_status import SelfTestStatus
from node_anomaly_core.calibration import HOLD_TICKS
from node_anomaly_core.features import Feature
from node_anomaly_core.score import Score
from node_anomaly_core.windows import ticks_in

EVERY_S = 6 * 3_600.0
FIRST_AFTER_S = 600.0
"""Of being warm: a node that has just been learnt knows itself badly."""

ANOMALY_S, LEAST_TICKS = 120.0, 12
"""How long the anomaly lasts: means over a minute have to fill with it, whatever the interval."""

PAST_TICKS = 160
"""That the copy lives through first: the forty minutes of the windows at 15 s. All of a scorer's past would
cost three times as much; what it has learnt comes with its state."""

_TIMES = 10.0
_FLOORS = 50.0

Array = NDArray[np.float64]


class SelfTest:
    """Decides when, and takes in what came of it. The loop's thread alone.

    Args:
        log: told when the answer changes.
        start: runs a function beside the loop; tests run it at once.
    """

    def __init__(self, log: Log, start: Callable[[Callable[[], None]], None] | None = None) -> None:
        self._log = log
        self._start = start or _on_a_thread
        self._next = math.inf
        self._tried = ""
        self._running = False
        self._done: tuple[float, str] | None = None
        self.status = SelfTestStatus()

    def tick(self, monotonic: float, now: float, score: Score | None, scorer: AgentScorer | None) -> None:
        """After a tick at `monotonic` and unix `now`. Never raises."""
        if self._done is not None:
            self._take(now, *self._done)
            self._done, self._running = None, False
        if scorer is None or score is None or not score.warm:
            return
        if scorer.info.version != self._tried:  # what was found of other models says nothing about these
            self._tried, self._next = scorer.info.version, monotonic + FIRST_AFTER_S
        if monotonic >= self._next and not self._running:
            self._next, self._running = monotonic + EVERY_S, True
            try:
                fork = scorer.fork()
                self._start(lambda: self._run(fork, score, now))
            except Exception as error:  # noqa: BLE001  # a failing part is a metric, not an outage
                self._done = (0.0, repr(error))

    def _run(self, fork: Fork, score: Score, now: float) -> None:
        try:
            highest = held_score(fork, score, now)
            self._done = (float(highest >= 1.0), f"the made-up anomaly scored {highest:.2f}")
        except Exception as error:  # noqa: BLE001  # what cannot be tried out cannot be trusted
            self._done = (0.0, repr(error))

    def _take(self, now: float, success: float, words: str) -> None:
        if success != self.status.success:
            if success:
                self._log.info("self-test passed", result=words)
            else:
                self._log.error("self-test failed: this agent may be blind", result=words)
        self.status = SelfTestStatus(success, now)


def held_score(fork: Fork, last: Score, now: float) -> float:
    """The score that the fork holds for as long as an alarm has to last, shown an anomaly after `last`.

    NaN counts as 0: a scorer that does not know sees nothing. Raises BundleError if the fork cannot be made.
    """
    state = {name: fork.state[name][-PAST_TICKS:] for name in ("times", "rows")}
    scorer = replace(fork, state={**fork.state, **state}).scorer(with_history=True)
    row = anomaly(fork.info.features, last)
    ticks = range(1, anomaly_ticks(fork.interval_s) + 1)
    scores = [scorer.step(now + at * fork.interval_s, row).score for at in ticks]
    known = np.nan_to_num(np.array(scores))
    return float(np.lib.stride_tricks.sliding_window_view(known, HOLD_TICKS).min(axis=1).max())


def anomaly_ticks(interval_s: float) -> int:
    """Ticks of the made-up anomaly at an interval."""
    return ticks_in(ANOMALY_S, interval_s, LEAST_TICKS)


def anomaly(features: tuple[Feature, ...], last: Score) -> Array:
    """A row (f,) in which everything that is known here does what it should not, in each feature's unit."""
    usual = np.where(np.isfinite(last.expected), last.expected, last.observed)
    floors = np.array([feature.floor for feature in features])
    low = np.array([feature.direction == "low" for feature in features])
    high = _TIMES * np.abs(usual) + _FLOORS * floors
    return np.where(np.isfinite(last.observed), np.where(low, 0.0, high), np.nan)


def _on_a_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="self-test", daemon=True).start()
