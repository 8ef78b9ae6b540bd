"""Puts fetchers, ledger and shadow together from the settings; loads only what they ask for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from node_anomaly_agent.clock import Clock
from node_anomaly_agent.config import AgentConfig
from node_anomaly_agent.config_distribution import MLFLOW
from node_anomaly_agent.distribution import Distribution, Fetching, Trying
from node_anomaly_agent.ledger import Ledger
from node_anomaly_agent.log_setup import Log
from node_anomaly_agent.process_stats import ProcessReader
from node_anomaly_agent.scorer import Candidate, align, load_candidate
from node_anomaly_core.bundle import Bundle, verify_bundle

SHADOW_BUNDLES = "shadow-bundles"


def build_distribution(
    config: AgentConfig,
    state_directory: Path | None,
    bundles: Path,
    node: str,
    version: str,
    clock: Clock,
    log: Log,
) -> Distribution:
    """Everything between the publisher and the scorer. Starts nothing."""
    settings = config.distribution
    ledger = Ledger(state_directory, lambda text: log.warning("what is remembered of bundles", error=text))
    shadow_bundles = shadow_directory(config, state_directory, bundles)
    fetchers: list[Fetching] = []
    if settings.url:
        make = _fetcher_maker(config, node, version, clock, log)
        fetchers.append(make("bundle", settings.channel, bundles, ledger))
        if settings.shadow_channel and shadow_bundles is not None:
            fetchers.append(make("shadow", settings.shadow_channel, shadow_bundles, None))
    return Distribution(
        ledger,
        lambda wanted: _load_version(wanted, bundles, config, node),
        log,
        clock.time,
        clock.wake,
        signed=bool(settings.trusted_keys),
        allowed=settings.rollback_to,
        auto_rollback=settings.auto_rollback,
        fetchers=fetchers,
        shadow=None if shadow_bundles is None else _shadow(config, shadow_bundles, node, clock, log),
    )


def shadow_directory(config: AgentConfig, state_directory: Path | None, bundles: Path) -> Path | None:
    """Where candidates to try arrive, or None if none are tried."""
    settings = config.distribution
    if settings.shadow_directory is not None:
        return settings.shadow_directory
    if settings.shadow_channel:
        return (state_directory or bundles.parent) / SHADOW_BUNDLES
    return None


def _load_version(wanted: str, bundles: Path, config: AgentConfig, node: str) -> Candidate | None:
    """An earlier version, by its name: its age is no reason against going back to it."""
    path = bundles / wanted
    if not path.is_dir():
        return None
    return load_candidate(
        path, config.features, config.interval_s, node, trusted=config.distribution.trusted_keys
    )


def _fetcher_maker(
    config: AgentConfig, node: str, version: str, clock: Clock, log: Log
) -> Callable[[str, str, Path, Ledger | None], Fetching]:
    from node_anomaly_agent.bundle_depot import Depot
    from node_anomaly_agent.fetch import Fetcher
    from node_anomaly_agent.fetch_http import Access, Client
    from node_anomaly_agent.fetch_sources import ChannelSource, MlflowSource, Source

    settings = config.distribution
    keys = settings.trusted_keys

    def verify(path: Path) -> Bundle:
        bundle = verify_bundle(path, keys)
        align(bundle.manifest.features, config.features)
        return bundle

    def make(label: str, channel: str, root: Path, ledger: Ledger | None) -> Fetching:
        client = Client(
            Access(
                ca_file=settings.tls_ca_file,
                cert_file=settings.tls_cert_file,
                key_file=settings.tls_key_file,
                token_file=settings.token_file,
                agent=f"anomaly-agent/{version}",
            )
        )
        source: Source
        if settings.url.startswith(MLFLOW):
            source = MlflowSource(client, settings.url.removeprefix(MLFLOW), settings.mlflow_model, channel)
        else:
            source = ChannelSource(client, settings.url, channel, keys)
        return Fetcher(
            label,
            source,
            client,
            Depot(root, verify),
            ledger,
            node,
            interval_s=settings.fetch_interval_s,
            log=log,
            now=clock.time,
        )

    return make


def _shadow(config: AgentConfig, root: Path, node: str, clock: Clock, log: Log) -> Trying:
    from node_anomaly_agent.reload import Reloader
    from node_anomaly_agent.shadow import Shadow

    reloader = Reloader(
        root,
        lambda path: load_candidate(
            path, config.features, config.interval_s, node, trusted=config.distribution.trusted_keys
        ),
        config.bundle_poll_interval_s,
        clock,
        log,
    )
    return Shadow(reloader, config.interval_s, lambda: ProcessReader().read().resident_bytes, log)
