"""The rows of the ablation: who has a say, how much, and what the result is held against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.calibration import MemberScale, combine, fit_member, fit_tail
from node_anomaly_core.log_errors import LOG_ERRORS
from node_anomaly_core.steady import peak_held
from node_anomaly_core.threshold import OPEN_S, UPDATE_S, rolling_scores, tight
from node_anomaly_core.witnesses import witnessed
from node_anomaly_trainer.calibrate import INCIDENT_SPREAD
from node_anomaly_trainer.config_models import MEMBERS
from node_anomaly_trainer.fitting import witnesses_among

FOREST, OTHERS = "random_forest", "random_forest_others"
LSTM, LSTM_FLOAT = "lstm", "lstm_float"
BASELINE = "baseline_"
"""Begins the names of detectors that are no members."""

PRODUCT = tuple(name for name in MEMBERS if name != LOG_ERRORS)  # servers that others published have no logs
TAUGHT = tuple(OTHERS if name == FOREST else name for name in PRODUCT)
HOUR_S, DAY_S = 3_600.0, 86_400.0

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Measured:
    """One entity; c ticks of the calibration part, t of the test."""

    calibration: Mapping[str, Array]
    """(c,) by member, as the trainer calibrates on it: from a replay of all of train."""
    lived: Mapping[str, Array]
    """(c + t,) by member, from a node that lived both; NaN = unknown."""
    weights: Mapping[str, float]
    """By member, those of the bundle."""
    learned: Mapping[str, float]
    """Those that trainer's weights.py makes of them from faults injected into the calibration part."""


class Evidence(NamedTuple):
    """Of consecutive ticks (t,)."""

    whole: Array
    counted: Array
    """What of it counts for an alarm."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One row of the table: who has a say, how much, and what the result is held against."""

    title: str
    members: tuple[str, ...]
    weights: str = "product"
    """Or "equal", or "learned" (of trainer's weights.py)."""
    high: float = 0.95
    """The quantile on normal data that is 1 in units of a member."""
    rolling: bool = True
    window_s: float | None = None
    open_s: float = OPEN_S
    update_s: float = UPDATE_S
    most_rise: float | None = None
    held: bool = True
    """Whether the threshold is asked about the largest evidence of the last three ticks."""
    witnesses: bool | None = None
    """Whether an alarm needs the members that trainer's fitting.py names; None = under a tight budget."""


def alone(name: str, title: str) -> Variant:
    """One member or detector."""
    return Variant(title, (name,))


def variants() -> Mapping[str, tuple[Variant, ...]]:
    """Every row, by what it is about."""
    product = Variant("the product", PRODUCT)
    taught = Variant("the product, labels of other servers", TAUGHT)
    forest, lstm = alone("isolation_forest", "Isolation Forest, normalised summary"), alone("lstm", "LSTM")
    plain = alone(BASELINE + "isolation_forest", "plain Isolation Forest on z-scores")
    pca, windows = (
        alone(BASELINE + "pca", "PCA residual"),
        alone(BASELINE + "kmeans", "windowed k-means of the gate"),
    )
    three = Variant("IF + LSTM + k-means", ("isolation_forest", "lstm", "kmeans"))
    in_float = tuple(LSTM_FLOAT if name == LSTM else name for name in PRODUCT)
    return {
        "alone": (
            plain,
            pca,
            windows,
            forest,
            alone("isolation_forest_absolute", "Isolation Forest, summary as it is"),
            alone(FOREST, "Random Forest, injected faults"),
            alone(OTHERS, "Random Forest, labels of other servers"),
            lstm,
            alone("kmeans", "k-means"),
            alone("autoregression", "autoregression"),
        ),
        "together": (
            Variant("IF + LSTM", ("isolation_forest", "lstm")),
            three,
            product,
            taught,
            *(
                Variant(f"the product without {name}", tuple(each for each in PRODUCT if each != name))
                for name in PRODUCT
            ),
        ),
        "weights and scale": (
            replace(product, title="the product, equal weights", weights="equal"),
            replace(taught, title="labels of other servers, equal weights", weights="equal"),
            replace(product, title="the product, weights learned from faults", weights="learned"),
            replace(product, title="the product, members scaled at 99 %", high=0.99),
            replace(taught, title="labels of other servers, members scaled at 99 %", high=0.99),
        ),
        "held peaks": tuple(
            replace(each, title=f"{each.title}, peaks not held", held=False)
            for each in (product, pca, windows)
        ),
        "int8": (
            alone(LSTM_FLOAT, "LSTM in float32"),
            replace(product, title="the product, LSTM in float32", members=in_float),
        ),
        "threshold fixed at training": tuple(
            replace(each, rolling=False)
            for each in (plain, pca, windows, forest, lstm, three, product, taught)
        ),
        "rolling threshold, as shipped 48 hours with an open episode spared for 6": tuple(
            replace(product, title=f"the product, {24 * days} hours", window_s=days * DAY_S)
            for days in (1, 3, 4)
        )
        + tuple(
            replace(product, title=f"the product, episodes count {rise} times the threshold", most_rise=rise)
            for rise in (1.15, 1.6)
        )
        + (replace(product, title="the product, episodes count in full", most_rise=float("inf")),)
        + tuple(
            replace(
                product, title=f"the product, an open episode spared for {hours} hours", open_s=hours * HOUR_S
            )
            for hours in (0, 24)
        )
        + (replace(product, title="the product, set anew every three hours", update_s=3 * HOUR_S),),
        "witnesses, as shipped for one a week": tuple(
            replace(each, title=f"{each.title}, {words}", witnesses=asked)
            for words, asked in (("without witnesses", False), ("with witnesses", True))
            for each in (product, taught)
        ),
    }


