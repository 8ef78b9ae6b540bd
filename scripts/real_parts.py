"""Fetch the real parts that tests run against: Prometheus and its kin, MLflow, Helm, Compose and others.

What is on PATH is used as it is. What is missing is downloaded with apt, from the package sources that this
machine already trusts, and unpacked below .parts/ in the repository: nothing is installed, no service is
started and no root is needed. Prometheus 3 is newer than many distributions: where theirs is older it comes
from a later suite of the Debian mirror that apt already uses, and is unpacked beside the other one. Where all
that is impossible this says which tests will be skipped and ends with success, because the tests decide: they
skip by name, and fail under CI=true.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PARTS = ROOT / ".parts"
PROGRAMS = {  # program -> Debian package
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "amtool": "prometheus-alertmanager",
    "prometheus-alertmanager": "prometheus-alertmanager",
    "prometheus-node-exporter": "prometheus-node-exporter",
    "prometheus-pushgateway": "prometheus-pushgateway",
    "victoria-metrics": "victoria-metrics",
    "shellcheck": "shellcheck",
    "systemd-nspawn": "systemd-container",
}
JOURNAL_REMOTE = "lib/systemd/systemd-journal-remote"
"""Makes journal files with chosen times; not meant for PATH."""
JOURNAL_PACKAGES = ["systemd-journal-remote", "libmicrohttpd12", "libsystemd-shared"]
PROMETHEUS_3 = PARTS / "prometheus3"
MLFLOW = PARTS / "mlflow"
MLFLOW_PIP = (
    *(MLFLOW / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
    "--no-compile",  # as in bootstrap.py: the server imports a part, and that is compiled at its first start
)
MLFLOW_LOCK = ROOT / "requirements" / "mlflow.txt"
HELM = PARTS / "helm"
HELM_LOCK = ROOT / "requirements" / "helm.txt"
COMPOSE = PARTS / "compose"
LATER_SUITE = "forky"
"""The first release of Debian with Prometheus 3 and a docker-compose that knows today's Compose files."""


class CannotFetchError(Exception):
    """What apt could not give, in a sentence."""


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


def journal_remote_is_missing() -> bool:
    """Whether systemd-journal-remote is neither installed nor unpacked."""
    return not any((root / JOURNAL_REMOTE).exists() for root in (Path("/"), Path("/usr"), PARTS))


def newer_is_missing(program: str, folder: Path, major: int) -> bool:
    """Whether a program of that major version is neither unpacked nor what the distribution has."""
    for place in (folder, PARTS, None):
        found = shutil.which(program, path=str(place / "usr" / "bin") if place else None)
        if found:
            said = subprocess.run([found, "--version"], check=False, capture_output=True, text=True)
            version = re.search(r"version v?(\d+)\.", said.stdout + said.stderr)
            if version and int(version[1]) >= major:
                return False
    return True


def prometheus_3_is_missing() -> bool:
    """Whether there is no Prometheus 3."""
    return newer_is_missing("prometheus", PROMETHEUS_3, 3)


def compose_is_missing() -> bool:
    """Whether there is no Docker Compose 2 that runs by itself; version 1 knows other files."""
    return newer_is_missing("docker-compose", COMPOSE, 2)


def apt_options(state: Path) -> list[str]:
    """A package index of our own, so that neither root nor the machine's own lists are touched."""
    (state / "lists" / "partial").mkdir(parents=True)
    (state / "cache" / "archives" / "partial").mkdir(parents=True)
    return as_options(
        f"Dir::State::lists={state / 'lists'}",
        f"Dir::Cache={state / 'cache'}",
        "APT::Sandbox::User=",
        "Acquire::Languages=none",
    )


def as_options(*options: str) -> list[str]:
    """Settings of apt as arguments."""
    return [argument for option in options for argument in ("-o", option)]


def fetch(packages: Sequence[str], into: Path, suite: str = "") -> None:
    """Download and unpack `packages`, of another suite of Debian if one is named. CannotFetchError."""
    with tempfile.TemporaryDirectory() as work:
        state = Path(work)
        options = apt_options(state)
        try:
            apt("update", options)
            if suite:
                options += other_suite(state, suite, apt("indextargets", options))
                apt("update", options)
            apt("download", options, *packages, folder=state)
            for archive in sorted(state.glob("*.deb")):
                into.mkdir(parents=True, exist_ok=True)
                subprocess.run(["dpkg-deb", "--extract", str(archive), str(into)], check=True, timeout=120)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            raise CannotFetchError(str(error)) from error


def apt(verb: str, options: Sequence[str], *arguments: str, folder: Path = ROOT) -> str:
    """What apt-get prints; CalledProcessError if it fails."""
    command = ["apt-get", "-qq", *options, verb, *arguments]
    done = subprocess.run(command, check=True, timeout=300, cwd=folder, stdout=subprocess.PIPE, text=True)
    return done.stdout


