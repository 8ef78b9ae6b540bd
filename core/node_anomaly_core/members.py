"""The members of a bundle, loaded, and how their raw scores become one `anomaly_score`."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.bundle_store import Bundle
from node_anomaly_core.calibration import combine
from node_anomaly_core.clusters import parse_centroids
from node_anomaly_core.cohort import Cohort, parse_cohort
from node_anomaly_core.degradation import MemberHealth
from node_anomaly_core.errors import BundleError
from node_anomaly_core.evidence import ForecastPath, WindowPath, feature_sides
from node_anomaly_core.forest import Forest
from node_anomaly_core.grove import Grove, plant
from node_anomaly_core.log_errors import LOG_ERRORS
from node_anomaly_core.lstm import StepLSTM
from node_anomaly_core.manifest import BOTH_SUMMARIES, NORMALISED, Manifest
from node_anomaly_core.steady import peak_held
from node_anomaly_core.summary import SUMMARY_WIDTH
from node_anomaly_core.tensors import read_tensors
from node_anomaly_core.witnesses import witnessed, witnessed_one

COHORT_FILE = "cohort.safetensors"

Array = NDArray[np.float64]


class Models:
    """The members of a bundle, loaded; raises BundleError("model") for a file that is structurally wrong."""

    def __init__(self, bundle: Bundle) -> None:
        self.manifest = bundle.manifest
        self.features = len(bundle.manifest.features)
        self.forests: dict[str, Forest] = {}
        self.forecaster: str | None = None
        self._lstm = b""
        self.clusterer: str | None = None
        self.autoregression: str | None = None
        self.log_errors: str | None = None
        for model in bundle.manifest.models:
            content = bundle.files[model.file]
            if model.type == "lstm":
                self.forecaster, self._lstm = model.name, content
                StepLSTM(content, self.features)  # refuse now, not at the first tick
            elif model.type == "autoregression":
                self.autoregression = model.name
            elif model.type == LOG_ERRORS:
                self.log_errors = model.name
            elif model.type == "kmeans":
                self.clusterer = model.name
                self._centroids = parse_centroids(read_tensors(content), self.features)
            else:
                width = SUMMARY_WIDTH * (2 if model.input == BOTH_SUMMARIES else 1)
                self.forests[model.name] = Forest.from_tensors(read_tensors(content), model.type, width)
        self.forests = plant(self.forests)
        self.grove = _grove(self.forests, self.manifest)
        if COHORT_FILE not in bundle.files:
            raise BundleError("manifest", f"{bundle.path} has no {COHORT_FILE}", "publish the bundle again")
        self.cohort: Cohort = parse_cohort(
            read_tensors(bundle.files[COHORT_FILE]), self.features, len(bundle.manifest.nodes)
        )

    def twin(self) -> Models:
        """The same members for another thread, at next to no memory."""
        twin = copy(self)
        twin.forests = {name: forest.twin() for name, forest in self.forests.items()}
        twin.grove = _grove(twin.forests, self.manifest)
        return twin

    def step_lstm(self, nodes: int) -> StepLSTM | None:
        """A fresh LSTM for a batch of nodes, or None where the bundle has none."""
        return None if self.forecaster is None else StepLSTM(self._lstm, self.features, nodes)

    def forecast_path(self, nodes: int, interval_s: float) -> ForecastPath | None:
        """A fresh forecaster for a batch of nodes, or None where the bundle has none."""
        lstm = self.step_lstm(nodes)
        if lstm is None:
            return None
        sides = feature_sides(self.manifest.features)
        return ForecastPath(lstm, nodes, sides, self.cohort.forecast_scale, interval_s)

    def window_path(self, nodes: int, interval_s: float) -> WindowPath | None:
        """Fresh windows for a batch of nodes, or None where the bundle has no centroids."""
        if self.clusterer is None:
            return None
        return WindowPath(self._centroids, nodes, interval_s)

    def forest_scores(self, summary: Array, normalised: Array) -> dict[str, Array]:
        """Raw member scores (n,) of rows (n, SUMMARY_WIDTH); NaN where nothing was known."""
        unknown = np.isnan(summary).all(axis=-1)
        rows = self._rows(summary, normalised)
        return {name: np.where(unknown, np.nan, self.forests[name].score(given)) for name, given in rows}

    def forest_score(
        self, summary: Array, normalised: Array, health: MemberHealth
    ) -> tuple[dict[str, float], list[str]]:
        """Raw scores of one row (SUMMARY_WIDTH,), and which forests gave one.

        A forest that is left out, or fails, has a raw score of NaN and is not among them.
        """
        raw: dict[str, float] = {}
        said: list[str] = []
        if not self.forests:
            return raw, said
        unknown = bool(np.isnan(summary).all())
        self.grove.take(summary, normalised)
        for name, forest in self.forests.items():
            found = health.ask(name, partial(self._ask, name, forest))
            score = math.nan if unknown and found is not None else found
            raw[name] = health.number(name, score, known=not unknown)
            if found is not None and health.may(name):
                said.append(name)
        return raw, said

    def _ask(self, name: str, forest: Forest) -> float:
        return forest.score_leaves(self.grove.leaves(name))

    def credit(self, forests: Collection[str], summary: Array, normalised: Array) -> dict[str, Array]:
        """What each of these forests credits to the numbers of one row (SUMMARY_WIDTH,). Any thread.

        Both forms of a number are made of the same features: what a forest of both credits to them adds up.
        """
        rows = self._rows(summary, normalised)
        given = {name: self.forests[name].credit(row) for name, row in rows if name in forests}
        return {name: credit.reshape(-1, SUMMARY_WIDTH).sum(axis=0) for name, credit in given.items()}

    def _rows(self, summary: Array, normalised: Array) -> Iterator[tuple[str, Array]]:
        """Each forest with the row, or the rows, that it is given."""
        for model in self.manifest.models:
            if model.name in self.forests:
                yield model.name, forest_input(model.input, summary, normalised)


def forest_input(kind: str, summary: NDArray[Any], normalised: NDArray[Any]) -> NDArray[Any]:
    """What a forest with this `input` in the manifest is given of rows (..., SUMMARY_WIDTH) in both forms."""
    if kind == BOTH_SUMMARIES:
        return np.concatenate([summary, normalised], axis=-1)
    return normalised if kind == NORMALISED else summary


def _grove(forests: Mapping[str, Forest], manifest: Manifest) -> Grove:
    """Fresh buffers for these forests."""
    return Grove(forests, {model.name: model.input for model in manifest.models})


@dataclass(frozen=True, slots=True)
class Judged:
    """What the members make of n ticks."""

    combined: Array  # (n,) evidence of all together, before any threshold
    counted: Array  # (n,) what of it counts for an alarm, by the bundle's witnesses
    members: Mapping[str, Array]  # (n,) each member's own score, 1.0 = its threshold at the budget
    evidence: Mapping[str, Array]  # (n,)

    @property
    def held(self) -> Array:
        """`counted` of consecutive ticks (n, ...) as it meets the threshold."""
        return peak_held(self.counted)

    @property
    def held_whole(self) -> Array:
        """`combined` of consecutive ticks (n, ...) as it is shown."""
        return peak_held(self.combined)


class JudgedTick(NamedTuple):
    """What the members make of one tick of one node, as `Judged`."""

    combined: float
    counted: float
    members: Mapping[str, float]
    evidence: Mapping[str, float]


def judge_tick(manifest: Manifest, raw: Mapping[str, float]) -> JudgedTick:
    """`judge` for one tick of one node: the same arithmetic without arrays."""
    members: dict[str, float] = {}
    evidence: dict[str, float] = {}
    whole = total = 0.0
    for model in manifest.models:
        name, scale = model.name, model.scale
        brought = (raw[name] - scale.median) / (scale.high - scale.median)
        evidence[name] = brought
        members[name] = model.tail.score_of(brought)
        if math.isfinite(brought):
            whole += model.weight
            total += model.weight * brought
    combined = total / whole if whole > 0 else math.nan
    return JudgedTick(combined, witnessed_one(combined, evidence, manifest.witnesses), members, evidence)


def judge(manifest: Manifest, raw: Mapping[str, Array]) -> Judged:
    """Raw member scores (n,) -> evidence; `manifest.tail` and the node's threshold make a score of it."""
    evidence = {model.name: model.scale.evidence(raw[model.name]) for model in manifest.models}
    members = {model.name: model.tail.score(evidence[model.name]) for model in manifest.models}
    combined = combine(list(evidence.values()), [model.weight for model in manifest.models])
    counted = witnessed(combined, evidence, manifest.witnesses)
    return Judged(combined, counted, members, evidence)
