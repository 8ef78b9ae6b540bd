"""The node's own alarm threshold: what its evidence held in the last days, at the same budget.

Distribution drift, not the choice of model, is the main source of false alarms (recipe, "What matters most"):
a threshold fixed at training turns drift into an alarm that stands for days. So the level that training
promised is only where a node starts; every half hour it is set anew to the level that separate episodes of
the trailing window reached as often as the budget allows. No label is used, and nothing of the members
changes: only where on the evidence 1.0 lies. The ratio of both levels is exported, so that a threshold that
wandered is seen.

While the window is not full, its largest episodes are too small to be a threshold. They are held against what
training has seen as often in as short a time, and how far a node is from that is taken for how far its
threshold is from the promised one: by the cube root of the share that is known, since what a node does in
hours says much of what it does in days, and not all. Where so many episodes are asked for that hours do not
hold them, under budgets that are not tight, the level is not below the mean of what was promised and what
was reached, by that share (docs/adr/0032 and 0034).

An incident must not blind the node to the next one: whatever it reaches in its first hours, it counts in the
window as at most a little more than the threshold that it crossed. So the threshold follows drift step by
step, and does not jump to the height of a single episode for as long as the window lasts. What stands for
longer is taken for the node's new normal, and counts in full.

Memory is one number per ten ticks of two days (three and a half for tight budgets), whatever happens.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.calibration import HOLD_TICKS, MERGE_TICKS, WEEK, Tail
from node_anomaly_core.outgrown import CLOSED, Outgrown

WINDOW_S = 2 * 86_400.0
LONG_WINDOW_S = 3.5 * 86_400.0
"""For a budget that allows less than one alarm in two days: their largest would be reached too often."""

MOST_RISE = 1.3
"""An episode counts as at most this many times the threshold that it crossed, until it is OPEN_S old."""

LONG_MOST_RISE = 1.1
"""For tight budgets, where one episode is more than a window allows."""

UPDATE_S = 1_800.0
OPEN_S = 6 * 3_600.0
"""For this long an episode that is still going on does not raise the threshold over itself."""

_TRUST = 1 / 3
"""The power of the share of its window that a node has seen, by which it believes itself (tight budgets)."""

_COUNT_BIAS = 0.4  # keeps a budget of one a day on real servers; stationary noise realises somewhat more
_LONG_COUNT_BIAS = 0.2
_NOISE_MOST = 1.4  # the most that any of four noises raised, in alarms of one with independent episodes
_LEAST_LEVEL = 0.05  # of evidence, where the median is 0 and the 95 % quantile of training 1
_SHARES = (0.02, 0.05, 0.1, 0.2, 0.3)
_PEAKS = 12
_NEVER_S = 1e9
STEP = 0.1  # at the threshold, where training put it
_KNEE = 0.9  # of the score; what lies below is shown as it is, if it raises no alarm
_LIFT = 0.05  # orders alarms of a threshold that lies below the trained one

_NO_BLOCK = (0.0, *[-np.inf] * (1 + HOLD_TICKS))

Array = NDArray[np.float64]


def around(score: Array | float, at: Array | float) -> Array:
    """Scores of any shape as they are shown by a node whose own threshold lies at `at` on their scale.

    Below it they are below 1, at it and above at least 1. Both maps are fixed, rise, and change nothing but
    what lies near 1 or on the other side of it, so that scores of different days can still be compared.
    """
    value = np.asarray(score, dtype=np.float64)
    over = np.maximum(value - _KNEE, 0.0) / (1 - _KNEE)
    below = np.where(value > _KNEE, 1 - (1 - _KNEE) / (1 + over), value)
    above = np.maximum(value, 1 + _LIFT * value)
    return np.asarray(np.where(value >= at, above, below))


def around_one(score: float, at: float) -> float:
    """The same for one score."""
    if score >= at:
        return max(score, 1 + _LIFT * score)
    if score > _KNEE:
        return 1 - (1 - _KNEE) / (1 + (score - _KNEE) / (1 - _KNEE))
    return score


class RollingThreshold:
    """Running threshold of one node, in units of the combined evidence with its peaks held."""

    def __init__(
        self,
        tail: Tail,
        budget_per_week: float,
        interval_s: float,
        *,
        window_s: float | None = None,
        open_s: float = OPEN_S,
        update_s: float = UPDATE_S,
        most_rise: float | None = None,
    ) -> None:
        """Start at the alarm level of the `tail` that training found for the budget.

        A node has the defaults, a window of two or, for tight budgets, three and a half days;
        bench/ablation.py tries others, an `open_s` of 0, which lets any episode raise the threshold over
        itself, other times between two looks (`update_s`), and episodes that count in full (`most_rise`
        infinite).
        """
        self._rare = tight(budget_per_week)
        if window_s is None:
            window_s = LONG_WINDOW_S if self._rare else WINDOW_S
        if most_rise is None:
            most_rise = LONG_MOST_RISE if self._rare else MOST_RISE
        self._tail = tail
        self._promised = max(tail.alarm_level(), _LEAST_LEVEL)
        self._block_s = MERGE_TICKS * interval_s
        self._blocks: deque[float] = deque(maxlen=max(3, round(window_s / self._block_s)))
        self._allowed = _allowed(budget_per_week, window_s)
        self._most_rise = most_rise
        self._every = max(1, round(min(update_s, _NEVER_S) / self._block_s))
        self._open = max(1, round(open_s / self._block_s)) if open_s > 0 else 0
        self._last = deque([-np.inf] * HOLD_TICKS, maxlen=HOLD_TICKS)
        self._highest = -np.inf
        self._ticks = 0  # of the block that is not ended
        self._since = 0
        self._going_on = 0  # blocks since the episode began that has not ended
        self.outgrown = Outgrown(self._block_s, self._blocks.maxlen or 0)
        """Whether an alarm has ended because this threshold rose."""
        self.level = self._promised
        self.learnt = 0.0
        """Share of its window that has been seen; below 1 the level leans on what training promised."""
        self.reached = False
        """Whether the last tick reached the level in force."""

    @property
    def ratio(self) -> float:
        """The threshold as a multiple of what training promised."""
        return self.level / self._promised

    def step(self, evidence: float, whole: float | None = None) -> float:
        """Take in this tick's combined evidence, NaN = unknown; the level that it is judged against.

        `evidence` is what of the `whole` counts for an alarm, where that is not all of it. It is what reaches
        a level; once that is reached the whole counts, for as long as it stays there.
        """
        level = self.level
        shown = evidence if whole is None else whole
        if self.reached and whole is not None:
            evidence = whole
        self.reached = evidence >= level
        self.outgrown.step(shown, alarm=self.reached)
        self._last.append(evidence if evidence == evidence else -np.inf)  # noqa: PLR0124  # NaN
        self._highest = max(self._highest, min(self._last))
        self._ticks += 1
        if self._ticks == MERGE_TICKS:
            self._ticks = 0
            self._end_block()
            self._since += 1
            if self._since >= self._every:
                self._since = 0
                self._update()
            alarm, counts = self._going_on > 0, self._going_on > self._open
            self.outgrown.end_block(level, self.level, alarm=alarm, counts=counts)
        return level

    def _end_block(self) -> None:
        self._going_on = self._going_on + 1 if self._highest >= self.level else 0
        spared = self._going_on <= self._open
        self._blocks.append(min(self._highest, self._most_rise * self.level) if spared else self._highest)
        self._highest = -np.inf

    def _update(self) -> None:
        blocks = np.array(self._blocks)
        if self._going_on <= self._open:
            blocks = blocks[: max(0, len(blocks) - self._going_on)]
        known = np.isfinite(blocks)
        if not known.any():
            return
        self.learnt = self._share(known)
        reached = max(self._reached(blocks), _LEAST_LEVEL)
        as_often = max(self._tail.alarm_level(1 / self.learnt), _LEAST_LEVEL)  # in as much as was seen
        level = self._promised * (reached / as_often) ** self.learnt**_TRUST
        if not self._rare:
            level = max(level, self._promised * (reached / self._promised) ** self.learnt)
        self.level = max(level, _LEAST_LEVEL)

    def _share(self, known: NDArray[np.bool_]) -> float:
        return float(known.sum()) / self._blocks.maxlen  # type: ignore[operator]  # it was given

    def _reached(self, blocks: Array) -> float:
        """The level that as many separate episodes reached as are allowed in a window."""
        peaks = np.empty(0)
        ordered = np.sort(blocks[np.isfinite(blocks)])
        for share in _SHARES:
            start = ordered[min(len(ordered) - 1, int((1 - share) * len(ordered)))]
            found = _peaks(blocks, float(start))
            if len(found) > len(peaks):
                peaks = found
            if len(peaks) >= max(_PEAKS, 3 * self._allowed):
                break
        return float(np.interp(self._allowed, np.arange(len(peaks)), -np.sort(-peaks)))

    def restart(self) -> None:
        """Forget the last ticks: they are no neighbours of the next one."""
        self._last.extend([-np.inf] * HOLD_TICKS)
        self.reached = False

    def state(self) -> dict[str, NDArray[np.float64]]:
        """What a restart needs: the window, the level in force, since when an episode is open, and the block.

        Of the block that has not ended (2 + HOLD_TICKS,): how many ticks it has, its highest evidence so far,
        and the evidence of the last ticks; -inf = none.
        """
        return {
            "blocks": np.array(self._blocks),
            "level": np.array([self.level, float(self._since), float(self._going_on), float(self.reached)]),
            "open": np.array([float(self._ticks), self._highest, *self._last]),
            "outgrown": np.array(self.outgrown.state()),
        }

    def adopt(self, other: RollingThreshold) -> None:
        """Go on from the threshold of another bundle's scorer: what counts is how far it had wandered."""
        change = self._promised / other._promised
        self._blocks.clear()
        self._blocks.extend(block * change for block in other._blocks)
        self.level = max(other.ratio * self._promised, _LEAST_LEVEL)
        self._since = min(other._since, self._every)
        self._going_on, self.reached = other._going_on, other.reached
        self._ticks, self._highest = other._ticks, other._highest * change
        self._last.extend(evidence * change for evidence in other._last)
        self.learnt = self._share(np.isfinite(self._blocks))
        self.outgrown.adopt(other.outgrown, change)

    def restore(self, state: Mapping[str, NDArray[np.floating]]) -> None:
        """Take over what `state` saved; raises ValueError for numbers that no threshold has.

        Older agents did not save the block that has not ended, nor an alarm: they begin anew.
        """
        level, since, going_on, reached = (float(number) for number in state["level"])
        in_range = _LEAST_LEVEL <= level < np.inf and 0 <= since <= self._every
        if not in_range or not 0 <= going_on < np.inf or reached not in (0.0, 1.0):
            raise ValueError(f"a saved threshold of {level} after {since} blocks, {going_on} of an episode")
        if np.isnan(state["blocks"]).any() or (state["blocks"] == np.inf).any():
            raise ValueError("a saved threshold holds a level that is no number")
        ticks, highest, *last = (float(number) for number in state.get("open", _NO_BLOCK))
        if ticks not in range(MERGE_TICKS) or len(last) != HOLD_TICKS:
            raise ValueError(f"a saved threshold has a block of {ticks} ticks, the last {len(last)} known")
        if not all(evidence < np.inf for evidence in (highest, *last)):  # nor is NaN
            raise ValueError("a saved threshold holds evidence that is no number")
        self.outgrown.restore([float(number) for number in state.get("outgrown", CLOSED)])
        self._blocks.clear()
        self._blocks.extend(float(block) for block in state["blocks"])
        self.level, self._since, self._going_on = level, int(since), int(going_on)
        self.reached = bool(reached)
        self._ticks, self._highest = int(ticks), highest
        self._last.extend(last)
        self.learnt = self._share(np.isfinite(self._blocks))


