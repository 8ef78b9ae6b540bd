"""Feature by feature: what the agent said against what Prometheus says, instant by instant."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass

from agreement.stage import AGENT, MATCHERS, Series, Stage, at_steps, printed_queries, raw
from node_anomaly_core.catalogue import CATALOGUE, FEATURES_BY_NAME, Feature

WINDOW_TICKS = 4
"""A rate spans so many intervals."""


@dataclass(frozen=True)
class Agreement:
    """How one feature compares. Differences are relative; NaN when nothing could be compared.

    Attributes:
        instants: where both ends have a value.
        one_sided: where only one of them has.
        typical: the median of what Prometheus says, in the feature's unit.
        median, p95: of |a - b| / max(|a|, |b|, the feature's floor).
    """

    feature: str
    instants: int
    one_sided: int
    typical: float
    median: float
    p95: float

    @property
    def missing(self) -> bool:
        """Neither end has it on this host."""
        return not self.instants and not self.one_sided

    def complaint(self) -> str:
        """What is wrong by the catalogue's tolerance; "" if nothing is."""
        if self.one_sided:
            instants = self.instants + self.one_sided
            return f"{self.feature}: {self.one_sided} of {instants} instants at one end only"
        tolerance = FEATURES_BY_NAME[self.feature].tolerance
        if self.median > tolerance:
            return f"{self.feature}: median difference {self.median:.1%}, tolerance {tolerance:.1%}"
        return ""


def compare(
    feature: Feature, agent: Mapping[int, float], node: Mapping[int, float], instants: list[int]
) -> Agreement:
    """Compare one feature at these instants (numbers of scrapes); a value that is not there is no key."""
    both = [at for at in instants if at in agent and at in node]
    one_sided = sum((at in agent) != (at in node) for at in instants)
    differences = sorted(
        abs(agent[at] - node[at]) / max(abs(agent[at]), abs(node[at]), feature.floor) for at in both
    )
    if not differences:
        return Agreement(feature.name, 0, one_sided, math.nan, math.nan, math.nan)
    return Agreement(
        feature.name,
        len(both),
        one_sided,
        statistics.median(node[at] for at in both),
        statistics.median(differences),
        differences[math.ceil(0.95 * len(differences)) - 1],
    )


def measure(stage: Stage, since: float) -> list[Agreement]:
    """Compare the whole catalogue over every tick from `since` (unix seconds) until now."""
    interval, now = stage.interval_s, time.time()
    span = now - since + (WINDOW_TICKS + 2) * interval
    scrapes = [t for t, up in raw(stage.prometheus, f"up{{{MATCHERS}}}", span, now)[0][1].items() if up == 1]
    grid = _Grid(min(scrapes), interval)
    scraped = {at for t in scrapes if (at := grid.number(t)) is not None}
    ticks = _ticks(stage, span, now)
    whole = [
        at
        for t in set(ticks.values())
        if t >= since
        and (at := grid.number(t)) is not None
        and scraped.issuperset(range(at - WINDOW_TICKS, at + 1))
    ]
    seen = {
        labels["feature"]: {
            at: value
            for t, value in values.items()
            if t in ticks and (at := grid.number(ticks[t])) is not None
        }
        for labels, values in raw(stage.prometheus, f'anomaly_feature_value{{job="{AGENT}"}}', span, now)
    }
    queries = printed_queries(interval)
    return [
        compare(
            feature,
            seen.get(feature.name, {}),
            _history(stage, queries[feature.name], grid, whole),
            sorted(whole),
        )
        for feature in CATALOGUE
    ]


@dataclass(frozen=True)
class _Grid:
    """Prometheus scrapes a target at start + n * interval."""

    start: float
    interval: float

    def number(self, t: float) -> int | None:
        """The n of the scrape at t; None if t is not near any."""
        n = round((t - self.start) / self.interval)
        return n if abs(t - self.start - n * self.interval) < self.interval / 4 else None

    def ask_at(self, n: int) -> float:
        """The moment at which a query sees scrape n last, and jitter cannot change that."""
        return round(self.start + (n + 0.5) * self.interval, 3)


def _ticks(stage: Stage, span: float, now: float) -> Series:
    """When the agent had last looked at the host, by the scrape that says so."""
    name = f'anomaly_agent_last_evaluation_timestamp_seconds{{job="{AGENT}"}}'
    return raw(stage.prometheus, name, span, now)[0][1]


def _history(stage: Stage, promql: str, grid: _Grid, instants: list[int]) -> dict[int, float]:
    first, last = min(instants), max(instants)
    found = at_steps(stage.prometheus, promql, grid.ask_at(first), grid.ask_at(last), grid.interval)
    return {round((t - grid.ask_at(0)) / grid.interval): v for t, v in found.items() if math.isfinite(v)}
