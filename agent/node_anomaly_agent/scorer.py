"""From the agent's features to the bundle's: the scorer in use, and how one takes over from another."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from node_anomaly_agent.degradation import DegradationStatus
from node_anomaly_agent.snapshot import BundleInfo
from node_anomaly_agent.state import AgentState
from node_anomaly_agent.suppression import Suppression
from node_anomaly_core.bundle import Bundle, verify_bundle
from node_anomaly_core.errors import BundleError
from node_anomaly_core.features import Feature
from node_anomaly_core.forecast import Forecast, Forecaster
from node_anomaly_core.score import Score, measured
from node_anomaly_core.scoring import NodeScorer
from node_anomaly_core.signing import PublicKey

DISCARD_S = 7 * 86400.0
"""A saved history older than this is dropped.

Within an hour a restart goes on as if nothing had happened: slow baselines hardly move in that time. After
a longer gap core keeps what was learnt and starts the windows anew, so the agent is silent for a short
warm-up. After a week even the levels belong to another node.
"""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A verified bundle, ready to score: its scorer, and the sampled column of each of its features.

    `forecaster` is None where its forecast has no skill.
    """

    scorer: NodeScorer
    columns: NDArray[np.intp]
    info: BundleInfo
    forecaster: Forecaster | None = None


def load_candidate(
    path: Path,
    catalogue: Sequence[Feature],
    interval_s: float,
    node: str,
    trusted: Iterable[PublicKey] = (),
    admit: Callable[[Bundle], None] = lambda _bundle: None,
) -> Candidate:
    """Verify a bundle and build its scorer, too slow for a tick. Raises BundleError.

    `node` is this node's name; a bundle that was trained on its history starts from its own baseline. One of
    the `trusted` keys must have signed it, if there are any; `admit` may refuse it for what this node knows.
    """
    bundle = verify_bundle(path, trusted)
    admit(bundle)
    columns = align(bundle.manifest.features, catalogue)
    info = BundleInfo.of(str(path), bundle.version, bundle.manifest, bundle.signed_by)
    scorer = NodeScorer(bundle, interval_s, node)
    scorer.health.tolerant = True  # it has passed its self-test; from now on a node must not go blind
    return Candidate(scorer, columns, info, Forecaster.of(scorer.models))


def align(wanted: Sequence[Feature], supplied: Sequence[Feature]) -> NDArray[np.intp]:
    """For each wanted feature the index of the supplied one.

    Raises BundleError("features") for a feature that is not supplied, or means something else there.
    """
    index = {feature.name: at for at, feature in enumerate(supplied)}
    columns = np.empty(len(wanted), dtype=np.intp)
    for at, feature in enumerate(wanted):
        if feature.name not in index:
            near = difflib.get_close_matches(feature.name, index, n=1)
            raise BundleError(
                "features",
                f"the bundle needs feature {feature.name}, which this agent cannot supply",
                f"upgrade the agent, or train without it (the nearest here is {near[0]})"
                if near
                else "upgrade the agent, or train without it",
            )
        own = supplied[index[feature.name]]
        if (own.unit, own.kind) != (feature.unit, feature.kind):
            raise BundleError(
                "features",
                f"feature {feature.name} is a {feature.kind} in {feature.unit} in the bundle, "
                f"but a {own.kind} in {own.unit} in this agent",
                "train with the agent's version",
            )
        columns[at] = index[feature.name]
    return columns


@dataclass(frozen=True, slots=True)
class Fork:
    """What another thread needs to go on scoring from here by itself: taken between two ticks.

    Attributes:
        info: the bundle in use.
        origin: the scorer in use, of which only what never changes may be touched.
        state: its history, copied.
    """

    info: BundleInfo
    origin: NodeScorer
    state: Mapping[str, NDArray[np.generic]]

    @property
    def interval_s(self) -> float:
        """The tick."""
        return self.origin.interval_s

    def scorer(self, *, with_history: bool) -> NodeScorer:
        """A scorer of its own, up to half a second of work: of this node with its past, or of an unknown one.

        Raises BundleError if the history does not fit, which a history of the same scorer does.
        """
        origin = self.origin
        node = origin.node if with_history else ""
        fork = NodeScorer(origin.bundle, origin.interval_s, node, origin.models.twin())
        fork.health.tolerant = origin.health.tolerant
        if with_history and not fork.restore(self.state):
            raise BundleError("model", "the node's history does not fit its own bundle", "report this")
        return fork


