"""Scoring one node with one bundle: the only way a score comes about, on a node and in the trainer.

scale and compress -> residual blocks -> summary -> members -> linear combination -> `anomaly_score`, 1.0 =
threshold. A node that the bundle knows by name starts with its own baseline; any other node is learnt: the
first baseline after `warmup_ticks`, then anew each time its past has doubled, up to a day, leaning on the
cohort while rows are few. A feature that comes later, on any node, is learnt alone in the same way, by what
it has shown itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.baseline import Baseline, expand
from node_anomaly_core.bundle_store import Bundle
from node_anomaly_core.degradation import MemberHealth, robust_z
from node_anomaly_core.evidence import (
    ForecastPath,
    ResidualPath,
    Surprise,
    WindowPath,
    feature_sides,
)
from node_anomaly_core.held_evidence import HeldEvidence
from node_anomaly_core.log_errors import complaint_columns
from node_anomaly_core.members import Models, judge_tick
from node_anomaly_core.node_memory import MOST_THINNED, NodeMemory
from node_anomaly_core.own_baseline import OwnBaselines
from node_anomaly_core.reasons import Reasons
from node_anomaly_core.saved import checked
from node_anomaly_core.score import Score, Tick, columns_of, measured, part
from node_anomaly_core.shares import shares_of
from node_anomaly_core.steady import HalfSmoothed
from node_anomaly_core.threshold import UPDATE_S, RollingThreshold, around_one
from node_anomaly_core.windows import ticks_in

_WARMUP_S, _WARMUP_TICKS = 60.0, 20
_KNOWN_WARMUP_TICKS = 10

Array = NDArray[np.float64]


class NodeScorer:
    """Running state of one node under one bundle."""

    def __init__(
        self,
        bundle: Bundle,
        interval_s: float,
        node: str = "",
        models: Models | None = None,
        threshold_update_s: float = UPDATE_S,
    ) -> None:
        """Start a scorer; `models` spares loading those of the bundle a second time.

        The node's threshold is set anew every `threshold_update_s`, never if that is infinite.
        """
        self.bundle = replace(bundle, files={})  # a node has no room for what Models has already taken in
        self.interval_s = interval_s
        self.node = node
        self.features = tuple(feature.name for feature in bundle.manifest.features)
        self.models = Models(bundle) if models is None else models
        self._sides = feature_sides(bundle.manifest.features)
        self._complaints = complaint_columns(bundle.manifest.features)
        self.known = node != "" and node in bundle.manifest.nodes
        self.warmup_ticks = (
            _KNOWN_WARMUP_TICKS if self.known else ticks_in(_WARMUP_S, interval_s, _WARMUP_TICKS)
        )
        self._own = OwnBaselines(self.models.cohort, bundle.manifest.features, interval_s)
        self._memory = NodeMemory(len(self.features), interval_s, self.warmup_ticks)
        self._baseline: Baseline | None = None
        self._residuals: ResidualPath | None = None
        self._forecasts: ForecastPath | None = None
        self._forecast_ticks = 0
        self._windows: WindowPath | None = None
        self.health = MemberHealth([model.name for model in bundle.manifest.models], self.models.forests)
        self._steady = HalfSmoothed(len(self.models.forests), interval_s)
        manifest = bundle.manifest
        self._held = HeldEvidence(manifest.witnesses)
        self._threshold = RollingThreshold(
            manifest.tail, manifest.budget_per_week, interval_s, update_s=threshold_update_s
        )
        if self.known:
            self._start(self.models.cohort.node(bundle.manifest.nodes.index(node)))

    @property
    def ticks(self) -> int:
        """Rows taken in, before a restart or a reload too."""
        return self._memory.ticks

    @property
    def warm(self) -> bool:
        """Whether the next score will be a number."""
        return self._baseline is not None and self._memory.since_gap >= min(
            self.warmup_ticks, _KNOWN_WARMUP_TICKS
        )

    def step(self, timestamp: float, values: NDArray[np.floating]) -> Score:
        """Score values (f,), in the bundle's order and units, NaN = missing, taken at unix `timestamp`."""
        self.health.tick()
        row = measured(values)
        advanced = self._advance(timestamp, row)
        if advanced is None:
            return self._cold(timestamp, row)
        return self._score(timestamp, row, advanced)

    def measure(self, timestamp: float, values: NDArray[np.floating]) -> dict[str, float]:
        """Like `step`, but the members' raw scores, before any calibration; empty until warm."""
        advanced = self._advance(timestamp, measured(values))
        if advanced is None or not self.warm:
            return {}
        residual = advanced.residual
        forests = self.models.forest_scores(residual.summary, residual.normalised)
        raw = {name: float(value[0]) for name, value in forests.items()}
        return self._steadied(raw) | self._path_scores(advanced)

    def _advance(self, timestamp: float, row: Array) -> Tick | None:
        """Take one tick in; its evidence, or None while nothing is known about this node."""
        if self._memory.silence_before(timestamp):
            self._restart_windows()
        self._memory.push(timestamp, row)
        if not self.known and self._memory.due():
            return self._learn()
        if self._residuals is None or self._baseline is None:
            return None
        late = self._memory.late(row, self._baseline.centre)
        if np.count_nonzero(late):
            return self._admit(late)
        return self._step_paths(self._residuals, row)

    def _step_paths(self, residuals: ResidualPath, row: Array) -> Tick:
        residual = residuals.step(row[None])
        compressed, models = residual.compressed, self.models
        surprise = distance = None
        if models.forecaster is not None:
            surprise = self.health.ask(models.forecaster, lambda: self._forecaster().step(compressed))
            if surprise is None:
                self._forecasts = None  # when it is asked again it begins anew
        windows = self._windows
        if models.clusterer is not None and windows is not None:
            distance = self.health.ask(models.clusterer, lambda: windows.step(compressed))
        return Tick(residual, surprise, distance)

    def _forecaster(self) -> ForecastPath:
        """The forecaster's path, about to be stepped; it begins anew where it had been left out."""
        if self._forecasts is None:
            self._forecasts, self._forecast_ticks = self.models.forecast_path(1, self.interval_s), 0
        if self._forecasts is None:
            raise RuntimeError("a bundle without a forecaster has no forecasts")
        self._forecast_ticks += 1
        return self._forecasts

    def _steadied(self, forests: Mapping[str, float]) -> dict[str, float]:
        """Raw scores of the forests with their last minute; once a tick."""
        if not forests:
            return {}
        steady = self._steady.step(np.array(list(forests.values())))
        return dict(zip(forests, steady.tolist(), strict=True))

    def _path_scores(self, tick: Tick) -> dict[str, float]:
        """Raw scores of the members that are no forests; NaN of one that is left out."""
        scores, models, number = {}, self.models, self.health.number
        if models.forecaster is not None:
            surprise, row = tick.surprise, tick.residual.compressed
            known = self._forecast_ticks > 1 and not bool(np.isnan(row).all())
            score = None if surprise is None else float(surprise.score[0])
            scores[models.forecaster] = number(models.forecaster, score, known=known)
        if models.clusterer is not None:
            score = None if tick.distance is None else float(tick.distance.score[0])
            scores[models.clusterer] = number(models.clusterer, score, known=False)
        if models.autoregression is not None:
            asked = self.health.may(models.autoregression)
            score = float(tick.residual.unpredicted[0]) if asked else None
            scores[models.autoregression] = number(models.autoregression, score, known=False)
        if models.log_errors is not None:
            asked = self.health.may(models.log_errors)
            score = float(tick.residual.errors[0]) if asked else None
            scores[models.log_errors] = number(models.log_errors, score, known=False)
        return scores

    def _learn(self, before: Array | None = None) -> Tick:
        """Fit the node's baseline to what it has shown and run its recent past through fresh windows.

        `before` (f,) are the centres that it had until now, NaN for none; those in force without it.
        """
        self._memory.learnt()
        learnt = self._own.whole(self._memory)
        if before is None and self._baseline is not None:
            before = self._baseline.centre
        if before is not None:
            came = np.isnan(before) & np.isfinite(learnt.centre)
            self._memory.learnt_late(came | self._memory.came_late)
        self._start(learnt)
        return self._run(self._memory.recent_rows())

    def _with_late(self, late: NDArray[np.bool_], baseline: Baseline) -> Baseline:
        """The baseline with features (f,) that came late learnt anew; sets when they are next."""
        fitted = self._own.with_late(baseline, late, self._memory)
        self._memory.learnt_late(late)
        return fitted

    def _admit(self, late: NDArray[np.bool_]) -> Tick:
        """Learn features (f,) that came after the baseline was fitted; the rest stays as it is."""
        if self._baseline is None or self._residuals is None:
            raise RuntimeError("a scorer without a baseline has no late features")
        levels, learnt = self._residuals.blocks.state(), self._residuals.normaliser.state()
        steady = self._steady
        self._start(self._with_late(late, self._baseline))
        *past, now = self._memory.recent_rows()
        for row in past:
            self._relive(self._residuals, row, normaliser=False)
        # Before this tick is judged: the others are judged by what they had learnt, refit or not.
        fresh = self._residuals.blocks.state()
        self._residuals.blocks.restore(
            {name: np.where(late, fresh[name], kept) for name, kept in levels.items()}
        )
        self._residuals.normaliser.restore(learnt)
        self._steady = steady
        return self._step_paths(self._residuals, now)

    def _start(self, baseline: Baseline) -> None:
        self._baseline = baseline
        cohort = self.models.cohort
        self._residuals = ResidualPath([baseline], self._sides, cohort, self.interval_s, self._complaints)
        self._forecasts, self._forecast_ticks = None, 0  # it begins when it is asked
        self._windows = self.models.window_path(1, self.interval_s)
        self._steady = HalfSmoothed(len(self.models.forests), self.interval_s)

    def _run(self, rows: Array, *, normaliser: bool = True) -> Tick:
        """Live through consecutive rows (n, f), n >= 1; the last tick's evidence.

        Without its `normaliser` if that is told afterwards what it has learnt.
        """
        if self._residuals is None or not len(rows):
            raise RuntimeError("a scorer without a baseline or a past cannot be run")
        for row in rows[:-1]:
            self._relive(self._residuals, row, normaliser=normaliser)
        return self._step_paths(self._residuals, rows[-1])

    def _relive(self, residuals: ResidualPath, row: Array, *, normaliser: bool) -> None:
        """`_step_paths` without a judgement that nobody asks for."""
        compressed = residuals.relive(row[None], normaliser=normaliser)
        models, windows, ask = self.models, self._windows, self.health.ask
        if models.forecaster is not None:
            lived = ask(models.forecaster, lambda: self._forecaster().relive(compressed))
            if lived is None:
                self._forecasts = None
        if models.clusterer is not None and windows is not None:
            ask(models.clusterer, lambda: windows.relive(compressed))

    def _restart_windows(self) -> None:
        """After a long silence yesterday's ticks are no neighbours of now; levels and baseline are kept."""
        if self._baseline is not None and self._residuals is not None:
            levels, learnt = self._residuals.blocks.state(), self._residuals.normaliser.state()
            self._start(self._baseline)
            self._residuals.blocks.restore(levels)
            self._residuals.normaliser.restore(learnt)
        self._memory.forget_recent()
        self._held.restart()
        self._threshold.restart()

    def _cold(self, timestamp: float, row: Array) -> Score:
        nothing = np.full(len(row), np.nan)
        unknown = {model.name: float("nan") for model in self.bundle.manifest.models}
        return Score(
            timestamp=timestamp,
            warm=False,
            score=float("nan"),
            threshold_ratio=self._threshold.ratio,
            threshold_learnt=self._threshold.learnt,
            model_scores=unknown,
            why=Reasons.known(nothing),
            expected=nothing,
            observed=row,
            states=self._memory.states(row),
        )

    def _score(self, timestamp: float, row: Array, tick: Tick) -> Score:
        if not self.warm or self._baseline is None:
            return self._cold(timestamp, row)
        residual = tick.residual
        raw, forests = self.models.forest_score(residual.summary[0], residual.normalised[0], self.health)
        judged = judge_tick(self.bundle.manifest, self._steadied(raw) | self._path_scores(tick))
        if self.models.forecaster is not None and not self.health.may(self.models.forecaster):
            tick = tick._replace(surprise=None)
        tail, ratio, learnt = self.bundle.manifest.tail, self._threshold.ratio, self._threshold.learnt
        counted, whole = self._held.step(judged.combined, judged.counted, judged.evidence)
        level = self._threshold.step(counted, whole)
        alarm = self._threshold.reached
        score = around_one(tail.score_of(whole), tail.score_of(level) if alarm else math.inf)
        why = Reasons(partial(shares_of, self.models, tick, forests, judged.evidence))
        if not self.health.working:  # uncalibrated, but a node without any model is not blind
            score, contributions = robust_z(residual.scaled[0])
            why = Reasons.known(contributions, why.shares().members)
        return Score(
            timestamp=timestamp,
            warm=True,
            score=score,
            threshold_ratio=ratio,
            threshold_learnt=learnt,
            model_scores=judged.members,
            why=why,
            expected=self._expected(self._baseline, tick.surprise),
            observed=row,
            states=self._memory.states(row),
            held_back_by=() if alarm or whole < level else self._held.missing(level),
            outgrown=self._threshold.outgrown.now and not score >= 1,  # as without any model it may be
        )

    def _expected(self, baseline: Baseline, surprise: Surprise | None) -> Array:
        """The forecast in the features' units, or the centre; not below 0 for what never was."""
        expected = baseline.centre
        if surprise is not None:
            expected = expand(surprise.forecast[0], baseline.centre, baseline.scale)
        return self._memory.possible(expected)

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Everything a restart needs, as bounded plain arrays; windows are rebuilt from the recent rows."""
        saved: dict[str, NDArray[np.generic]] = {
            **self._memory.state(),
            "forest_scores": self._steady.state(),
            **self._held.state(),
            **{f"threshold_{key}": value for key, value in self._threshold.state().items()},
        }
        if self._baseline is not None and self._residuals is not None:
            saved["centre"], saved["scale"] = self._baseline.centre, self._baseline.scale
            saved["residual_centre"] = self._baseline.residual_centre
            saved["residual_scale"] = self._baseline.residual_scale
            saved |= {f"level_{key}": value for key, value in self._residuals.blocks.state().items()}
            saved |= {f"summary_{key}": value for key, value in self._residuals.normaliser.state().items()}
        return saved

    def restore(self, state: Mapping[str, NDArray[np.generic]]) -> bool:
        """Take over what `state` saved under the same bundle; False, and untouched, if it does not fit."""
        try:
            arrays = checked(state, len(self.features), MOST_THINNED)
        except (ValueError, TypeError):
            return False
        fresh = NodeScorer(self.bundle, self.interval_s, self.node, self.models)
        fresh.health = self.health
        try:
            fresh._take_over(arrays)
        except ValueError:
            return False
        self.__dict__.update(fresh.__dict__)
        return True

    def _take_over(self, arrays: Mapping[str, Array]) -> None:
        came_late = np.zeros(len(self.features), dtype=bool)
        if "centre" in arrays:
            if self._baseline is not None:
                came_late = np.isnan(self._baseline.centre) & np.isfinite(arrays["centre"])
            kept = (arrays[name] for name in ("centre", "scale", "residual_centre", "residual_scale"))
            self._start(Baseline(*kept))
        self._memory.take_over(arrays)
        if "late" not in arrays:  # older agents learnt them once, of some ten rows
            self._memory.learn_late(came_late)
        if self._residuals is not None and len(self._memory.recent):
            learnt = "centre" in arrays
            self._run(self._memory.recent_rows(), normaliser=not learnt)
            if learnt:
                self._residuals.blocks.restore(part(arrays, "level_"))
                self._residuals.normaliser.restore(part(arrays, "summary_"))
        self._threshold.restore(part(arrays, "threshold_"))
        self._steady.restore(arrays["forest_scores"])
        self._held.restore(arrays)

    def replay(self, other: NodeScorer) -> None:
        """Hot reload: live through what the scorer before has seen, so that this one is warm at once.

        Features are matched by name; what the old bundle did not have was not kept and is missing in the
        past.
        """
        index = {name: position for position, name in enumerate(other.features)}
        columns = [index.get(name, -1) for name in self.features]
        self._memory.adopt(other._memory, columns)
        self._threshold.adopt(other._threshold)
        recent = self._memory.recent_rows()
        if self._baseline is not None:
            self._memory.learn_late(np.zeros(len(self.features), dtype=bool))  # this bundle may know them
        if self._baseline is not None and len(recent):
            late = self._memory.late(recent[-1], self._baseline.centre)
            if np.count_nonzero(late):
                self._start(self._with_late(late, self._baseline))
            self._run(recent)
        elif self._memory.ticks >= self.warmup_ticks and len(recent):
            had = other._baseline
            self._learn(None if had is None else columns_of(had.centre[None], columns)[0])
