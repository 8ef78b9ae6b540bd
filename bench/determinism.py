"""The same data and seed twice: is it the same bundle, byte for byte?

    python bench/determinism.py

Trains twice in processes of their own on a simulated fleet, all members included, with SOURCE_DATE_EPOCH set,
because the time of training is part of a bundle. Prints both digests, and which files differ if they do.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

PROGRAM = """
import hashlib, json
from node_anomaly_trainer.config import parse_config
from node_anomaly_trainer.pipeline import build, labelled_history
from node_anomaly_trainer.progress import SilentProgress
from node_anomaly_trainer.sources import fetch
from node_anomaly_trainer.delivery import seal
fleet = {"synthetic": {"nodes": 3, "range": "8h"}}
config = parse_config({"source": fleet, "models": {"lstm": {"epochs": 2}}})
quiet = SilentProgress()
history = labelled_history(fetch(config, lambda *_: None, quiet.note), config, quiet).history
made = build(history, config, quiet)
files = {name: hashlib.sha256(data).hexdigest()[:16] for name, data in sorted(made.candidate.files.items())}
print(json.dumps({"version": seal(config, made).archived.version, "files": files}))
"""


def main() -> None:
    """Train twice and compare."""
    runs = []
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1790000000", "TF_CPP_MIN_LOG_LEVEL": "3"}
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "once.py"
        program.write_text(PROGRAM)
        for _ in range(2):
            done = subprocess.run(
                [sys.executable, program], env=environment, check=True, capture_output=True, text=True
            )
            runs.append(json.loads(done.stdout.splitlines()[-1]))
    first, second = runs
    for name, digest in first["files"].items():
        same = "equal" if second["files"].get(name) == digest else f"differs: {second['files'].get(name)}"
        print(f"{name:<34} {digest}  {same}")
    print(f"bundle {first['version']} and {second['version']}: ", end="")
    print("identical" if first["version"] == second["version"] else "different")
    sys.exit(first["version"] != second["version"])


if __name__ == "__main__":
    main()
