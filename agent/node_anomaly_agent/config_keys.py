"""The table of the agent's settings: every key's path, default, parser and meaning.

A group of settings with a file of its own (`config_<group>.py`) adds its rows to KEYS here.
"""

from __future__ import annotations

from pathlib import Path

from node_anomaly_agent import config_budget, config_distribution, config_episodes, config_logs, config_web
from node_anomaly_agent.config_values import (
    Address,
    Setting,
    absolute_path,
    between,
    exporter_url,
    flag_path,
    one_of,
    parse_address,
    plain_name,
    telemetry_path,
)

KEYS: tuple[Setting, ...] = (
    Setting("interval", between(0.1, 3600), 15.0, "time between two evaluations", "DURATION"),
    Setting(
        "web.listen-address",
        parse_address,
        Address("", 9917),
        "address to expose metrics and the status page on",
        "[HOST]:PORT",
    ),
    Setting(
        "web.systemd-socket",
        config_logs.maybe,
        None,
        "serve on the listening socket that systemd passes (default: if it passes one)",
    ),
    Setting("web.telemetry-path", telemetry_path, "/metrics", "path of the metrics", "PATH"),
    Setting("path.procfs", absolute_path, Path("/proc"), "procfs mountpoint", "DIR"),
    Setting("path.sysfs", absolute_path, Path("/sys"), "sysfs mountpoint", "DIR"),
    Setting("path.rootfs", absolute_path, Path("/"), "mountpoint of the host's root file system", "DIR"),
    Setting("log.level", one_of("debug", "info", "warning", "error"), "info", "least severe line", "LEVEL"),
    Setting(
        "log.format",
        one_of("auto", "json", "console"),
        "auto",
        "form of log lines: json, console, or auto (console on a terminal)",
        "FORMAT",
    ),
    Setting(
        "state.directory",
        flag_path,
        None,
        "where baselines survive a restart (default: $STATE_DIRECTORY, /var/lib/node-anomaly or "
        "$XDG_STATE_HOME/node-anomaly, the first that is writable)",
        "DIR",
    ),
    Setting(
        "bundle.directory",
        flag_path,
        None,
        "watched directory that published bundles arrive in (default: bundles in the state directory)",
        "DIR",
    ),
    Setting(
        "bundle.poll-interval",
        between(1, 86400),
        30.0,
        "how often the directory is looked at besides being watched",
        "DURATION",
    ),
    *config_web.ROWS,
    *config_distribution.ROWS,
    *config_logs.ROWS,
    *config_episodes.ROWS,
    *config_budget.ROWS,
    Setting(
        "node.name",
        plain_name,
        "",
        "the node's name in the training history (default: $NODE_NAME or the host name)",
        "NAME",
    ),
    Setting(
        "source",
        one_of("proc", "node_exporter"),
        "proc",
        "where the host is read from: proc (/proc and /sys), or node_exporter (a local exporter's metrics)",
        "SOURCE",
    ),
    Setting(
        "node-exporter.url",
        exporter_url,
        "http://127.0.0.1:9100/metrics",
        "metrics of the local node_exporter, for source node_exporter and for own features",
        "URL",
    ),
    Setting(
        "features.file",
        flag_path,
        None,
        "YAML file of own features, shared with the trainer (see docs/own-features.md)",
        "FILE",
    ),
)
