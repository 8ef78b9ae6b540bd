"""`anomaly-trainer keygen`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from node_anomaly_trainer.commands.common import Output, OutputOption, exits
from node_anomaly_trainer.signing_keys import make_pair

DEFAULT_FILE = Path("anomaly-signing.key")


def keygen(
    file: Annotated[
        Path, typer.Argument(help="Private key to write; the public one ends in .pub.")
    ] = DEFAULT_FILE,
    output: OutputOption = Output.table,
) -> None:
    """Make a key pair that signs bundles and channels.

    Exit codes: 0 written, 1 a file is in the way or it cannot be written.
    """
    with exits(", nothing was written"):
        pair = make_pair(file)
        if output is Output.json:
            done = {
                "private": str(pair.private),
                "public": str(pair.public),
                "id": pair.key.id,
                "public_key": pair.key.base64(),
            }
            sys.stdout.write(json.dumps(done, indent=2) + "\n")
            return
        sys.stdout.write(
            f"private key {pair.private}: keep it secret, set publish.key_file to it\n"
            f"public key  {pair.public}: give it to the agents, bundle.trusted-keys\n"
            f"id {pair.key.id}, as one word {pair.key.base64()}\n"
        )
