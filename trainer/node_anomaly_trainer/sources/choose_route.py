"""Which route a server allows: the fast one only where it is seen to give what the query API gives."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

from node_anomaly_core.errors import SourceError
from node_anomaly_trainer.config import PrometheusConfig
from node_anomaly_trainer.progress import Note
from node_anomaly_trainer.settings import InvalidValueError, parse_duration
from node_anomaly_trainer.sources.evaluate_expression import Semantics
from node_anomaly_trainer.sources.matchers import parse_matchers
from node_anomaly_trainer.sources.prometheus_api import PrometheusApi
from node_anomaly_trainer.sources.routes import ApiRoute, RemoteReadRoute, Route, SplitRoute, readable_raw
from node_anomaly_trainer.sources.survey import Survey
from node_anomaly_trainer.sources.wanted import Span, Wanted, iso

TRIED_TICKS = 12
TRIED_INSTANCES = (3, 12, 48)
"""More are taken where the fewer ones have nothing to compare: nodes that are gone, for example."""
TOLERANCE = 1e-12
"""Relative: what rounding in another order may do."""


def choose_route(
    open_api: Callable[[], PrometheusApi], config: PrometheusConfig, survey: Survey, step: int, note: Note
) -> Route:
    """The route to read `survey.wanted` with, said in a note.

    With `route: auto` both are asked for the same short range; whatever they disagree on is read by the API.
    Raises SourceError if `route: remote_read` was asked for and the server has none.
    """
    api = ApiRoute(open_api, config.matchers, config.points_per_query)
    if config.route == "api":
        note("route: api, as configured")
        return api
    try:
        fast, differing = _tried(open_api(), open_api, config, survey, step, api)
    except (SourceError, ValueError) as error:
        if config.route == "remote_read":
            raise SourceError(
                f"{config.url} cannot be read by remote-read: {error}",
                "set source.prometheus.route: auto or api",
            ) from error
        note(f"route: api; remote-read is not to be had ({error})")
        return api
    if len(differing) == len(survey.wanted):
        note("route: api; the server's raw samples do not give what its queries give")
        return api
    if differing:
        shown = ", ".join(sorted(differing)[:5]) + (", ..." if len(differing) > 5 else "")
        note(f"route: remote_read, but api for {len(differing)} features: {shown}")
        return SplitRoute(fast, api, differing)
    note("route: remote_read; it gave the same numbers as api on a short range")
    return fast


def _tried(
    api: PrometheusApi,
    open_api: Callable[[], PrometheusApi],
    config: PrometheusConfig,
    survey: Survey,
    step: int,
    reference: ApiRoute,
) -> tuple[RemoteReadRoute, frozenset[str]]:
    """The fast route, and the features that it must not read."""
    matchers = parse_matchers(config.matchers)
    fast = RemoteReadRoute(open_api, matchers, _semantics(api), survey.series_per_instance)
    raw = [one for one in survey.wanted if readable_raw(one)]
    differing = {one.feature.name for one in survey.wanted} - {one.feature.name for one in raw}
    for source in dict.fromkeys(one.source for one in raw):
        end = survey.seen_at[source] // step * step
        span = Span(end - (TRIED_TICKS - 1) * step, step, TRIED_TICKS)
        chosen = [one for one in raw if one.source == source]
        instances = [found[source] for found in survey.instances.values() if source in found]
        for number in TRIED_INSTANCES:
            last = len(instances) - 1
            some = sorted({instances[at * last // (number - 1)] for at in range(number)})
            unlike, compared = _disagreeing(fast, reference, chosen, span, some)
            if compared:
                break
        else:
            raise ValueError(f"no samples of {source} to try it on around {iso(span.end)}")
        differing |= unlike
    return fast, frozenset(differing)


def _disagreeing(
    fast: Route, reference: Route, wanted: Sequence[Wanted], span: Span, instances: Sequence[str]
) -> tuple[set[str], int]:
    """The features that differ between the two, and how many numbers were compared."""
    missing = np.full(span.ticks, np.nan)
    found = {}
    for route in (fast, reference):
        for task in route.tasks(wanted, span, instances):
            for one, column in zip(task.wanted, route.read(task).columns, strict=True):
                values = [column.get(instance, missing) for instance in instances]
                found[route.name, one.feature.name] = np.array(values)
    compared = 0
    unlike = set()
    for name in (one.feature.name for one in wanted):
        ours, theirs = found[fast.name, name], found[reference.name, name]
        compared += int(np.count_nonzero(~np.isnan(theirs)))
        if not np.allclose(ours, theirs, rtol=TOLERANCE, atol=0.0, equal_nan=True):
            unlike.add(name)
    return unlike, compared


def _semantics(api: PrometheusApi) -> Semantics:
    """How this server evaluates: its version and flags, and one question that shows which ends it counts."""
    version = (0, 0)
    lookback_s = 300.0
    try:
        build = api.connection.get("/api/v1/status/buildinfo", {})
        flags = api.connection.get("/api/v1/status/flags", {})
    except SourceError as error:
        raise ValueError("it does not tell its look-back, as Prometheus itself would") from error
    if found := re.match(r"(\d+)\.(\d+)", str(build.get("version", ""))):
        version = int(found[1]), int(found[2])
    try:
        lookback_s = parse_duration(str(flags.get("query.lookback-delta", "5m")))
    except InvalidValueError as invalid:
        raise ValueError(f"its look-back is not {invalid.expected}") from invalid
    # Two points a minute apart: both lie within a closed minute, one within a half-open one.
    (counted,) = api.query("count_over_time(vector(1)[1m:1m])", at=1_600_000_020.0) or [{"value": [0, "2"]}]
    return Semantics(
        lookback_ms=round(1000 * lookback_s),
        left_open=float(counted["value"][1]) < 2.0,
        threshold_first=version >= (2, 51),
        compensated=version >= (3, 0),
    )
