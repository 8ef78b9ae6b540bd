"""Puts the agent together from its settings: the only place that knows every part."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Mapping, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING

from node_anomaly_agent.activation import listens_elsewhere, take_listener
from node_anomaly_agent.clock import SystemClock
from node_anomaly_agent.collectors import COLLECTORS, Collector, build_collectors
from node_anomaly_agent.collectors.paths import Paths
from node_anomaly_agent.config import AgentConfig
from node_anomaly_agent.daemon import Daemon, handle_signals
from node_anomaly_agent.degradation import Budget
from node_anomaly_agent.distribution_assembly import build_distribution
from node_anomaly_agent.endpoints import Sources, endpoints
from node_anomaly_agent.episode_processes import top_processes
from node_anomaly_agent.episode_store import EPISODES, EpisodeStore
from node_anomaly_agent.episodes import Episodes
from node_anomaly_agent.log_setup import Log, configure_logging
from node_anomaly_agent.logs.status import LogStatus
from node_anomaly_agent.loop_parts import Parts
from node_anomaly_agent.memory import map_large_blocks, trim
from node_anomaly_agent.predict import Predictor
from node_anomaly_agent.process_stats import ProcessReader
from node_anomaly_agent.reload import Reloader
from node_anomaly_agent.sampler import Sampler
from node_anomaly_agent.scorer import Candidate, load_candidate
from node_anomaly_agent.service_manager import ServiceManager
from node_anomaly_agent.site import Site
from node_anomaly_agent.state import (
    SYSTEM_DIRECTORY,
    is_read_only,
    state_directories,
    writable_directory,
)
from node_anomaly_agent.state_keeper import StateKeeper
from node_anomaly_agent.suppression import Suppression
from node_anomaly_agent.web import Application
from node_anomaly_agent.web_guard import WebGuard
from node_anomaly_agent.web_server import WebServer
from node_anomaly_agent.web_status import WebStatus
from node_anomaly_core.bundle import Bundle, starter_bundle
from node_anomaly_core.errors import ConfigError

if TYPE_CHECKING:
    from node_anomaly_agent.logs.meter import LogMeter

BUNDLES = "bundles"

SWITCH_S = 0.001
"""How long a thread may keep the interpreter while others wait. The default of 5 ms lets whatever computes
beside a tick (a bundle's verification, a prediction, scrapes) triple the tick's time."""


def collector_switches() -> Mapping[str, bool]:
    """Every collector's name and whether it is on by default."""
    return {name: spec.default_enabled for name, spec in COLLECTORS.items()}


def build_logs(config: AgentConfig, log: Log | None = None) -> LogMeter | None:
    """The meter of this host's logs, None if none are to be read."""
    if not config.logs.enabled:
        return None
    from node_anomaly_agent.logs.assembly import build_logs  # imported by those who read any

    return build_logs(config.logs, config.rootfs, log)


def require_procfs(config: AgentConfig) -> None:
    """Raises ConfigError where the host is to be read from a place that is no /proc: all would be missing."""
    if config.source == "proc" and not (config.procfs / "stat").exists():
        raise ConfigError(
            f"path.procfs: {config.procfs} is no proc file system, it has no file stat",
            "name where the host's /proc is; in a container, mount it there",
        )


def build_sampler(config: AgentConfig, logs: LogMeter | None = None) -> Sampler:
    """The sampler of this host for the whole catalogue, in its order, and then the user's own features."""
    collectors: list[Collector] = [] if logs is None else [logs]
    if config.source == "proc":
        paths = Paths(str(config.procfs), str(config.sysfs), str(config.rootfs))
        collectors += build_collectors(paths, config.collectors)
    if config.source != "proc" or config.own_features:
        from node_anomaly_agent.own_features import other_collectors  # imported by those who have any

        collectors += other_collectors(config)
    return Sampler(collectors, config.features, config.window_s)


def uses_exporter(config: AgentConfig) -> bool:
    """Whether anything is read from the local node_exporter."""
    return config.source == "node_exporter" or any(
        own.source.exporter == "node_exporter" for own in config.own_features
    )


def node_name(config: AgentConfig, environ: Mapping[str, str]) -> str:
    """This node's name in the training history: configured, the DaemonSet's $NODE_NAME, or the host name."""
    return config.node or environ.get("NODE_NAME", "") or platform.node()


def choose_state_directory(config: AgentConfig, environ: Mapping[str, str]) -> Path | None:
    """Where to keep state, or None if nowhere is writable and nowhere was asked for.

    Raises ConfigError if the configured directory cannot be written. A file system that is read-only is the
    host's trouble and none of the settings': the agent runs, and says that it cannot save.
    """
    chosen = writable_directory(state_directories(config.state_directory, environ))
    if chosen is None and config.state_directory is not None:
        if is_read_only(config.state_directory):
            return config.state_directory
        raise ConfigError(
            f"state.directory: {config.state_directory} cannot be written by this user",
            "change its owner, or choose another directory",
        )
    return chosen


def choose_bundle_directory(config: AgentConfig, state_directory: Path | None) -> Path:
    """Where bundles arrive: configured, or beside the state."""
    return config.bundle_directory or (state_directory or SYSTEM_DIRECTORY) / BUNDLES


def load_other(
    version: str,
    bundles: Path,
    config: AgentConfig,
    node: str,
    admit: Callable[[Bundle], None] = lambda _bundle: None,
) -> Candidate | None:
    """A bundle besides the one on offer: by its version, or the starter for an empty one; None if absent.

    Raises BundleError if it is refused. The starter is trusted as the code around it is, without a signature.
    """
    if not version:
        return load_candidate(starter_bundle(), config.features, config.interval_s, node)
    path = bundles / version
    if not path.is_dir():
        return None
    keys = config.distribution.trusted_keys
    return load_candidate(path, config.features, config.interval_s, node, keys, admit)


def build_episodes(config: AgentConfig, state_directory: Path | None, log: Log) -> Episodes:
    """What records this node's alarms."""
    settings = config.episodes
    directory = None if state_directory is None else state_directory / EPISODES
    return Episodes(
        EpisodeStore(directory, settings.max_count, settings.max_bytes, log),
        config.interval_s,
        settings.end_after_s,
        settings.flight_ticks,
        lambda: top_processes(config.procfs),
        log,
        settings.is_quiet,
    )


def run_daemon(config: AgentConfig, version: str, environ: MutableMapping[str, str] = os.environ) -> int:
    """Run until SIGTERM or SIGINT; returns the exit code.

    Raises AnomalyError if a setting cannot be used or the address is taken, before anything else has started.
    """
    require_procfs(config)
    map_large_blocks()
    sys.setswitchinterval(SWITCH_S)
    log = configure_logging(config.log_level, config.log_format)
    listener = take_listener(environ, config.systemd_socket)
    if listener is not None and listens_elsewhere(listener, config.listen_address):
        log.warning(
            "web.listen-address has no say, systemd passed a socket",
            configured=str(config.listen_address),
            hint="systemctl edit node-anomaly-agent.socket",
        )
    guard = None if config.web.config_file is None else WebGuard(config.web.config_file, log)
    manager = ServiceManager.of(environ, config.interval_s, log)
    state_directory = choose_state_directory(config, environ)
    bundles = choose_bundle_directory(config, state_directory)
    node = node_name(config, environ)
    clock = SystemClock()
    logs = build_logs(config, log)
    sampler = build_sampler(config, logs)
    distribution = build_distribution(config, state_directory, bundles, node, version, clock, log)
    keys = config.distribution.trusted_keys
    reloader = Reloader(
        bundles,
        lambda path: load_candidate(path, config.features, config.interval_s, node, keys, distribution.admit),
        config.bundle_poll_interval_s,
        clock,
        log,
    )
    daemon = Daemon(
        Parts(
            sampler=sampler,
            reloader=reloader,
            keeper=StateKeeper(state_directory, clock, log),
            fallback=lambda wanted: load_other(wanted, bundles, config, node, distribution.admit),
            clock=clock,
            log=log,
            interval_s=config.interval_s,
            process=ProcessReader().read,
            trim=trim,
            distribution=distribution,
            suppression=Suppression(config.suppressors, [one.name for one in config.features]),
            budget=Budget(config.budget, log) if config.budget.limited else None,
            episodes=build_episodes(config, state_directory, log),
            logs=LogStatus if logs is None else logs.status,
            web=lambda: WebStatus() if guard is None else guard.status,
            tell=lambda snapshot, waiting: manager.look(
                snapshot, reloader.requests, reloader.busy or waiting
            ),
        )
    )
    sources = Sources(
        lambda: daemon.snapshot,
        Site(version, node, config.telemetry_path),
        clock.time,
        clock.monotonic,
        reload=reloader.request if config.web.enable_lifecycle else None,
        predict=Predictor(daemon.fork.ask, trim, lambda: daemon.ticking),
    )
    web = WebServer(config.listen_address, Application(endpoints(sources), log, guard), listener, guard)
    with handle_signals(daemon, reloader):
        web.start()
        log.info(
            "started",
            version=version,
            port=web.port,
            interval_seconds=config.interval_s,
            bundles=str(bundles),
            state=str(state_directory),
            node=node,
        )
        daemon.start()
        reloader.start()
        distribution.start()
        try:
            daemon.run()
        finally:
            log.info("stopping")
            manager.stopping()
            distribution.stop()
            reloader.stop()
            daemon.stop()
            web.stop()
            sampler.close()
    return 0
