"""Make or refresh .venv: `scripts/with-python.sh scripts/bootstrap.py run|dev`.

`run` installs what agent and trainer need, `dev` adds the tools of `make check` and `make test`; both pin
every file by its hash. A stamp holds the digest of what was installed, so a second call takes milliseconds.
Standard library only: nothing else is there yet.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PROFILES = {"run": ("trainer", "build"), "dev": ("dev",)}


def fail(message: str, hint: str) -> NoReturn:
    """Say what is wrong and what to do next; no traceback."""
    sys.exit(f"Error: {message}\nTry: {hint}")


def digest(profile: str) -> str:
    """What .venv depends on: the lock files, the packaging metadata and where the tree lies."""
    sha = hashlib.sha256(str(ROOT).encode())
    for name in (*(f"requirements/{part}.txt" for part in PROFILES[profile]), "pyproject.toml"):
        sha.update((ROOT / name).read_bytes())
    return sha.hexdigest()


def installed(profile: str) -> bool:
    """Whether .venv holds `profile` as the lock files now describe it."""
    stamp = VENV / f".installed-{profile}"
    return stamp.is_file() and stamp.read_text() == digest(profile)


def create() -> None:
    """Make .venv with the Python that runs this."""
    print(f"==> creating .venv with Python {sys.version.split()[0]}", flush=True)
    if subprocess.call([sys.executable, "-m", "venv", str(VENV)]) != 0:
        shutil.rmtree(VENV, ignore_errors=True)
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        fail("this Python cannot create a virtual environment", f"apt-get install python{version}-venv")


def pip_install(step: str, *arguments: str) -> None:
    """Install into .venv, with pip's own progress; a failure ends with the step's name."""
    print(f"==> {step}", flush=True)
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install"]
    if subprocess.call([*pip, *arguments], cwd=ROOT) != 0:
        fail(f"{step} failed (see above)", "check the network and the free space (2.5 GB), then make again")


def main(profile: str) -> None:
    """Bring .venv up to `profile`."""
    # dev contains run, so either stamp satisfies a request for run.
    if installed(profile) or (profile == "run" and installed("dev")):
        return
    started = time.monotonic()
    if not (VENV / "bin" / "python").exists():
        create()
    files = [f"requirements/{part}.txt" for part in PROFILES[profile]]
    pip_install(
        f"installing {' and '.join(files)} (the first time some minutes, ~2 GB on disk)",
        "--require-hashes",
        # The lock is whole. Left to resolve, pip takes `coverage[toml]` for another thing than `coverage`,
        # finds the newest release of it, and refuses that for want of a hash.
        "--no-deps",
        "--only-binary=:all:",
        # A third of the time, on one core, for files of which most are never imported.
        "--no-compile",
        "--progress-bar=on",
        *(argument for file in files for argument in ("-r", file)),
    )
    pip_install(
        "installing node-anomaly itself, editable",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--editable=.",
    )
    (VENV / f".installed-{profile}").write_text(digest(profile))
    print(f"==> .venv is ready ({time.monotonic() - started:.0f} s)", flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in PROFILES:
        fail("usage: bootstrap.py run|dev", "call it through make")
    main(sys.argv[1])
