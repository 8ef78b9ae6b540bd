"""`anomaly-trainer publish`, `promote` and `rollback`: which bundle the nodes are offered."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from node_anomaly_core.bundle import SIGNATURE, verify_bundle
from node_anomaly_core.errors import ConfigError
from node_anomaly_trainer.commands.common import ConfigOption, Output, OutputOption, exits
from node_anomaly_trainer.config import TrainConfig, load_config
from node_anomaly_trainer.deliver import Delivery, deliver_copy, roll_back
from node_anomaly_trainer.deliver import promote as offer_in

ChannelOption = Annotated[str | None, typer.Option(help="Channel of the tree; publish.channel without.")]
PercentOption = Annotated[
    float | None, typer.Option(min=0.0, max=100.0, help="Share of nodes that take it; the others stay.")
]
NOT_CHANGED = ", see what is offered now with the same command again"


def publish(
    bundle: Annotated[Path, typer.Argument(help="Directory of a bundle, from wherever it was trained.")],
    config: ConfigOption = None,
    channel: ChannelOption = None,
    percent: PercentOption = None,
    output: OutputOption = Output.table,
) -> None:
    """Check a bundle as an agent would, and offer it in the configured places.

    Exit codes: 0 published, 1 failed (what was on offer stays), 2 wrong usage or configuration.
    """
    with exits(NOT_CHANGED):
        settings = load_config(config, os.environ)
        _check_channel(channel)
        read = verify_bundle(bundle)
        done = deliver_copy(settings.publish, read, channel=channel or "", percent=percent)
        _finish(settings, done, output, all_nodes=_everybody(settings, channel, percent))


def promote(
    channel: Annotated[str, typer.Option(help="Channel that changes.")] = "stable",
    percent: PercentOption = None,
    version: Annotated[str | None, typer.Option(help="Offer this version.")] = None,
    source: Annotated[
        str | None, typer.Option("--from", help="Offer what this channel offers, e.g. candidate.")
    ] = None,
    config: ConfigOption = None,
    output: OutputOption = Output.table,
) -> None:
    """Let a channel offer another version, or the same one to another share of the nodes.

    Exit codes: 0 done, 1 failed (what was on offer stays), 2 wrong usage or configuration.
    """
    with exits(NOT_CHANGED):
        if version and source:
            raise ConfigError("--version and --from both name a bundle", "leave one of them out")
        _check_channel(channel)
        _check_channel(source)
        settings = load_config(config, os.environ)
        done = offer_in(
            settings.publish, channel, version=version or "", percent=percent, source=source or ""
        )
        everybody = done.channel is not None and done.channel.percent == 100.0
        _finish(settings, done, output, all_nodes=everybody and channel == "stable")


def rollback(
    to: Annotated[str | None, typer.Option(help="Version; the one before the current without.")] = None,
    channel: ChannelOption = None,
    config: ConfigOption = None,
    output: OutputOption = Output.table,
) -> None:
    """Offer an earlier version again, to all nodes, in every configured place.

    Exit codes: 0 done, 1 failed (what was on offer stays), 2 wrong usage or configuration.
    """
    with exits(NOT_CHANGED):
        _check_channel(channel)
        settings = load_config(config, os.environ)
        done = roll_back(settings.publish, to or "", channel=channel or "")
        _finish(settings, done, output, all_nodes=True)


def _everybody(settings: TrainConfig, channel: str | None, percent: float | None) -> bool:
    share = settings.publish.percent if percent is None else percent
    return not settings.publish.tree or (share == 100.0 and (channel or settings.publish.channel) == "stable")


def _check_channel(name: str | None) -> None:
    from node_anomaly_core.channel import is_channel_name

    if name is not None and not is_channel_name(name):
        raise ConfigError(f"{name!r} is no channel name", "such as stable or candidate")


def _finish(settings: TrainConfig, done: Delivery, output: Output, *, all_nodes: bool) -> None:
    from node_anomaly_trainer.registry import offered

    notes: list[str] = []
    offered(settings.mlflow, done.version, all_nodes=all_nodes, note=notes.append)
    for line in notes:
        sys.stderr.write(line + "\n")
    document = done.channel
    if output is Output.json:
        channel = None
        if document is not None:
            channel = {
                "name": document.channel,
                "sequence": document.sequence,
                "percent": document.percent,
                "previous": document.previous,
                "rollback": document.rollback,
            }
        path = str(done.path) if done.path else None
        sys.stdout.write(
            json.dumps({"version": done.version, "path": path, "channel": channel}, indent=2) + "\n"
        )
        return
    if done.path is not None:
        signed = ", signed" if (done.path / SIGNATURE).exists() else ""
        sys.stdout.write(f"current is {done.path}{signed}\n")
    if document is not None:
        back = ", going back" if document.rollback else ""
        sys.stdout.write(
            f"channel {document.channel} offers {document.version} to {document.percent:g} % of nodes{back}\n"
        )
