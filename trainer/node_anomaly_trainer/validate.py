"""Whether a training run would find everything it depends on: one line each, with what to do about it."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType

from rich.console import Console

from node_anomaly_core.errors import AnomalyError
from node_anomaly_trainer.config import TrainConfig, load_config
from node_anomaly_trainer.labels import read_incidents

OK, NOTE, PROBLEM = "ok", "note", "problem"
STYLES = {OK: "green", NOTE: "yellow", PROBLEM: "bold red"}

BUNDLE_BYTES = 4 * 2**20
"""More than any bundle takes; a version that is being written needs this beside those that are kept."""


@dataclass(frozen=True, slots=True)
class Check:
    """One line: `status` is ok, note (a run would work, but know this) or problem; `fix` says what to do."""

    name: str
    status: str
    detail: str
    fix: str = ""


def _as_training_does() -> ModuleType:
    from node_anomaly_trainer.export import tensorflow

    return tensorflow()


def validate(
    path: Path | None, environ: Mapping[str, str], load: Callable[[], ModuleType] = _as_training_does
) -> Iterator[Check]:
    """Every check in turn, as soon as it is known; nothing is written or changed for good."""
    try:
        config = load_config(path, environ)
    except AnomalyError as error:
        yield _failed("configuration", error)
        return
    from node_anomaly_trainer.validate_delivery import check_delivery

    yield Check("configuration", OK, str(path) if path else "no file, defaults")
    yield from _source(config)
    yield from _files(config)
    yield check_publish(Path(config.publish.directory), config.publish.keep)
    yield check_tensorflow(config, load)
    yield from check_delivery(config)


def passed(checks: Sequence[Check]) -> bool:
    """Whether a run can start."""
    return all(check.status != PROBLEM for check in checks)


def as_json(checks: Sequence[Check]) -> str:
    """The checks for scripts."""
    return json.dumps({"ok": passed(checks), "checks": [asdict(check) for check in checks]}, indent=2)


def print_check(check: Check, console: Console) -> None:
    """One line, and a second with the fix where there is one."""
    console.print(f"{check.status:<8}", style=STYLES[check.status], end="")
    console.print(f"{check.name}: {check.detail}", markup=False, highlight=False, soft_wrap=True)
    if check.fix:
        console.print(f"        -> {check.fix}", markup=False, highlight=False, soft_wrap=True)


def _source(config: TrainConfig) -> Iterator[Check]:
    if config.source.type == "prometheus":
        # Asked in a hurry: one more attempt, not the patience of a run of hours.
        from node_anomaly_trainer.validate_server import check_server

        prometheus = replace(config.source.prometheus, retries=min(1, config.source.prometheus.retries))
        yield from check_server(replace(config, source=replace(config.source, prometheus=prometheus)))
    elif config.source.type == "file":
        yield check_readable(Path(config.source.file.path))
    else:
        yield Check("source", OK, "a simulated fleet needs nothing")


def _failed(name: str, error: AnomalyError) -> Check:
    return Check(name, PROBLEM, "; ".join(error.message.splitlines()), error.hint)


def check_readable(path: Path) -> Check:
    """Whether the file source has its file."""
    try:
        with path.open("rb"):
            size = path.stat().st_size
    except OSError as error:
        return Check("file", PROBLEM, f"{path}: {error.strerror}", "name an existing CSV or Parquet file")
    return Check("file", OK, f"{path}, {size / 2**20:.1f} MiB")


def _files(config: TrainConfig) -> Iterator[Check]:
    """The files with incidents and windows, where they are configured."""
    files = (("labels.incidents", config.labels.incidents), ("exclusions.windows", config.exclusions.windows))
    for setting, path in files:
        if not path:
            continue
        try:
            incidents = read_incidents(Path(path), setting)
        except AnomalyError as error:
            yield _failed(setting, error)
        else:
            yield Check(setting, OK, f"{path}, {len(incidents)} entries")


def check_publish(root: Path, keep: int) -> Check:
    """Whether bundles can be written to `root`, and whether `keep` of them and one more have room."""
    fix = "choose a writable directory with free space: publish.directory or --publish DIR"
    existing = root
    try:
        existing = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
        with tempfile.NamedTemporaryFile(dir=existing, prefix=".validate-"):
            free = shutil.disk_usage(existing).free
    except OSError as error:
        return Check("publish", PROBLEM, f"cannot write to {existing}: {error.strerror}", fix)
    needed = (keep + 1) * BUNDLE_BYTES
    room = f"{free / 2**20:,.0f} MiB free"
    if free < needed:
        return Check("publish", PROBLEM, f"{root}: {room}, {needed / 2**20:.0f} MiB are needed", fix)
    new = "" if existing == root else ", will be created"
    return Check("publish", OK, f"{root} is writable{new}, {room}")


def check_tensorflow(config: TrainConfig, load: Callable[[], ModuleType]) -> Check:
    """Whether the LSTM could be trained here."""
    if "lstm" not in config.models.enabled:
        return Check("tensorflow", OK, "not needed: models.enabled has no lstm")
    try:
        found = load()
    # An ImportError, or whatever a wheel for another processor raises.
    except Exception as error:  # noqa: BLE001
        said = " ".join(str(error).split())[:200]
        return Check(
            "tensorflow",
            PROBLEM,
            f"cannot be imported ({type(error).__name__}: {said})",
            "pip install '.[trainer]' in the checkout, or leave lstm out of models.enabled",
        )
    return Check("tensorflow", OK, str(getattr(found, "__version__", "version unknown")))
