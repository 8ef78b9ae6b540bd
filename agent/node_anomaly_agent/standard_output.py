"""Standard output that is named where it cannot be written to, as a full disk that it is sent to."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO, cast

STANDARD_OUTPUT = "standard output"


class _Named:
    """A stream whose errors name it: the system names the file of no write that fails."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with _naming():
            return self._stream.write(text)

    def flush(self) -> None:
        with _naming():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def named_output() -> Iterator[None]:
    """Within, an OSError of standard output has STANDARD_OUTPUT as its file name."""
    if sys.stdout is None:  # whoever started us closed it: nothing is printed, and nothing fails
        yield
        return
    with redirect_stdout(cast("TextIO", _Named(sys.stdout))):
        yield


def flush_output() -> None:
    """Write what is still held back: what fails only when Python ends is an error without a remedy."""
    if sys.stdout is not None:
        sys.stdout.flush()


def discard_output() -> None:
    """Nobody reads it: Python must not complain again when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _naming() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        error.filename = STANDARD_OUTPUT
        raise
