"""Who must agree before a rare alarm is raised.

Where a budget allows less than one alarm in two days, most of the false ones are a single kind of model that
cries out: rare for a forest, but just what the forecaster expected, or the other way round. So a manifest may
name witnesses: groups of members of which one must itself bring a share of the evidence that all together
bring. What goes beyond that counts for nothing where an alarm is decided; the score still shows all of it,
below 1 (docs/adr/0031).

A witness that does not know says nothing against an alarm, and neither does one that is left out of a node's
scoring. Errors in logs are heard by one member alone (docs/adr/0028), so it is a witness in every group.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.log_errors import LOG_ERRORS

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Witness:
    """Members of which one must bring a share of the combined evidence for all of it to count."""

    models: tuple[str, ...]
    share: float
    """Above 0; 1 = as much as all together."""

    @property
    def names(self) -> str:
        """For people: `lstm`, `one of kmeans, lstm`."""
        return f"one of {', '.join(self.models)}" if len(self.models) > 1 else self.models[0]


def in_words(witnesses: Sequence[Witness]) -> str:
    """Who must agree before an alarm is raised; empty if nobody must.

    >>> in_words([Witness(("lstm",), 0.9), Witness(("kmeans", "lstm"), 0.7)])
    'lstm (90 %) and one of kmeans, lstm (70 %)'
    """
    return " and ".join(f"{witness.names} ({100 * witness.share:.0f} %)" for witness in witnesses)


def witnessed(combined: Array, evidence: Mapping[str, Array], witnesses: Sequence[Witness]) -> Array:
    """What of the combined evidence (...) counts for an alarm, from each member's own (...).

    NaN stays NaN; a group of which somebody does not know bounds nothing.
    """
    counts, logs = combined, evidence.get(LOG_ERRORS)
    for witness in witnesses:
        most = np.maximum.reduce([evidence[name] for name in witness.models])
        if logs is not None:
            most = np.where(np.isnan(most), most, np.fmax(most, logs))
        counts = np.where(np.isnan(most), counts, np.minimum(counts, most / witness.share))
    return counts


def witnessed_one(combined: float, evidence: Mapping[str, float], witnesses: Sequence[Witness]) -> float:
    """The same for one tick of one node, to the bit."""
    counts, logs = combined, evidence.get(LOG_ERRORS, math.nan)
    for witness in witnesses:
        brought = [evidence[name] for name in witness.models]
        if any(map(math.isnan, brought)):
            continue
        if not math.isnan(logs):
            brought.append(logs)
        counts = min(counts, max(brought) / witness.share)  # NaN is the first, and stays
    return counts
