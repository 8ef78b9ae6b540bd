"""The catalogue's readings from a local node_exporter instead of /proc and /sys.

Its series have more labels than a reading keeps. The rest is reduced as the collectors of /proc do it:
matchers on labels that are not kept are applied here, CPUs are summed to modes and counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeGuard

from node_anomaly_agent.collectors.cpu import MAX_SECONDS
from node_anomaly_agent.collectors.prom_text import MAX_SERIES, Want
from node_anomaly_core.catalogue import METRIC_LABEL, Feature
from node_anomaly_core.expressions import Reading, Selector, SeriesKey

NAME = "node_exporter"
OWN_PREFIX = "anomaly_agent_"
"""Of metrics that the agent counts itself, from logs; no exporter has them."""

_CPU = "node_cpu_seconds_total"
_CPU_COUNT: SeriesKey = (f"{_CPU}:count", "")
_HWMON = "node_hwmon_temp_celsius"
_SEPARATOR = "\0"


def node_exporter_wants(features: Sequence[Feature]) -> dict[str, list[Want]]:
    """What the features' expressions read, by metric."""
    leaves: dict[str, list[Selector]] = {}
    for feature in features:
        for leaf in feature.expression.leaves() if feature.expression else ():
            if not leaf.metric.startswith(OWN_PREFIX):
                leaves.setdefault(leaf.metric.removesuffix(":count"), []).append(leaf)
    wants = {metric: [_want(metric, of_metric)] for metric, of_metric in leaves.items()}
    if _CPU in wants:
        wants[_CPU] = [_of_cpu]
    if _HWMON in wants:
        wants[_HWMON] = [_of_sensor]
    return wants


def _want(metric: str, leaves: Sequence[Selector]) -> Want:
    """A series is wanted if a selector takes it with all of its labels, kept or not."""
    kept = METRIC_LABEL[metric]

    def key(labels: Mapping[str, str]) -> SeriesKey | None:
        for leaf in leaves:
            if all(match.holds(labels.get(match.label, "")) for match in leaf.where):
                return metric, labels.get(kept, "") if kept else ""
        return None

    return key


def _of_cpu(labels: Mapping[str, str]) -> SeriesKey | None:
    return _CPU, f"{labels.get('mode', '')}{_SEPARATOR}{labels.get('cpu', '')}"


def _of_sensor(labels: Mapping[str, str]) -> SeriesKey | None:
    """A chip has several sensors: each stays by itself, the feature takes the hottest of them all."""
    return _HWMON, f"{labels.get('chip', '')}/{labels.get('sensor', '')}"


class CpuFold:
    """Sums CPUs to modes so that a sum never goes back and never jumps.

    PromQL takes the rate of each CPU before it sums, so a CPU that comes or goes changes nothing else. Here
    the sums exist before the rate: each grows by what its CPUs have grown, a CPU that is new or has gone
    counts nothing in that tick, nor does a counter that goes back.
    """

    def __init__(self) -> None:
        self._last: dict[str, float] = {}
        self._totals: dict[str, float] = {}

    def __call__(self, reading: Reading) -> None:
        """Replace the CPUs' series by one for each mode, and their number."""
        now = {label: reading.pop((metric, label)) for metric, label in list(reading) if metric == _CPU}
        if not now:
            return
        grown: dict[str, float] = {}
        for label, value in now.items():
            mode = label.partition(_SEPARATOR)[0]
            known = self._last.get(label, None if self._last else 0.0)
            more = 0.0 if known is None else max(value - known, 0.0)
            grown[mode] = grown.get(mode, 0.0) + more
        self._last = now
        self._totals = {mode: self._totals.get(mode, 0.0) + more for mode, more in grown.items()}
        for mode, total in self._totals.items():
            reading[_CPU, mode] = total
        reading[_CPU_COUNT] = float(sum(label.startswith(f"idle{_SEPARATOR}") for label in now))

    def state(self) -> dict[str, dict[str, float]]:
        """Each CPU's latest counters and the sums so far: saved windows hold the sums."""
        return {"last": dict(self._last), "totals": dict(self._totals)}

    def restore(self, state: Mapping[str, object]) -> bool:
        """Take it over again; False if it is none."""
        last, totals = state.get("last"), state.get("totals")
        if not _is_counters(last) or not _is_counters(totals):
            return False
        self._last, self._totals = dict(last), dict(totals)
        return True


def _is_counters(value: object) -> TypeGuard[dict[str, float]]:
    return (
        isinstance(value, dict)
        and len(value) <= MAX_SERIES
        and all(isinstance(number, float | int) and 0 <= number < MAX_SECONDS for number in value.values())
    )
