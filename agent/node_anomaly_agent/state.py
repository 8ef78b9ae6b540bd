"""What survives a restart: the scorer's history and the counters' window, in one small file.

The file is a magic line, the sha256 of the rest, then arrays in the layout of bundles (no pickle). It is
written beside its target, fsynced and renamed, so that a reader sees the old one or the new one. Whatever
is wrong with it, the agent starts fresh and says so.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node_anomaly_agent.bounded_file import read_bounded
from node_anomaly_agent.whole_file import write_whole
from node_anomaly_core.errors import AnomalyError, BundleError
from node_anomaly_core.score import part
from node_anomaly_core.tensors import read_tensors, tensor_parts

STATE_FILE = "agent.state"
FORMAT_VERSION = 1
MAX_STATE_BYTES = 16 << 20
SYSTEM_DIRECTORY = Path("/var/lib/node-anomaly")

_MAGIC = b"node-anomaly state\n"
_DIGEST_BYTES = 65  # hex sha256 and a newline
_SCORER = "scorer."
_HISTORY = "history."
_META = "meta"


class StateError(AnomalyError):
    """A state file that cannot be used or written."""


@dataclass(frozen=True, slots=True)
class AgentState:
    """One saved state.

    Attributes:
        saved_at: unix seconds.
        interval_s: the tick the history was recorded at.
        bundle_version: the bundle that `scorer` belongs to.
        sampler: the counters' window, JSON-able.
        scorer: arrays of the scorer.
        history: arrays of the score's last hours, for the status page.
    """

    saved_at: float
    interval_s: float
    bundle_version: str
    sampler: Mapping[str, object]
    scorer: Mapping[str, NDArray[Any]]
    history: Mapping[str, NDArray[Any]] = field(default_factory=dict)


def encode_state(state: AgentState) -> bytes:
    """The content of a state file."""
    return b"".join(sealed(state_parts(state)))


def state_parts(state: AgentState) -> list[bytes | memoryview]:
    """What follows the digest in a state file, in parts to be written one after the other.

    They are views of the state's arrays, not copies.
    """
    meta = {
        "format_version": FORMAT_VERSION,
        "saved_at_seconds": state.saved_at,
        "interval_seconds": state.interval_s,
        "bundle_version": state.bundle_version,
        "sampler": state.sampler,
    }
    tensors: dict[str, NDArray[Any]] = {_SCORER + name: array for name, array in state.scorer.items()}
    tensors |= {_HISTORY + name: array for name, array in state.history.items()}
    tensors[_META] = np.frombuffer(json.dumps(meta, separators=(",", ":")).encode(), dtype=np.uint8)
    return tensor_parts(tensors)


def sealed(body: Sequence[bytes | memoryview]) -> list[bytes | memoryview]:
    """A whole state file, in parts: what `state_parts` gave after its digest. Any thread."""
    digest = hashlib.sha256()
    for part_of_it in body:
        digest.update(part_of_it)
    return [_MAGIC, digest.hexdigest().encode(), b"\n", *body]


def decode_state(content: bytes) -> AgentState:
    """Read a state file's content back. Raises StateError, and nothing else, whatever the bytes are."""
    start = len(_MAGIC) + _DIGEST_BYTES
    if not content.startswith(_MAGIC):
        raise StateError("it is not a state file of this agent")
    body = content[start:]
    if hashlib.sha256(body).hexdigest().encode() + b"\n" != content[len(_MAGIC) : start]:
        raise StateError("it is truncated or damaged")
    try:
        tensors = read_tensors(body)
        meta = json.loads(tensors.pop(_META).tobytes())
        if meta["format_version"] != FORMAT_VERSION:
            raise StateError(f"its format version {meta['format_version']} is not {FORMAT_VERSION}")
        return AgentState(
            saved_at=float(meta["saved_at_seconds"]),
            interval_s=float(meta["interval_seconds"]),
            bundle_version=str(meta["bundle_version"]),
            sampler=dict(meta["sampler"]),
            scorer=part(tensors, _SCORER),
            history=part(tensors, _HISTORY),
        )
    except (BundleError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise StateError(f"it does not hold what a state file holds ({error})") from error


def load_state(directory: Path) -> AgentState | None:
    """The state in a directory, or None if there is none yet.

    Raises StateError: unreadable, too large, damaged, or of another version.
    """
    path = directory / STATE_FILE
    try:
        content = read_bounded(path, MAX_STATE_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(f"state file {path} cannot be read: {error.strerror}", "check its owner") from error
    hint = "nothing to do: the agent starts without it and replaces it"
    if len(content) > MAX_STATE_BYTES:
        raise StateError(f"state file {path} is larger than {MAX_STATE_BYTES >> 20} MiB", hint)
    try:
        return decode_state(content)
    except StateError as error:
        raise StateError(f"state file {path} is of no use: {error.message}", hint) from error


def save_state(directory: Path, content: bytes | Sequence[bytes | memoryview]) -> None:
    """Put an encoded state, or its parts, in place, whole or not at all.

    Raises StateError when the disk refuses.
    """
    path = directory / STATE_FILE
    try:
        write_whole(path, content, 0o644)  # `--once` reads it as another user; it holds nothing secret
    except OSError as error:
        raise StateError(
            f"state file {path} cannot be written: {error.strerror}", "free space or correct state.directory"
        ) from error


def state_directories(configured: Path | None, environ: Mapping[str, str]) -> Sequence[Path]:
    """Where state may live, in order of preference: configured, systemd's, the system's, the user's."""
    if configured is not None:
        return (configured,)
    found = []
    if environ.get("STATE_DIRECTORY"):  # systemd may list several, separated by colons
        found.append(Path(environ["STATE_DIRECTORY"].split(":")[0]))
    found.append(SYSTEM_DIRECTORY)
    home = environ.get("XDG_STATE_HOME") or (f"{environ['HOME']}/.local/state" if environ.get("HOME") else "")
    if home:
        found.append(Path(home) / "node-anomaly")
    return found


def writable_directory(candidates: Sequence[Path]) -> Path | None:
    """The first candidate that is, or could be made, a writable directory. Creates nothing."""
    for candidate in candidates:
        nearest = candidate
        try:
            while not nearest.exists() and nearest != nearest.parent:
                nearest = nearest.parent
            if nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK):
                return candidate
        except OSError:  # below a directory that this user may not enter
            continue
    return None


def is_read_only(directory: Path) -> bool:
    """Whether it lies, or would lie, on a file system that nobody may write to now."""
    nearest = directory
    try:
        while not nearest.exists() and nearest != nearest.parent:
            nearest = nearest.parent
        return bool(os.statvfs(nearest).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def closed_directory(candidates: Sequence[Path]) -> Path | None:
    """The first candidate that is there and that this user may not enter."""
    for candidate in candidates:
        with contextlib.suppress(OSError):
            if candidate.is_dir() and not os.access(candidate, os.X_OK):
                return candidate
    return None


def saved_directory(candidates: Sequence[Path]) -> Path | None:
    """The first candidate that holds a state file this user may read."""
    for candidate in candidates:
        if os.access(candidate / STATE_FILE, os.R_OK):
            return candidate
    return None
