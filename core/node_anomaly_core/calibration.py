"""From evidence to `anomaly_score`: how rare is this on normal data, measured against the false-alarm budget.

`score = log10(p) / log10(p_alarm)`, where p is the share of normal ticks with at least this much evidence and
p_alarm belongs to the level that normal operation holds for HOLD_TICKS consecutive ticks once per budget. So
1.0 is the alarm threshold on every node and for every model. Beyond the data a generalised-Pareto tail is
fitted to the peaks of separate episodes (Pickands-Balkema-de Haan; probability-weighted moments after Hosking
& Wallis, 1987).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

HOLD_TICKS = 3
"""An alarm is a score of 1 or more for this many consecutive ticks; the shipped rule says the same."""

MERGE_TICKS = 10
"""Exceedances closer than this are one episode."""

WEEK = 604_800.0

ENOUGH_TICKS = 200
"""Of normal evidence, for a calibration that somebody is to rely on."""

FEWEST_TICKS = 20
"""With fewer there is no body that a tail could begin at."""

_BODY = (1.0, 0.9, 0.75, 0.5, 0.3, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01, 0.005, 0.003, 0.002, 0.001)
_LEAST_PEAKS = 20
_LOWEST_LOG10P = -12.0

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Tail:
    """Evidence -> log10 tail probability, as knots (k,) that rise and their log10 p (k,) that falls.

    Linear beyond.
    """

    knots: tuple[float, ...]
    log10p: tuple[float, ...]
    alarm_log10p: float
    _table: tuple[Array, Array, float] = field(init=False, repr=False, compare=False)
    """Knots, values and the slope beyond, as arrays: every tick of every member asks for them."""

    def __post_init__(self) -> None:
        knots, values = np.array(self.knots), np.array(self.log10p)
        slope = float((values[-1] - values[-2]) / (knots[-1] - knots[-2]))
        object.__setattr__(self, "_table", (knots, values, slope))

    def score(self, evidence: Array) -> Array:
        """`anomaly_score` for evidence of any shape; NaN stays NaN, never below 0."""
        knots, values, slope = self._table
        result = np.interp(evidence, knots, values)
        beyond = evidence > knots[-1]
        result = np.where(beyond, values[-1] + slope * (evidence - knots[-1]), result)
        return np.asarray(np.maximum(result / self.alarm_log10p, 0.0))

    def score_of(self, evidence: float) -> float:
        """The same for one number, to the bit: a node's tick, for every member."""
        if evidence != evidence:  # noqa: PLR0124  # NaN
            return evidence
        knots, values = self.knots, self.log10p
        if evidence > knots[-1]:
            found = values[-1] + self._table[2] * (evidence - knots[-1])
        elif evidence <= knots[0]:
            found = values[0]
        else:
            left = min(bisect_right(knots, evidence), len(knots) - 1) - 1
            rise = (values[left + 1] - values[left]) / (knots[left + 1] - knots[left])
            found = rise * (evidence - knots[left]) + values[left]
        return max(found / self.alarm_log10p, 0.0)

    def alarm_level(self, times: float = 1.0) -> float:
        """The evidence whose score is 1.0, or that is reached so many times as often."""
        knots, values, slope = self._table
        wanted = self.alarm_log10p + math.log10(times)
        if wanted < values[-1]:
            return float(knots[-1] + (wanted - values[-1]) / slope)
        return float(np.interp(-wanted, -values, knots))


@dataclass(frozen=True, slots=True)
class MemberScale:
    """Where a member's scores lie on normal data: its median and its 95 % quantile."""

    median: float
    high: float

    def evidence(self, scores: Array) -> Array:
        """Scores of any shape in units in which members can be averaged (recipe, step 8)."""
        return (scores - self.median) / (self.high - self.median)


def fit_member(scores: Array, least: float = 0.0) -> MemberScale:
    """Median and 95 % quantile of a member's scores on normal data, any shape, NaN ignored.

    At least `least` of its own score apart: for a member that is mostly silent.

    The recipe took the 99 % quantile; the combination ranks better with this one (bench/results/ablation.md).
    """
    known = scores[np.isfinite(scores)]
    median, high = (float(value) for value in np.quantile(known, [0.5, 0.95]))
    # the second is for a member that is flat but for rare jumps
    spread = max(high - median, 0.01 * (float(known.max()) - median))
    if spread < 1e-6 * max(1.0, abs(median)):
        spread = 1.0  # it never moved: one unit of its own score, so that it cannot outshout the others
    return MemberScale(median, median + max(spread, least))


def combine(evidence: Sequence[Array], weights: Sequence[float]) -> Array:
    """Weighted mean over the members that know something; NaN where none does. Weights are above 0."""
    stacked = np.array(evidence)
    known = np.isfinite(stacked)
    weight = np.array(weights).reshape(-1, *(1,) * (stacked.ndim - 1))
    whole = (weight * known).sum(axis=0)
    with np.errstate(invalid="ignore"):
        return np.where(whole > 0, (weight * np.where(known, stacked, 0.0)).sum(axis=0) / whole, np.nan)


def held(evidence: Array, ticks: int = HOLD_TICKS) -> Array:
    """The level (t,) that was held for the last `ticks` ticks, from evidence (t,); NaN counts as not held."""
    filled = np.where(np.isfinite(evidence), evidence, -np.inf)
    result = filled.copy()
    for back in range(1, ticks):
        result[back:] = np.minimum(result[back:], filled[:-back])
    result[: ticks - 1] = -np.inf
    return result