def rolling_scores(
    tail: Tail,
    evidence: Array,
    budget_per_week: float,
    interval_s: float,
    *,
    window_s: float | None = None,
    open_s: float = OPEN_S,
    update_s: float = UPDATE_S,
    most_rise: float | None = None,
    whole: Array | None = None,
) -> Array:
    """Scores (t,) of consecutive evidence (t,), NaN = unknown, by the node's own threshold.

    `evidence` is what counts for an alarm, `whole` what is shown, where that is more.
    """
    threshold = RollingThreshold(
        tail,
        budget_per_week,
        interval_s,
        window_s=window_s,
        open_s=open_s,
        update_s=update_s,
        most_rise=most_rise,
    )
    whole = evidence if whole is None else whole
    levels, reached = np.full(len(evidence), np.nan), np.zeros(len(evidence), dtype=bool)
    for tick, (counted, shown) in enumerate(zip(evidence.tolist(), whole.tolist(), strict=True)):
        levels[tick], reached[tick] = threshold.step(counted, shown), threshold.reached
    return around(tail.score(whole), np.where(reached, tail.score(levels), np.inf))


def raised_on_noise(budget_per_week: float) -> float:
    """The most alarms per week of a node to which nothing ever happens, whatever its models are.

    `allowed` episodes of the window lie above the level, and where the next window is like it, one more of
    its episodes will reach it: the largest of a window is reached once in a window. Noise that is slow or has
    a heavy tail raises more than that (bench/threshold_noise.py, docs/adr/0029).
    """
    window_s = LONG_WINDOW_S if tight(budget_per_week) else WINDOW_S
    return _NOISE_MOST * (max(_allowed(budget_per_week, window_s), 0.0) + 1) * WEEK / window_s


def tight(budget_per_week: float) -> bool:
    """Whether a budget allows less than one alarm in two days."""
    return budget_per_week * WINDOW_S < WEEK


def _allowed(budget_per_week: float, window_s: float) -> float:
    """How many episodes of a window may lie above the level."""
    bias = _LONG_COUNT_BIAS if tight(budget_per_week) else _COUNT_BIAS
    return budget_per_week * window_s / WEEK - bias


def _peaks(blocks: Array, start: float) -> Array:
    """The highest block of each run of blocks (n,) at or above `start`."""
    above = np.flatnonzero(blocks >= start)
    if not len(above):
        return np.empty(0)
    begins = np.flatnonzero(np.diff(above, prepend=above[0] - 2) > 1)
    return np.asarray(np.maximum.reduceat(blocks[above], begins))
