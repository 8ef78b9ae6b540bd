"""The trainer's key pair as files: made once, the private one readable by its owner alone."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from node_anomaly_core.errors import ConfigError, TrainingError
from node_anomaly_core.signing import (
    MAX_KEY_FILE_BYTES,
    KeyFileError,
    PrivateKey,
    PublicKey,
    generate_key,
    parse_private_key,
)
from node_anomaly_trainer.whole_file import write_whole


@dataclass(frozen=True, slots=True)
class KeyPair:
    """Where a new pair lies."""

    private: Path
    public: Path
    key: PublicKey


def make_pair(private: Path) -> KeyPair:
    """Write a new private key (mode 0600) and beside it the public one, ending in .pub.

    Raises TrainingError where a file is in the way or cannot be written: a key that is lost cannot be made
    again.
    """
    public = private.with_name(private.name + ".pub")
    key = generate_key()
    try:
        private.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(key.pem())
            file.flush()
            os.fsync(file.fileno())
        write_whole(public, key.public.pem().encode())
    except FileExistsError as error:
        raise TrainingError(
            f"{private} is there already", "name another file; agents trust the key that they were given"
        ) from error
    except OSError as error:
        raise TrainingError(
            f"cannot write {private}: {error.strerror or error}", "choose a writable directory"
        ) from error
    return KeyPair(private, public, key.public)


def read_keys(path: str) -> tuple[PrivateKey, ...]:
    """The key in a file, or none for an empty name.

    Raises ConfigError for a file that cannot be read, holds no key, or that others can read.
    """
    if not path:
        return ()
    setting = "publish.key_file"
    try:
        with Path(path).open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(MAX_KEY_FILE_BYTES + 1).decode("ascii", errors="replace")
    except OSError as error:
        raise ConfigError(
            f"{setting}: {path}: {error.strerror}", "make a pair with anomaly-trainer keygen"
        ) from error
    if mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise ConfigError(
            f"{setting}: {path} can be read by others, or written by its group", f"chmod 600 {path}"
        )
    try:
        return (parse_private_key(text),)
    except KeyFileError as error:
        raise ConfigError(f"{setting}: {path}: {error.message}", error.hint) from error
