"""Settings of the `web` group besides the address: who may ask for what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from node_anomaly_agent.config_values import Setting, switch


@dataclass(frozen=True, slots=True)
class WebConfig:
    """How the pages are guarded."""

    enable_lifecycle: bool = False

    @classmethod
    def of(cls, parsed: Mapping[str, Any]) -> WebConfig:
        """From the parsed values of all settings."""
        return cls(enable_lifecycle=parsed["web.enable-lifecycle"])


ROWS: tuple[Setting, ...] = (
    Setting(
        "web.enable-lifecycle",
        switch,
        False,
        "let POST /-/reload have the agent look for a bundle (default: off)",
        metavar="",
    ),
)


def describe_web(config: WebConfig) -> list[tuple[str, object]]:
    """Rows for check-config."""
    return [("web.enable-lifecycle", "on" if config.enable_lifecycle else "off")]
