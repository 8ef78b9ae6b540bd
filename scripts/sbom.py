"""What the images install, as CycloneDX: requirements/*.cdx.json, from the lock files beside them.

uv writes the documents; it reads its own form of a lock, so ours is put into that first. Nothing is resolved
and nothing is fetched. With --check nothing is written; the exit code is 1 if a file differs.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import tomllib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "requirements"
IMAGES = ("agent", "trainer")
UV = Path(sys.executable).parent / "uv"
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "node-anomaly.invalid")
INDEX = "https://index.invalid/simple"
"""uv wants one named; no index is named in what comes out, where a plain purl means Python's own."""
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)(?: ; ([^\\\n]+?))?(?: \\)?$", re.MULTILINE)


@dataclass(frozen=True)
class Pin:
    """One line of a lock file: the package, its version, and the environments it is for (all if empty)."""

    name: str
    version: str
    marker: str


def pins(lock: Path) -> list[Pin]:
    """Of a requirements file with hashes."""
    return [Pin(name, version, marker.strip()) for name, version, marker in PIN.findall(lock.read_text())]


def uv_lock(name: str, version: str, pinned: Sequence[Pin]) -> str:
    """The pins in the form that uv reads, all of them needed by `name`."""
    source = f'source = {{ registry = "{INDEX}" }}'
    packages = [f'[[package]]\nname = "{p.name}"\nversion = "{p.version}"\n{source}\n' for p in pinned]
    needs = []
    for pin in pinned:
        marker = f", marker = {json.dumps(pin.marker)}" if pin.marker else ""
        needs.append(f'{{ name = "{pin.name}", version = "{pin.version}", {source}{marker} }}')
    root = f'[[package]]\nname = "{name}"\nversion = "{version}"\nsource = {{ virtual = "." }}\n'
    head = 'version = 1\nrevision = 3\nrequires-python = ">=3.11"\n'
    return "\n".join([head, *packages, f"{root}dependencies = [{', '.join(needs)}]\n"])


def document(image: str) -> str:
    """The bill of materials of an image's environment, the same for the same lock file and uv."""
    pinned = pins(LOCKS / f"{image}.txt")
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    name = f"node-anomaly-{image}"
    with tempfile.TemporaryDirectory() as work:
        project = Path(work)
        (project / "uv.lock").write_text(uv_lock(name, version, pinned))
        needs = json.dumps(
            [f"{p.name}=={p.version}" + (f" ; {p.marker}" if p.marker else "") for p in pinned]
        )
        table = (
            f'name = "{name}"\nversion = "{version}"\nrequires-python = ">=3.11"\ndependencies = {needs}\n'
        )
        (project / "pyproject.toml").write_text(f"[project]\n{table}")
        export = ["export", "--frozen", "--offline", "--no-config", "--format", "cyclonedx1.5"]
        command = [str(UV), *export, "--preview-features", "sbom-export", "--quiet"]
        done = subprocess.run(command, check=True, cwd=project, capture_output=True, text=True, timeout=60)
    bill: dict[str, Any] = json.loads(done.stdout.replace(f"?repository_url={INDEX}", ""))
    del bill["metadata"]["timestamp"]  # that of the lock is the commit's
    bill["serialNumber"] = f"urn:uuid:{uuid.uuid5(NAMESPACE, json.dumps(bill['components']))}"
    return json.dumps(bill, indent=1) + "\n"


def main() -> int:
    """Write or check both; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail on a difference")
    options = parser.parse_args()
    differ = []
    for image in IMAGES:
        try:
            made = document(image)
        except (OSError, subprocess.SubprocessError) as error:
            print(f"Error: uv gives no bill of materials: {error}", file=sys.stderr)
            print(
                f"Try: make lock, which installs and uses it\n{getattr(error, 'stderr', '')}", file=sys.stderr
            )
            return 2
        target = LOCKS / f"{image}.cdx.json"
        if not target.exists() or target.read_text() != made:
            differ.append(target.name)
            if not options.check:
                target.write_text(made)
    if differ and options.check:
        print(f"{', '.join(differ)} differ from the lock: run `python scripts/sbom.py`", file=sys.stderr)
        return 1
    print(
        f"wrote {', '.join(differ)}" if differ else "the bills of materials are as the lock files have them"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
