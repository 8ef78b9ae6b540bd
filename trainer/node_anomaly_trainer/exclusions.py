"""When nodes were not themselves, as Prometheus' history tells: firing alerts, reboots, cordons.

All are queries with few results (only what was the case), read on a grid of about a minute, in pieces below
the server's limit of points.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.errors import SourceError
from node_anomaly_trainer.config import ExclusionConfig
from node_anomaly_trainer.dataset import History
from node_anomaly_trainer.few import few
from node_anomaly_trainer.node_names import NodeNames, host_of
from node_anomaly_trainer.progress import Note
from node_anomaly_trainer.sources.prometheus_api import PrometheusApi, Series

RESOLUTION_S = 60
POINTS_PER_QUERY = 10_000
PRESENCE_POINTS = 100
STANDING_SHARE = 0.5
MOST_NAMED = 8

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False, slots=True)
class Found:
    """What one kind of query marked: `mask` (t, m), and node-hours by `label`'s value (an alert's name)."""

    mask: Mask
    hours: Mapping[str, float]


class ServerHistory:
    """Asks one server about the range and the nodes of one history."""

    def __init__(self, api: PrometheusApi, history: History, matchers: str, note: Note) -> None:
        """`matchers` choose the nodes, as in every query of a feature. Raises SourceError."""
        self._api, self._history, self._matchers, self._note = api, history, matchers, note
        self._start = round(float(history.timestamps[0]))
        self._interval = round(history.interval_s)
        self._width = max(1, RESOLUTION_S // self._interval)
        self._step = self._width * self._interval
        self.names = NodeNames(history.nodes, self._nodenames())

    def firing(self, config: ExclusionConfig) -> Found:
        """Where an alert was firing for a node; alerts of no node are told, and mark nothing."""
        labels = ", ".join(("alertname", *config.node_labels))
        alerts = selector("ALERTS", 'alertstate="firing"', config.alert_matchers)
        found = self._marked(f"max by ({labels}) ({alerts})", config.node_labels, "alertname", "alert")
        if not found.hours and not self._present("ALERTS"):
            self._note("exclusions: the server has no ALERTS in this range: no alert marks anything")
        for alert, share in self._standing(found.hours):
            self._note(
                f"exclusions: {alert} fired for {share:.0%} of all node-hours, which are lost to training: "
                f"leave it out with exclusions.alert_matchers if it is no incident"
            )
        return found

    def rebooted(self, minutes_s: float) -> Found:
        """Where a node had been up for less than that.

        The uptime, not changes(): that sees no reboot of a node that was away for longer than its window,
        and takes a clock that is set for a reboot.
        """
        boot = selector("node_boot_time_seconds", self._matchers)
        found = self._marked(f"max by (instance) (time() - {boot} < {minutes_s:g})", ("instance",))
        if not found.mask.any() and not self._present(boot):
            self._note("exclusions: the server has no node_boot_time_seconds: reboots are not known")
        return found

    def cordoned(self) -> Found:
        """Where Kubernetes would have scheduled nothing on a node."""
        cordon = "kube_node_spec_unschedulable"
        found = self._marked(f"max by (node) ({cordon} == 1)", ("node",), "node", "cordoned node")
        if not found.mask.any() and not self._present(cordon):
            self._note("exclusions: the server has no kube_node_spec_unschedulable: cordons are not known")
        return found

    def _marked(self, query: str, keys: Sequence[str], label: str = "", what: str = "") -> Found:
        mask = np.zeros((self._history.ticks, len(self._history.nodes)), dtype=bool)
        hours: dict[str, float] = {}
        strangers: dict[str, str] = {}
        for first, last in self._pieces():
            for series in self._api.query_range(query, first, last, self._step):
                named = str(series["metric"].get(label, ""))
                nodes = self.names.find_labels(series["metric"], keys)
                if not nodes:
                    where = ", ".join(str(series["metric"][key]) for key in keys if series["metric"].get(key))
                    strangers.setdefault(named, where)
                    continue
                ticks = self._ticks(series, query)
                spent = len(ticks) * len(nodes) * self._history.interval_s / 3600.0
                hours[named] = hours.get(named, 0.0) + spent
                mask[ticks[:, None], list(nodes)] = True
        if strangers and what:
            self._tell_strangers(strangers, what)
        return Found(mask, dict(sorted(hours.items(), key=lambda item: -item[1])))

    def _tell_strangers(self, strangers: Mapping[str, str], what: str) -> None:
        names = [
            f"{name} ({where})" if where and where != name else name for name, where in strangers.items()
        ]
        self._note(f"exclusions: {what} of no node in the history: {few(names, MOST_NAMED)}")

    def _pieces(self) -> Iterator[tuple[int, int]]:
        """First and last second of each query; no second is asked for twice."""
        points = -(-self._history.ticks // self._width)
        for at in range(0, points, POINTS_PER_QUERY):
            last = min(at + POINTS_PER_QUERY, points) - 1
            yield self._start + at * self._step, self._start + last * self._step

    def _ticks(self, series: Series, query: str) -> NDArray[np.intp]:
        """The ticks that the points of one series stand for: each its own and those up to the next."""
        try:
            times = np.array([float(pair[0]) for pair in series["values"]])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise SourceError(
                f"{query}: the server's samples cannot be read ({error})", "is this Prometheus' HTTP API?"
            ) from error
        first = np.rint((times - self._start) / self._interval).astype(np.intp)
        ticks = (first[:, None] + np.arange(self._width)).ravel()
        return ticks[(ticks >= 0) & (ticks < self._history.ticks)]

    def _present(self, selector: str) -> bool:
        return bool(self._coarse(f"count({selector})"))

    def _nodenames(self) -> Iterator[tuple[str, str]]:
        """Host names of the instances, by which Kubernetes and people call them."""
        uname = selector("node_uname_info", self._matchers)
        for series in self._coarse(f"max by (instance, nodename) ({uname})"):
            instance, name = (str(series["metric"].get(label, "")) for label in ("instance", "nodename"))
            yield instance, name
            yield name, instance  # a node that goes by its host's name is known by its address, too
            yield name, host_of(instance)

    def _coarse(self, query: str) -> Sequence[Series]:
        """A few points over the whole range: enough to know what was there at all."""
        end = self._start + (self._history.ticks - 1) * self._interval
        step = max(self._step, (end - self._start) // PRESENCE_POINTS)
        return self._api.query_range(query, self._start, end, step)

    def _standing(self, hours: Mapping[str, float]) -> Iterator[tuple[str, float]]:
        """Alerts that fire most of the time: a state of the fleet rather than an incident."""
        whole = self._history.duration_s * len(self._history.nodes) / 3600.0
        yield from ((name, spent / whole) for name, spent in hours.items() if spent > STANDING_SHARE * whole)


def selector(metric: str, *matchers: str) -> str:
    """`metric{matchers}`; the matchers are label matchers as in PromQL, each of them may be empty."""
    inside = ",".join(matcher.strip().strip(",") for matcher in matchers if matcher.strip())
    return f"{metric}{{{inside}}}" if inside else metric
