"""The history of a fleet as one regular grid: ticks x nodes x features, missing stays missing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.calibration import ENOUGH_TICKS
from node_anomaly_core.errors import TrainingError
from node_anomaly_core.features import Feature
from node_anomaly_core.manifest import LONGEST_FEATURE_NAME, MAX_FEATURES, MAX_NODES

NORMAL, ANOMALOUS, UNKNOWN = 0, 1, -1

GRID_TOLERANCE = 1e-6
"""How far a timestamp may lie off the grid, as a share of the interval."""
MINIMUM_TICKS = 1_000
"""What a training run needs; fewer cannot be divided into parts that say anything."""


@dataclass(frozen=True, eq=False)
class History:
    """What a fleet did over a time range.

    `timestamps` (t,) in unix seconds on a regular grid of `interval_s`; `values` (t, m, f) in each
    feature's unit, NaN where nothing was measured; `labels` (t, m): 1 anomalous, 0 normal, -1 unknown.
    The arrays are read-only views. Raises TrainingError if the parts do not fit each other.
    """

    features: tuple[Feature, ...]
    interval_s: float
    nodes: tuple[str, ...]
    timestamps: NDArray[np.float64]
    values: NDArray[np.float64]
    labels: NDArray[np.int8]
    origin: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, kind in (("timestamps", np.float64), ("values", np.float64), ("labels", np.int8)):
            array = np.asarray(getattr(self, name), dtype=kind).view()
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        expected = (len(self.timestamps), len(self.nodes), len(self.features))
        if self.values.shape != expected or self.labels.shape != expected[:2]:
            raise TrainingError(
                f"history: values have shape {self.values.shape} and labels {self.labels.shape}, "
                f"but ticks x nodes x features is {expected}"
            )
        _check_unique("node", self.nodes)
        _check_unique("feature", [feature.name for feature in self.features])
        self._check_grid()

    def _check_grid(self) -> None:
        if not np.isfinite(self.interval_s) or self.interval_s <= 0:
            raise TrainingError(f"history: an interval of {self.interval_s} s")
        steps = np.diff(self.timestamps)
        off = ~(np.abs(steps - self.interval_s) <= GRID_TOLERANCE * self.interval_s)
        if off.any():
            at = int(np.argmax(off))
            raise TrainingError(
                f"history: tick {at + 1} is {steps[at]:g} s after the one before, not {self.interval_s:g} s",
                "put the samples on a regular grid in time order, with NaN where one is missing",
            )

    @property
    def ticks(self) -> int:
        """Length of the grid."""
        return len(self.timestamps)

    @property
    def duration_s(self) -> float:
        """Length of the time range in seconds."""
        return self.ticks * self.interval_s

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the last axis of `values`."""
        return tuple(feature.name for feature in self.features)

    def between(self, start: float, stop: float) -> History:
        """The part between two fractions of the time range.

        `between(0, a)` and `between(a, 1)` never share a tick and never lose one.
        """
        if not 0.0 <= start <= stop <= 1.0:
            raise ValueError(f"fractions {start}..{stop} are not ordered within 0..1")
        part = slice(round(start * self.ticks), round(stop * self.ticks))
        return replace(
            self, timestamps=self.timestamps[part], values=self.values[part], labels=self.labels[part]
        )

    def select_nodes(self, nodes: Sequence[str]) -> History:
        """Only these nodes, in this order; raises TrainingError for a node the history does not hold."""
        picked = _positions("node", self.nodes, nodes)
        return replace(self, nodes=tuple(nodes), values=self.values[:, picked], labels=self.labels[:, picked])

    def select_features(self, names: Sequence[str]) -> History:
        """Only these features, in this order; raises TrainingError for one the history does not hold."""
        picked = _positions("feature", self.feature_names, names)
        return replace(
            self, features=tuple(self.features[at] for at in picked), values=self.values[:, :, picked]
        )


@dataclass(frozen=True, eq=False)
class Coverage:
    """How complete a history is.

    `missing` (m, f) is a share in 0..1; `constant` (m, f) is True where a feature was seen and never moved.
    """

    nodes: tuple[str, ...]
    features: tuple[str, ...]
    missing: NDArray[np.float64]
    constant: NDArray[np.bool_]

    @property
    def absent_features(self) -> tuple[str, ...]:
        """Features that no node ever had."""
        return self._names((self.missing == 1.0).all(axis=0))

    @property
    def constant_features(self) -> tuple[str, ...]:
        """Features that some node has and that move on none."""
        absent = self.missing == 1.0
        return self._names((self.constant | absent).all(axis=0) & ~absent.all(axis=0))

    @property
    def silent_nodes(self) -> tuple[str, ...]:
        """Nodes without a single sample."""
        silent = (self.missing == 1.0).all(axis=1)
        return tuple(node for node, is_silent in zip(self.nodes, silent, strict=True) if is_silent)

    def lines(self) -> tuple[str, ...]:
        """What a user should know before trusting a model trained on this; empty if nothing is amiss."""
        lines = []
        if self.silent_nodes:
            lines.append("nodes without any sample: " + ", ".join(self.silent_nodes))
        if self.absent_features:
            lines.append("features no node has: " + ", ".join(self.absent_features))
        if self.constant_features:
            lines.append("features that never move: " + ", ".join(self.constant_features))
        gaps = np.where(self.missing == 1.0, 0.0, self.missing)
        for at in np.argsort(-gaps.max(axis=1, initial=0.0), kind="stable")[:5]:
            worst = int(np.argmax(gaps[at])) if gaps.shape[1] else 0
            if gaps.shape[1] and gaps[at, worst] >= 0.05:
                lines.append(f"{self.nodes[at]}: {gaps[at, worst]:.0%} of {self.features[worst]} is missing")
        return tuple(lines)

    def _names(self, chosen: NDArray[np.bool_]) -> tuple[str, ...]:
        return tuple(name for name, is_chosen in zip(self.features, chosen, strict=True) if is_chosen)


