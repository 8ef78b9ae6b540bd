"""Settings of the `web` group besides the address: who may ask for what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node_anomaly_agent.config_values import Setting, flag_path, switch


@dataclass(frozen=True, slots=True)
class WebConfig:
    """How the pages are guarded."""

    enable_lifecycle: bool = False
    config_file: Path | None = None

    @classmethod
    def of(cls, parsed: Mapping[str, Any]) -> WebConfig:
        """From the parsed values of all settings."""
        return cls(parsed["web.enable-lifecycle"], parsed["web.config.file"])


ROWS: tuple[Setting, ...] = (
    Setting(
        "web.enable-lifecycle",
        switch,
        False,
        "let POST /-/reload have the agent look for a bundle (default: off)",
        metavar="",
    ),
    Setting(
        "web.config.file",
        flag_path,
        None,
        "YAML file of TLS, users and headers, in the format of every Prometheus exporter",
        "FILE",
    ),
)


def describe_web(config: WebConfig) -> list[tuple[str, object]]:
    """Rows for check-config. Raises ConfigError if the file of TLS and users is wrong."""
    rows: list[tuple[str, object]] = [("web.enable-lifecycle", "on" if config.enable_lifecycle else "off")]
    if config.config_file is not None:
        from node_anomaly_agent.web_guard import load_in_force

        found = load_in_force(config.config_file)
        tls = "plain HTTP" if found.tls is None else "TLS"
        rows.append(("web.config.file", f"{config.config_file}: {tls}, {len(found.settings.users)} users"))
    return rows