def scale_of(name: str, scores: Array, high: float) -> MemberScale:
    """As calibration fits it, or at a quantile further out; that of real incidents is the same everywhere."""
    scale = fit_member(scores)
    if name == OTHERS:
        return replace(scale, high=scale.median + INCIDENT_SPREAD)
    return replace(scale, high=max(scale.high, float(np.nanquantile(scores, high))))


def evidence_of(measured: Measured, variant: Variant) -> tuple[Evidence, Evidence]:
    """Of the calibration part (c,), and of a node that lived it and the test (c + t,)."""
    raw = [
        {name: scores[name] for name in variant.members} for scores in (measured.calibration, measured.lived)
    ]
    if variant.members[0].startswith(BASELINE):  # as trainer's bench holds it against its threshold
        made = [Evidence(scores[variant.members[0]], scores[variant.members[0]]) for scores in raw]
    else:
        scales = {name: scale_of(name, raw[0][name], variant.high) for name in variant.members}
        weights = [weight_of(measured, variant, name) for name in variant.members]
        made = []
        for scores in raw:
            own = {
                LSTM if name == LSTM_FLOAT else name: scale.evidence(scores[name])
                for name, scale in scales.items()
            }
            whole = combine(list(own.values()), weights)
            made.append(Evidence(whole, witnessed(whole, own, witnesses_among(tuple(own)))))
    calibration, lived = (
        Evidence(peak_held(one.whole), peak_held(one.counted)) if variant.held else one for one in made
    )
    return calibration, lived


def weight_of(measured: Measured, variant: Variant, name: str) -> float:
    """Of a member in a variant."""
    if variant.weights == "equal":
        return 1.0
    known = measured.learned if variant.weights == "learned" else measured.weights
    return known[LSTM if name == LSTM_FLOAT else name]


def scores_of(measured: Measured, variant: Variant, interval_s: float, per_week: float) -> Array:
    """Scores (t,) of the test's ticks, 1.0 = alarm, for a budget of false alarms per node-week."""
    calibration, lived = evidence_of(measured, variant)
    if not (tight(per_week) if variant.witnesses is None else variant.witnesses):
        calibration, lived = (Evidence(one.whole, one.whole) for one in (calibration, lived))
    tail = fit_tail([calibration.whole], interval_s, per_week)
    begin = len(calibration.whole)
    if not variant.rolling:
        return tail.score(lived.counted[begin:])
    scores = rolling_scores(
        tail,
        lived.counted,
        per_week,
        interval_s,
        window_s=variant.window_s,
        open_s=variant.open_s,
        update_s=variant.update_s,
        most_rise=variant.most_rise,
        whole=lived.whole,
    )
    return scores[begin:]
