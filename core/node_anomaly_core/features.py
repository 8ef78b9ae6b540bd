"""From readings to feature values, tick by tick.

Compiled once per layout: expressions become closures over positions in one flat list of values (rates
first, then raw values), so that a tick costs one dictionary look-up per series, one vectorised rate and
one closure per feature. The layout changes only when a series appears or has been gone for a window.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.catalogue import CATALOGUE, FEATURES_BY_NAME, METRIC_LABEL, Feature
from node_anomaly_core.expressions import Rate, Reading, Selector, SeriesKey
from node_anomaly_core.formulas import Formula, Layout, compile_formula
from node_anomaly_core.rates import CounterWindow

__all__ = [
    "CATALOGUE",
    "FEATURES_BY_NAME",
    "MAX_SERIES",
    "METRIC_LABEL",
    "Feature",
    "FeatureEvaluator",
    "Reading",
    "SeriesKey",
]

MAX_SERIES = 8192
"""Series kept at most. Above it whole metrics are left out, those with the most series first, and the
features that need them are missing: a sum over some of the devices would look like a real number."""


class FeatureEvaluator:
    """Computes the features of one host; one call of `update` per tick.

    `refused` names the metrics left out because of MAX_SERIES.
    """

    def __init__(self, features: Sequence[Feature], window_s: float) -> None:
        self.features = tuple(features)
        self.refused: frozenset[str] = frozenset()
        self._counters = CounterWindow(window_s)
        self._keys: list[SeriesKey] = []  # counters first, then the rest
        self._known: set[SeriesKey] = set()  # everything already judged, wanted or not
        self._seen = np.empty(0)  # when each of _keys last had a value
        self._formulas: list[Formula] = []
        self._order: list[SeriesKey] = []  # of the reading before, if all of it was known
        self._places: NDArray[np.intp] | None = None  # of _keys in it; None if one is not there
        selectors: dict[str, list[Selector]] = {}
        for feature in self.features:
            for leaf in feature.expression.leaves() if feature.expression else ():
                selectors.setdefault(leaf.metric, []).append(leaf)
        self._selectors: Mapping[str, list[Selector]] = selectors
        self._rated = {m for m, leaves in selectors.items() if any(isinstance(x, Rate) for x in leaves)}
        self._arrange(())

    def update(self, timestamp: float, reading: Reading) -> NDArray[np.float64]:
        """The features at this tick, (f,) in the order given; NaN where missing. Never raises for odd data.

        `timestamp` is in seconds; see CounterWindow for what a clock that jumps does to the rates.
        """
        order = list(reading)
        if order != self._order:  # seldom; comparing two lists costs less than one look-up for each series
            self._meet(reading, order)
        if self._places is None:
            get = reading.get
            values = np.array([get(key, math.nan) for key in self._keys], dtype=np.float64)
        else:
            values = np.fromiter(reading.values(), np.float64, len(order)).take(self._places)
        absent = np.isnan(values)
        if np.count_nonzero(absent):  # a third of the time of any()
            self._seen[~absent] = timestamp
            gone = np.abs(timestamp - self._seen) > self._counters.window_s
            if gone.any():
                self._arrange(key for key, lost in zip(self._keys, gone.tolist(), strict=True) if not lost)
                values = values[~gone]
        else:
            self._seen.fill(timestamp)
        rates = self._counters.push(timestamp, values[: len(self._counters.keys)])
        flat = rates.tolist() + values.tolist()
        found = np.array([formula(flat) for formula in self._formulas], dtype=np.float64)
        found[~np.isfinite(found)] = math.nan
        return found

    def state(self) -> dict[str, object]:
        """The counter window as plain JSON values."""
        return self._counters.state()

    def restore(self, state: Mapping[str, object]) -> bool:
        """Go on from a saved state; False, and nothing changes, if it does not fit."""
        window = CounterWindow(self._counters.window_s)
        if not window.restore(state) or len(window.keys) > MAX_SERIES:
            return False
        wanted = [key for key in window.keys if key[0] in self._rated and self._wants(key)]
        self._counters = window
        self._keys, self._seen = [], np.empty(0)
        self._arrange(wanted)
        self._seen.fill(window.latest)
        return True

    def _wants(self, key: SeriesKey) -> bool:
        return any(leaf.selects(key[1]) for leaf in self._selectors.get(key[0], ()))

    def _meet(self, reading: Reading, order: list[SeriesKey]) -> None:
        """A reading whose series are not those of the one before, or stand in another order."""
        if not reading.keys() <= self._known:
            self._admit(reading)
        self._order, self._places = [], None
        if reading.keys() <= self._known:
            at = {key: place for place, key in enumerate(order)}
            self._order = order
            if at.keys() >= set(self._keys):
                self._places = np.array([at[key] for key in self._keys], dtype=np.intp)

    def _admit(self, reading: Reading) -> None:
        """Take in series not seen before, if any feature selects them."""
        here = {key for key, value in reading.items() if not math.isnan(value)}
        kept = set(self._keys)
        fresh = [key for key in reading if key in here and key not in kept and self._wants(key)]
        if not self._known.issuperset(fresh):
            keys, self.refused = _within_limit([*self._keys, *fresh])
            self._arrange(keys)
        # Rebuilt from what is there now, so it stays as small as the reading.
        self._known = here.union(self._keys)

    def _arrange(self, keys: Iterable[SeriesKey]) -> None:
        """Lay out these series, counters first, and compile the expressions for them."""
        order = sorted(keys, key=lambda key: key[0] not in self._rated)
        counters = [key for key in order if key[0] in self._rated]
        last_seen = dict(zip(self._keys, self._seen.tolist(), strict=True))
        self._seen = np.array([last_seen.get(key, -np.inf) for key in order], dtype=np.float64)
        self._keys = order
        self._order, self._places = [], None
        self._known = set(order)  # what was dropped or refused is judged again when it is there
        self._counters.relayout(counters)
        rates: dict[str, list[tuple[str, int]]] = {}
        gauges: dict[str, list[tuple[str, int]]] = {}
        for at, (metric, label) in enumerate(order):
            if at < len(counters):
                rates.setdefault(metric, []).append((label, at))
            gauges.setdefault(metric, []).append((label, len(counters) + at))
        layout = Layout(rates, gauges)
        self._formulas = [compile_formula(feature.expression, layout) for feature in self.features]


def _within_limit(keys: list[SeriesKey]) -> tuple[list[SeriesKey], frozenset[str]]:
    """The series that fit into MAX_SERIES, and the metrics that had to go, largest first."""
    sizes = Counter(metric for metric, _ in keys)
    refused: set[str] = set()
    total = len(keys)
    for metric, size in sizes.most_common():
        if total <= MAX_SERIES:
            break
        refused.add(metric)
        total -= size
    return [key for key in keys if key[0] not in refused], frozenset(refused)
