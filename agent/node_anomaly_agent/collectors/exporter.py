"""A local exporter's /metrics as a collector: fetched once a tick, whatever is wanted of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from node_anomaly_agent.collectors.http_get import Fetch
from node_anomaly_agent.collectors.prom_text import TextReader, Want
from node_anomaly_core.errors import SourceError
from node_anomaly_core.expressions import Reading


class Finish(Protocol):
    """Changes what was read before it is handed on, and goes on where it was after a restart."""

    def __call__(self, reading: Reading) -> None:
        """Change it in place."""

    def state(self) -> Mapping[str, object]:
        """Plain JSON values."""

    def restore(self, state: Mapping[str, object]) -> bool:
        """Take it over again; False if it is of no use."""


class ExporterCollector:
    """Fetches and reads one exporter; `finish` may change what was read."""

    def __init__(
        self,
        name: str,
        fetch: Fetch,
        wants: Mapping[str, Sequence[Want]],
        finish: Finish | None = None,
    ) -> None:
        self.name = name
        self._fetch = fetch
        self._reader = TextReader(wants)
        self._finish = finish

    def read(self) -> Reading:
        """The wanted series. SourceError if the exporter did not answer, or not in the text format."""
        data = self._fetch()
        try:
            reading = self._reader.read(data)
        except ValueError as error:
            raise SourceError(
                f"{self.name}: {error}", "is this an exporter's /metrics in the text format?"
            ) from error
        if self._finish is not None:
            self._finish(reading)
        return reading

    def state(self) -> Mapping[str, object]:
        """What finishing goes on from."""
        return {} if self._finish is None else self._finish.state()

    def restore(self, state: Mapping[str, object]) -> bool:
        """Take it over again; False if it is of no use."""
        return self._finish is None or self._finish.restore(state)

    def close(self) -> None:
        """Nothing is held open between two ticks."""