def coverage(history: History) -> Coverage:
    """Share missing and constant columns per node and feature; an empty history is missing everything."""
    missing = np.ones(history.values.shape[1:])
    constant = np.zeros(missing.shape, dtype=bool)
    for node in range(len(history.nodes) if history.ticks else 0):  # one by one: copies of all would not fit
        values = history.values[:, node]
        observed = ~np.isnan(values)
        missing[node] = 1.0 - observed.mean(axis=0)
        lowest = np.where(observed, values, np.inf).min(axis=0)
        constant[node] = lowest == np.where(observed, values, -np.inf).max(axis=0)
    return Coverage(history.nodes, history.feature_names, missing, constant)


def least_ticks(nodes: int, fit_fraction: float) -> int:
    """What a run needs where there are so many nodes; one alone has to fill the calibration."""
    calibrating = (1.0 - fit_fraction) / 2.0
    return max(MINIMUM_TICKS, math.ceil(ENOUGH_TICKS / max(nodes, 1) / calibrating))


def require_trainable(history: History, minimum_ticks: int) -> Coverage:
    """The coverage of a history that can be trained on.

    One node is enough, and constant or absent features are allowed: they are reported by
    `Coverage.lines()`. Raises TrainingError, saying which, if there is no tick, no node, no feature, no
    sample at all, fewer than `minimum_ticks` ticks with a sample, or what no bundle can hold.
    """
    source = history.origin.get("source", "the source")
    if not history.nodes:
        raise TrainingError(
            f"the history from {source} holds no node", "check the matchers or the node column"
        )
    if not history.features:
        raise TrainingError(f"the history from {source} holds no feature", "name at least one under features")
    if not history.ticks:
        raise TrainingError(f"the history from {source} is empty", "check the time range")
    sampled = (~np.isnan(history.values)).any(axis=(1, 2))
    if not sampled.any():
        raise TrainingError(
            f"the history from {source} holds {history.ticks} ticks but not one sample",
            "check that the metrics exist in this time range",
        )
    if sampled.sum() < minimum_ticks:
        raise TrainingError(
            f"the history from {source} is too short: {int(sampled.sum())} ticks with samples, "
            f"{minimum_ticks} are needed ({minimum_ticks * history.interval_s / 3600:.1f} h "
            f"at an interval of {history.interval_s:g} s)",
            "read a longer range, use a shorter interval, or wait until there is as much history",
        )
    _require_a_bundle_holds(history)
    return coverage(history)


def _require_a_bundle_holds(history: History) -> None:
    """Said now, and not by the manifest after everything was fitted."""
    if len(history.nodes) > MAX_NODES:
        raise TrainingError(
            f"the history is of {len(history.nodes):,} nodes, a bundle holds {MAX_NODES:,}",
            "train groups of like nodes apart, chosen by matchers, each published to its own directory",
        )
    if len(history.features) > MAX_FEATURES:
        raise TrainingError(
            f"the history has {len(history.features)} features, a bundle holds {MAX_FEATURES}",
            "leave some out: name those to keep under features",
        )
    for what, names, longest in (
        ("node", history.nodes, None),
        ("feature", history.feature_names, LONGEST_FEATURE_NAME),
    ):
        for name in names:
            if not name.isprintable() or (longest is not None and not 0 < len(name) <= longest):
                limit = "" if longest is None else f" of 1 to {longest} characters"
                raise TrainingError(
                    f"the history has a {what} {name[:60]!r}, and a bundle holds printable names{limit}",
                    f"rename that {what}",
                )


def _check_unique(what: str, names: Sequence[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise TrainingError(f"history: {what} {name!r} appears twice")
        seen.add(name)


def _positions(what: str, present: Sequence[str], wanted: Sequence[str]) -> list[int]:
    where = {name: at for at, name in enumerate(present)}
    unknown = [name for name in wanted if name not in where]
    if unknown:
        raise TrainingError(
            f"the history has no {what} {unknown[0]!r}", f"it holds: {', '.join(present) or 'none'}"
        )
    return [where[name] for name in wanted]