def peaks_over(levels: Array, threshold: float) -> Array:
    """Highest level of each separate episode at or above `threshold` in levels (t,)."""
    above = np.flatnonzero(levels >= threshold)
    if not len(above):
        return np.empty(0)
    starts = np.flatnonzero(np.diff(above, prepend=above[0] - MERGE_TICKS - 1) > MERGE_TICKS)
    return np.asarray(np.maximum.reduceat(levels[above], starts))


def episode_rate(levels: Iterable[Array], threshold: float, interval_s: float) -> float:
    """Alarm episodes per known node-week of levels (t,) of some nodes at a threshold; NaN without a week."""
    series = list(levels)
    weeks = _weeks(series, interval_s)
    return sum(len(peaks_over(level, threshold)) for level in series) / weeks if weeks > 0 else float("nan")


def _weeks(levels: Sequence[Array], interval_s: float) -> float:
    """Node-weeks in which something was known: time that nobody judged must not buy false alarms."""
    return float(sum(int(np.isfinite(level).sum()) for level in levels)) * interval_s / WEEK


def fit_tail(
    series: Sequence[Array], interval_s: float, budget_per_week: float, least: int = ENOUGH_TICKS
) -> Tail:
    """Calibrate on normal evidence, one array (t,) per node, so that held alarms come once per budget.

    Raises ValueError when there is too little normal data to say anything: fewer than `least` known ticks,
    or than FEWEST_TICKS.
    """
    known = np.sort(np.concatenate([evidence[np.isfinite(evidence)] for evidence in series]))
    least = max(least, FEWEST_TICKS)
    if len(known) < least:
        raise ValueError(f"calibration needs at least {least} normal ticks, got {len(known)}")
    threshold = _alarm_level([held(evidence) for evidence in series], interval_s, budget_per_week)
    shares = [share for share in _BODY if share * len(known) >= 10]
    knots = [float(known[min(len(known) - 1, round((1 - share) * len(known)))]) for share in shares]
    log10p = [float(np.log10(share)) for share in shares]
    peaks = np.concatenate([peaks_over(evidence, knots[-1]) for evidence in series])
    shape, scale = pareto(peaks - knots[-1])
    for step in range(1, 49):
        value = shares[-1] * 10 ** (-step / 4)
        knots.append(knots[len(shares) - 1] + _excess(value / shares[-1], shape, scale))
        log10p.append(float(np.log10(value)))
    knots, log10p = _strictly_rising(knots, log10p)
    reach = float(np.interp(threshold, knots, log10p))
    return Tail(tuple(knots), tuple(log10p), max(min(reach, -1.0), _LOWEST_LOG10P))


def _alarm_level(levels: list[Array], interval_s: float, budget_per_week: float) -> float:
    """Level that is held once per budget.

    Counted where the data reach, extrapolated by a Pareto tail where not.
    """
    weeks = _weeks(levels, interval_s)
    flat = np.concatenate(levels)
    flat = np.sort(flat[np.isfinite(flat)])
    if not len(flat):
        raise ValueError(f"calibration needs {HOLD_TICKS} known ticks in a row, there are none")
    start = float(flat[-1])
    peaks = np.empty(0)
    for share in (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2):
        start = float(flat[max(0, round((1 - share) * len(flat)) - 1)])
        peaks = np.concatenate([peaks_over(level, start) for level in levels])
        if len(peaks) >= max(_LEAST_PEAKS, 2 * budget_per_week * weeks):
            break
    allowed = budget_per_week * weeks
    if not len(peaks) or allowed >= len(peaks):
        return start
    shape, scale = pareto(peaks - start)
    fitted = start + _excess(allowed / len(peaks), shape, scale)
    if allowed >= 10:  # enough episodes to count instead of to extrapolate
        return float(np.sort(peaks)[-int(allowed)])
    return max(fitted, float(np.sort(peaks)[-int(allowed) - 1]))


def pareto(excesses: Array) -> tuple[float, float]:
    """Shape and scale of a generalised Pareto distribution by probability-weighted moments, shape in 0..0.5.

    A bounded tail (negative shape) is not believed: it would make the next larger value infinitely rare.
    """
    if len(excesses) < 2 or float(excesses.mean()) <= 0:
        return 0.0, float(excesses.mean()) if len(excesses) and excesses.mean() > 0 else 1e-3
    ordered = np.sort(excesses)
    rank = (np.arange(1, len(ordered) + 1) - 0.35) / len(ordered)
    first = float(ordered.mean())
    second = float(np.mean((1 - rank) * ordered))
    shape = 2 - first / max(first - 2 * second, 1e-12)
    shape = float(np.clip(shape, 0.0, 0.5))
    return shape, first * (1 - shape)


def _excess(share: float, shape: float, scale: float) -> float:
    """Excess that a share of the exceedances surpasses."""
    if shape < 1e-6:
        return float(-scale * np.log(share))
    return float(scale / shape * (share**-shape - 1))


def _strictly_rising(knots: list[float], log10p: list[float]) -> tuple[list[float], list[float]]:
    """Where several probabilities share one level, the lower ones count only when the level is passed."""
    rising, falling = [knots[0]], [log10p[0]]
    for knot, value in zip(knots[1:], log10p[1:], strict=True):
        if knot > rising[-1] + 1e-9:
            rising.append(knot)
            falling.append(value)
    if len(rising) < 2:
        rising.append(rising[-1] + 1e-3)
        falling.append(log10p[-1])
    return rising, falling