def other_suite(state: Path, suite: str, targets: str) -> list[str]:
    """Options for apt to know only that suite, on the mirror of Debian that `targets` names."""
    debian = re.compile(r"^Label: Debian$(?:\n.+)*\n^Repo-URI: (\S+)$", re.MULTILINE)
    found = debian.search(targets)
    if found is None:
        raise CannotFetchError("apt has no mirror of Debian here")
    sources = state / "sources.list"
    sources.write_text(f"deb {found[1]} {suite} main\n")
    return as_options(f"Dir::Etc::sourcelist={sources}", "Dir::Etc::sourceparts=-")


def try_to_fetch(packages: Sequence[str], into: Path, suite: str = "") -> None:
    """Fetch and say so; a failure is printed, because the tests decide what it means."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        return
    place = into.relative_to(ROOT)
    of_suite = f" of Debian {suite}" if suite else ""
    print(f"==> fetching {', '.join(packages)}{of_suite} with apt into {place}/ (not installed)", flush=True)
    try:
        fetch(packages, into, suite)
    except CannotFetchError as error:
        print(f"apt could not fetch them: {error}", file=sys.stderr)


def mlflow_is_missing() -> bool:
    """Whether the server is not installed as the lock file has it today, or its folder has moved since."""
    done, program = MLFLOW / "installed.txt", MLFLOW / "bin" / "mlflow"
    if not done.exists() or done.read_bytes() != MLFLOW_LOCK.read_bytes() or not program.exists():
        return True
    interpreter = program.read_bytes().partition(b"\n")[0].removeprefix(b"#!")
    return not Path(interpreter.decode()).exists()


def install_mlflow() -> None:
    """Install the server with pip into an environment of its own; the trainer needs a newer pyarrow."""
    print(f"==> installing MLflow into {MLFLOW.relative_to(ROOT)}/", flush=True)
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", MLFLOW], check=True, timeout=120)
        subprocess.run(
            [*MLFLOW_PIP, "--require-hashes", "--no-deps", "-r", MLFLOW_LOCK], check=True, timeout=900
        )
    except (OSError, subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        print(f"pip could not install it: {error}", file=sys.stderr)
        return
    (MLFLOW / "installed.txt").write_bytes(MLFLOW_LOCK.read_bytes())


def helm_is_missing() -> bool:
    """Whether Helm's library is not installed as the lock file has it today."""
    done = HELM / "installed.txt"
    return not done.exists() or done.read_bytes() != HELM_LOCK.read_bytes()


def install_helm() -> None:
    """Install Helm's own code, built as a library, with MLflow's pip into a folder of its own.

    The Python that runs this may have none, for .venv is made at the same time.
    """
    print(f"==> installing Helm as a library into {HELM.relative_to(ROOT)}/", flush=True)
    wanted: list[str | Path] = [
        "--require-hashes",
        "--no-deps",
        "--only-binary=:all:",
        "-r",
        HELM_LOCK,
        "--target",
        HELM,
    ]
    shutil.rmtree(HELM, ignore_errors=True)
    try:
        subprocess.run([*MLFLOW_PIP, *wanted], check=True, timeout=300)
    except (OSError, subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        print(f"pip could not install it: {error}", file=sys.stderr)
        return
    (HELM / "installed.txt").write_bytes(HELM_LOCK.read_bytes())


def main() -> None:
    """Fetch what is missing; say what happens."""
    if packages := missing():
        try_to_fetch(packages, PARTS)
    if packages := missing():
        names = " ".join(packages)
        print(f"Tests against {names} are skipped here (and fail under CI=true).", file=sys.stderr)
        print(f"Try: apt-get install --no-install-recommends {names}", file=sys.stderr)
    if journal_remote_is_missing():
        try_to_fetch(JOURNAL_PACKAGES, PARTS)
    if journal_remote_is_missing():
        print("Tests with journal files are skipped here (and fail under CI=true).", file=sys.stderr)
        print(f"Try: apt-get install --no-install-recommends {JOURNAL_PACKAGES[0]}", file=sys.stderr)
    if prometheus_3_is_missing():
        try_to_fetch(["prometheus"], PROMETHEUS_3, LATER_SUITE)
    if prometheus_3_is_missing():
        print("Tests against Prometheus 3 are skipped here (and fail under CI=true).", file=sys.stderr)
        print(f"Try: put a prometheus of 3.x into {PROMETHEUS_3 / 'usr' / 'bin'}", file=sys.stderr)
    if compose_is_missing():
        try_to_fetch(["docker-compose"], COMPOSE, LATER_SUITE)
    if compose_is_missing():
        print("Compose does not read compose.yaml here (which fails under CI=true).", file=sys.stderr)
    for name, is_missing, install in (
        ("MLflow", mlflow_is_missing, install_mlflow),
        ("Helm", helm_is_missing, install_helm),
    ):
        if is_missing():
            install()
        if is_missing():
            print(f"Tests against {name} are skipped here (and fail under CI=true).", file=sys.stderr)


if __name__ == "__main__":
    main()
