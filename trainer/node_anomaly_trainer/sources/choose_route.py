"""Which route a server allows: a fast one only where it is seen to give the numbers that it must."""

from __future__ import annotations

import re
from collections.abc import Callable

from node_anomaly_core.errors import SourceError
from node_anomaly_trainer.config import PrometheusConfig
from node_anomaly_trainer.progress import Note
from node_anomaly_trainer.settings import InvalidValueError, parse_duration
from node_anomaly_trainer.sources import export, remote_read
from node_anomaly_trainer.sources.evaluate_expression import Semantics
from node_anomaly_trainer.sources.matchers import parse_matchers
from node_anomaly_trainer.sources.prometheus_api import PrometheusApi
from node_anomaly_trainer.sources.raw_route import RawRoute
from node_anomaly_trainer.sources.route_trials import differing, same_numbers, same_samples
from node_anomaly_trainer.sources.routes import ApiRoute, Route, SplitRoute
from node_anomaly_trainer.sources.survey import Survey

OWN_RULES = "Prometheus' rules"
PROMETHEUS_RULES = Semantics(left_open=True, threshold_first=True, compensated=True)
"""Of the current major version; its open left end is also what a node's window of four ticks comes to."""


def choose_route(
    open_api: Callable[[], PrometheusApi], config: PrometheusConfig, survey: Survey, step: int, note: Note
) -> Route:
    """The route to read `survey.wanted` with, said in a note with its reason.

    With `route: auto` a fast one is tried on a short range. Remote-read must give what the server's queries
    give; whatever they disagree on is read by the API. VictoriaMetrics' queries follow other rules than
    Prometheus and a node, so there the raw samples must be the same, and features are evaluated here.
    Raises SourceError if a fast one was asked for by name and is not to be had.
    """
    api = ApiRoute(open_api, config.matchers, config.points_per_query)
    if config.route == "api":
        note("route: api, as configured")
        return api
    trials: dict[str, Callable[[], Trial]] = {
        "remote_read": lambda: _remote_read(open_api, config, survey, step, api),
        "export": lambda: _export(open_api, config, survey, step),
    }
    refused = []
    for name, on_trial in trials.items():
        if config.route not in ("auto", name):
            continue
        try:
            fast, by_api, why = on_trial()
        except (SourceError, ValueError) as error:
            if config.route == name:
                raise SourceError(
                    f"{config.url} cannot be read by {name.replace('_', '-')}: {error}",
                    "set source.prometheus.route: auto or api",
                ) from error
            refused.append(error)
            continue
        if by_api >= {one.feature.name for one in survey.wanted}:
            note("route: api; the server's raw samples do not give what its queries give")
            return api
        if by_api:
            shown = ", ".join(sorted(by_api)[:5]) + (", ..." if len(by_api) > 5 else "")
            note(f"route: {name}, but api for {len(by_api)} features: {shown}")
            return SplitRoute(fast, api, frozenset(by_api))
        note(f"route: {name}; {why}")
        return fast
    note(f"route: api; remote-read is not to be had ({refused[0]}), nor is export ({refused[1]})")
    return api


Trial = tuple[RawRoute, set[str], str]
"""A route, the features that it must not read, and why it is to be trusted with the others."""


def _remote_read(
    open_api: Callable[[], PrometheusApi], config: PrometheusConfig, survey: Survey, step: int, api: Route
) -> Trial:
    fast = RawRoute(
        "remote_read",
        remote_read.read_raw,
        open_api,
        parse_matchers(config.matchers),
        _semantics(open_api()),
        survey.series_per_instance,
    )
    by_api = differing(survey, step, same_numbers(fast, api))
    return fast, by_api, "it gave the same numbers as api on a short range"


def _export(
    open_api: Callable[[], PrometheusApi], config: PrometheusConfig, survey: Survey, step: int
) -> Trial:
    if not export.is_offered(open_api().connection):
        raise ValueError("only VictoriaMetrics has it")
    fast = RawRoute(
        "export",
        export.read_raw,
        open_api,
        parse_matchers(config.matchers),
        PROMETHEUS_RULES,
        survey.series_per_instance,
        rules=OWN_RULES,
    )
    by_api = differing(survey, step, same_samples(fast, open_api()))
    why = f"it gave api's raw samples on a short range; rates follow {OWN_RULES}, as on the nodes"
    return fast, by_api, why


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
