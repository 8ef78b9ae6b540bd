"""`anomaly-trainer replay-logs`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from node_anomaly_core.errors import ConfigError
from node_anomaly_trainer.commands.common import exits
from node_anomaly_trainer.config import LONGEST_INTERVAL_S, SHORTEST_INTERVAL_S
from node_anomaly_trainer.settings import InvalidValueError, parse_duration


def replay_logs(
    files: Annotated[list[Path], typer.Argument(help="Old log files of one node, plain or gzip.")],
    output: Annotated[Path, typer.Option(help="The Parquet file to write.")],
    node: Annotated[str, typer.Option(help="The node's name in the training history.")],
    interval: Annotated[str, typer.Option(help="Time between two ticks, as on the node.")] = "15s",
) -> None:
    """Turn old log files into the features that an agent would have counted, for the `file` source.

    Exit codes: 0 written, 1 refused, nothing was written, 2 wrong usage.
    """
    with exits(", nothing was written"):
        from node_anomaly_trainer.replay_logs import replay_logs as replay  # pandas, when it is needed

        if output.suffix != ".parquet":
            raise ConfigError(f"--output: {output} is not a .parquet file", "name it so: logs.parquet")
        frame = replay(files, node, _seconds(interval))
        staging = output.with_name(f".{output.name}.part")
        frame.to_parquet(staging, index=False)
        staging.replace(output)
        sys.stdout.write(f"{output}: {len(frame):,} ticks of {node}\n")


def _seconds(interval: str) -> float:
    try:
        seconds = parse_duration(interval)
    except InvalidValueError as error:
        raise ConfigError(f"--interval: {interval!r} is not {error}", "the default is 15s") from None
    if not SHORTEST_INTERVAL_S <= seconds <= LONGEST_INTERVAL_S:
        limits = f"{SHORTEST_INTERVAL_S:g} to {LONGEST_INTERVAL_S:g} seconds"
        raise ConfigError(f"--interval: {interval} is not within {limits}", "use that of your agents")
    return seconds
