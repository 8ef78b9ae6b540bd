"""The questions we ask a server with Prometheus' HTTP API."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from prometheus_api_client import PrometheusConnect

from node_anomaly_trainer.config import PrometheusConfig
from node_anomaly_trainer.sources.prometheus_http import BACKOFF_S, NO_RETRIES, Connection, not_prometheus

Series = Mapping[str, Any]
"""One element of the API's `result`: `metric` (labels) and `values` ([[unix seconds, text], ...])."""


class PrometheusApi:
    """Queries to one server. Not for use by two threads at once: each takes its own."""

    def __init__(
        self,
        config: PrometheusConfig,
        backoff_s: float = BACKOFF_S,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.connection = Connection(config, backoff_s, sleep)
        self._client = PrometheusConnect(
            url=self.connection.url,
            headers=self.connection.headers,
            retry=NO_RETRIES,
            auth=self.connection.auth,
            session=self.connection.session,
            timeout=config.timeout,
        )

    def query_range(self, query: str, start: int, end: int, step: int) -> Sequence[Series]:
        """Series of `query` at start, start + step .. end (whole unix seconds, both ends included).

        Raises SourceError when the server cannot be made to answer.
        """
        first, last = datetime.fromtimestamp(start, UTC), datetime.fromtimestamp(end, UTC)
        return self._ask(lambda: self._client.custom_query_range(query, first, last, f"{step}s"), query)

    def query(self, query: str, at: float | None = None) -> Sequence[Series]:
        """The instant vector of `query` at unix second `at`, or at the server's now."""
        return self._ask(
            lambda: self._client.custom_query(query, params={} if at is None else {"time": at}), query
        )

    def label_values(self, label: str, match: Sequence[str], start: float, end: float) -> tuple[str, ...]:
        """Values of a label among the series that one of `match` selects between two unix seconds, sorted.

        The server answers from its index, so this is cheap over any range.
        """
        found = self.connection.get(
            f"/api/v1/label/{label}/values", {"match[]": list(match), "start": start, "end": end}
        )
        return tuple(sorted(str(value) for value in found or ()))

    def _ask(self, attempt: Callable[[], Any], query: str) -> Sequence[Series]:
        def checked() -> Sequence[Series]:
            result = attempt()
            if not isinstance(result, list) or not all(
                isinstance(series, dict) and isinstance(series.get("metric"), dict) for series in result
            ):
                raise not_prometheus("something other than query results")
            return result

        return self.connection.ask(checked, query)
