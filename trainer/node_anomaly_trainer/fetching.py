"""`anomaly-trainer fetch`: fill the cache from Prometheus, and show what is in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from node_anomaly_trainer.config import TrainConfig
from node_anomaly_trainer.progress import Progress
from node_anomaly_trainer.since import seconds_since
from node_anomaly_trainer.sources import wanted_features
from node_anomaly_trainer.sources.prometheus import Fetched, fill_cache
from node_anomaly_trainer.sources.wanted import iso

CACHE = "history"
"""Where the cache is made if neither the command line nor the configuration names a place."""

SHOWN_NODES = 20
NOTEWORTHY_GAP = 0.01


def with_fetch_options(config: TrainConfig, since: str | None, cache: str | None) -> TrainConfig:
    """The configuration for a fetch, options on top. Raises ConfigError."""
    prometheus = config.source.prometheus
    if since is not None:
        prometheus = replace(prometheus, range=seconds_since(since, "14d"))
    prometheus = replace(prometheus, cache=cache or prometheus.cache or CACHE)
    return replace(config, source=replace(config.source, type="prometheus", prometheus=prometheus))


def fetch_history(config: TrainConfig, progress: Progress) -> Fetched:
    """Read what the cache lacks. Raises SourceError or ConfigError; what was read until then is kept."""
    prometheus = config.source.prometheus
    with progress.phase("history") as report:
        return fill_cache(
            prometheus,
            wanted_features(config),
            config.interval,
            Path(prometheus.cache),
            report,
            progress.note,
        )


def print_fetched(fetched: Fetched, config: TrainConfig, console: Console) -> None:
    """What was read and from where; per node how much is missing, and of which feature the most."""
    nodes = tuple(fetched.survey.instances)
    _line(
        console, f"{iso(fetched.span.start)} to {iso(fetched.span.end)}, a tick every {fetched.span.step} s"
    )
    table = Table()
    table.add_column("node")
    table.add_column("missing", justify="right")
    table.add_column("most of all")
    table.add_column("", justify="right")
    shares, worst = _gaps(fetched)
    order = np.argsort(-shares, kind="stable")
    for at in order[:SHOWN_NODES]:
        name, share = worst[at]
        told = (name, f"{share:.1%}") if share >= NOTEWORTHY_GAP else ("", "")
        table.add_row(nodes[at], f"{shares[at]:.1%}", *told)
    console.print(table)
    if len(nodes) > SHOWN_NODES:
        _line(console, f"and {len(nodes) - SHOWN_NODES} nodes that miss no more than those")
    for source, names in _sources(fetched).items():
        _line(console, f"{len(names)} features from {source}: {', '.join(names)}")
    if absent := _absent(fetched):
        _line(console, f"{len(absent)} features without any series: {', '.join(absent)}")
    if fetched.route:
        rate = fetched.samples / max(fetched.seconds, 1e-3)
        kept = fetched.days_all - fetched.days_read
        _line(
            console,
            f"read {fetched.days_read} days of nodes by {fetched.route}: {fetched.samples:,} samples "
            f"in {fetched.seconds:.1f} s ({rate:,.0f}/s)" + (f"; {kept} were there already" if kept else ""),
        )
    else:
        _line(console, f"all {fetched.days_all} days of nodes were there already")
    cache = config.source.prometheus.cache
    _line(console, f"cache {cache}; train reads it with source.prometheus.cache: {cache}")


def fetched_as_json(fetched: Fetched) -> str:
    """The same for scripts, gaps for every node and feature; a feature that a node cannot have is 1.0."""
    names = [feature.name for feature in fetched.features]
    return json.dumps(
        {
            "from": iso(fetched.span.start),
            "to": iso(fetched.span.end),
            "interval_s": fetched.span.step,
            "route": fetched.route,
            "samples": fetched.samples,
            "seconds": round(fetched.seconds, 3),
            "node_days_read": fetched.days_read,
            "node_days": fetched.days_all,
            "sources": _sources(fetched),
            "absent": _absent(fetched),
            "missing": {
                node: dict(zip(names, map(float, row.round(6)), strict=True))
                for node, row in zip(fetched.survey.instances, fetched.missing, strict=True)
            },
        },
        indent=2,
    )


def _gaps(fetched: Fetched) -> tuple[NDArray[np.float64], list[tuple[str, float]]]:
    """Per node the mean share missing of the features it has at all, and the feature that misses most."""
    had = fetched.missing < 1.0
    shares = np.array(
        [row[has].mean() if has.any() else 1.0 for row, has in zip(fetched.missing, had, strict=True)]
    )
    held = np.where(had, fetched.missing, -1.0)
    places = held.argmax(axis=1)
    return shares, [(fetched.features[at].name, float(held[row, at])) for row, at in enumerate(places)]


def _sources(fetched: Fetched) -> Mapping[str, list[str]]:
    sources: dict[str, list[str]] = {}
    for one in fetched.survey.wanted:
        sources.setdefault(one.source, []).append(one.feature.name)
    return sources


def _absent(fetched: Fetched) -> list[str]:
    wanted = {one.feature.name for one in fetched.survey.wanted}
    return [feature.name for feature in fetched.features if feature.name not in wanted]


def _line(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
