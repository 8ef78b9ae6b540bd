"""What a scrape shows of the file of TLS and users."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from node_anomaly_agent.families import Family, plain_counter, plain_gauge


@dataclass(frozen=True, slots=True)
class WebStatus:
    """What a scrape shows of the file; nothing where there is none."""

    configured: bool = False
    successful: bool = True
    failures: int = 0


def web_families(status: WebStatus) -> Iterator[Family]:
    """The metrics of the file; none where there is none."""
    if not status.configured:
        return
    yield plain_gauge(
        "anomaly_agent_web_config_last_reload_successful",
        "Whether the web config file is in force as it is now; 0 means that its last good version is.",
        status.successful,
    )
    yield plain_counter(
        "anomaly_agent_web_config_reload_failures",
        "Versions of the web config file, or of a file that it names, that were refused.",
        status.failures,
    )