class AgentScorer:
    """The scorer in use, whose deviations count as `suppression` says. Only the loop's thread touches it."""

    def __init__(self, candidate: Candidate, suppression: Suppression | None = None) -> None:
        self._active = candidate
        self._suppression = suppression if suppression is not None and suppression.active else None
        self._expected: NDArray[np.float64] | None = None  # (f,) at the tick before, in the agent's order

    @property
    def info(self) -> BundleInfo:
        """The bundle in use."""
        return self._active.info

    @property
    def warmup_ticks(self) -> int:
        """How many ticks of history a score needs."""
        return self._active.scorer.warmup_ticks

    @property
    def warmup_done(self) -> int:
        """How many of them there are, at most `warmup_ticks`."""
        scorer = self._active.scorer
        return scorer.warmup_ticks if scorer.warm else min(scorer.ticks, scorer.warmup_ticks - 1)

    def step(self, timestamp: float, values: NDArray[np.float64]) -> Score:
        """Score one tick. `values` (f,) is in the agent's own order, NaN where missing."""
        columns = self._active.columns
        if self._suppression is None:
            return self._active.scorer.step(timestamp, values[columns])
        expected = np.full(len(values), np.nan) if self._expected is None else self._expected
        score = self._active.scorer.step(timestamp, self._suppression.apply(values, expected)[columns])
        self._expected = np.full(len(values), np.nan)
        self._expected[columns] = score.expected
        return replace(score, observed=measured(values[columns]))

    def suppressed(self) -> Mapping[str, int]:
        """How many values did not count so far, by each feature with a suppressor."""
        return {} if self._suppression is None else self._suppression.counts()

    def afford(self, *, everything: bool) -> None:
        """Leave the forecaster out, or ask it again; a bundle without one stays as it is."""
        scorer = self._active.scorer
        if scorer.models.forecaster is not None:
            (scorer.health.take_back if everything else scorer.health.drop)(scorer.models.forecaster)

    def look_ahead(self) -> Forecast | None:
        """What to expect; None where the bundle cannot tell, or its LSTM is left out at present.

        A few milliseconds, so not in every tick.
        """
        scorer, forecaster = self._active.scorer, self._active.forecaster
        if forecaster is None or not scorer.health.may(forecaster.name):
            return None
        return forecaster.look(scorer.state(), scorer.interval_s)

    def degradation(self) -> DegradationStatus:
        """How far the score is from what the bundle means."""
        health = self._active.scorer.health
        return DegradationStatus(health.level, health.failures)

    def swap(self, candidate: Candidate) -> None:
        """Put another bundle to use. It takes over the raw history first, so it is warm if this one was.

        Living through that history takes up to a second: between two ticks, not in one.
        """
        self.introduce(candidate)
        self._active = candidate

    def introduce(self, candidate: Candidate) -> None:
        """Let another bundle live through the raw history of this one, without putting it to use."""
        candidate.scorer.replay(self._active.scorer)

    def export(self) -> Mapping[str, NDArray[np.generic]]:
        """The arrays that `resume` takes, bounded in size."""
        return self._active.scorer.state()

    def fork(self) -> Fork:
        """Everything that another thread needs to score beside this one. A fraction of a millisecond."""
        scorer = self._active.scorer
        return Fork(self.info, scorer, {name: array.copy() for name, array in scorer.state().items()})

    def resume(self, state: AgentState, interval_s: float, now: float) -> str:
        """Continue from a saved state. Returns why not, or an empty string if the history is used."""
        if state.bundle_version != self.info.version:
            return f"it belongs to bundle {state.bundle_version}"
        if state.interval_s != interval_s:
            return f"it was recorded every {state.interval_s:g} s, not every {interval_s:g} s"
        if now - state.saved_at > DISCARD_S:
            return "it is more than a week old"
        if not self._active.scorer.restore(state.scorer):
            return "it does not fit the bundle"
        return ""
