"""Fetch the real parts that tests run against: Prometheus with promtool, node_exporter, VictoriaMetrics.

What is on PATH is used as it is. What is missing is downloaded with apt, from the package sources that this
machine already trusts, and unpacked below .parts/ in the repository: nothing is installed, no service is
started and no root is needed. Where that is impossible this says which tests will be skipped and ends with
success, because the tests decide: they skip by name, and fail under CI=true.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PARTS = ROOT / ".parts"
PROGRAMS = {  # program -> Debian package
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "prometheus-node-exporter": "prometheus-node-exporter",
    "victoria-metrics": "victoria-metrics",
}


def missing() -> list[str]:
    """Packages of which a program is neither on PATH nor unpacked."""
    unpacked = str(PARTS / "usr" / "bin")
    return sorted(
        {
            package
            for program, package in PROGRAMS.items()
            if not (shutil.which(program) or shutil.which(program, path=unpacked))
        }
    )


def apt_options(state: Path) -> list[str]:
    """A package index of our own, so that neither root nor the machine's own lists are touched."""
    (state / "lists" / "partial").mkdir(parents=True)
    (state / "cache" / "archives" / "partial").mkdir(parents=True)
    options = [
        f"Dir::State::lists={state / 'lists'}",
        f"Dir::Cache={state / 'cache'}",
        "APT::Sandbox::User=",
        "Acquire::Languages=none",
    ]
    return [argument for option in options for argument in ("-o", option)]


def fetch(packages: list[str]) -> None:
    """Download and unpack `packages` into .parts/; raises CalledProcessError."""
    with tempfile.TemporaryDirectory() as work:
        state = Path(work)
        options = apt_options(state)
        subprocess.run(["apt-get", "-qq", *options, "update"], check=True, timeout=300)
        subprocess.run(
            ["apt-get", "-qq", *options, "download", *packages], check=True, timeout=300, cwd=state
        )
        for archive in sorted(state.glob("*.deb")):
            subprocess.run(["dpkg-deb", "--extract", str(archive), str(PARTS)], check=True, timeout=120)


def main() -> None:
    """Fetch what is missing; say what happens."""
    packages = missing()
    if not packages:
        return
    if shutil.which("apt-get") and shutil.which("dpkg-deb"):
        print(f"==> fetching {', '.join(packages)} with apt into .parts/ (not installed)", flush=True)
        try:
            fetch(packages)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            print(f"apt could not fetch them: {error}", file=sys.stderr)
    if packages := missing():
        names = " ".join(packages)
        print(f"Tests against {names} are skipped here (and fail under CI=true).", file=sys.stderr)
        print(f"Try: apt-get install --no-install-recommends {names}", file=sys.stderr)


if __name__ == "__main__":
    main()
