"""Log lines on stderr: JSON for a collector of logs, or a readable line for a terminal."""

from __future__ import annotations

import io
import os
import select
import sys
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO, cast

# structlog imports asyncio (1.4 MiB) for methods that this agent never calls, and rich (4.5 MiB) where it is
# installed. While it is imported they are an empty module and, in the import system's own spelling, not
# importable; who needs them later gets the real ones.
_HIDDEN: Mapping[str, ModuleType | None] = {"asyncio": ModuleType("asyncio"), "rich": None}
_hidden = [name for name in _HIDDEN if name not in sys.modules]
for _name in _hidden:
    sys.modules[_name] = _HIDDEN[_name]  # type: ignore[assignment]
try:
    import structlog
finally:
    for _name in _hidden:
        del sys.modules[_name]

_PIECE = select.PIPE_BUF // 4
"""Characters, of four bytes at most: a pipe that is ready takes as many without a wait (pipe(7))."""

LEVELS: Mapping[str, int] = {"debug": 10, "info": 20, "warning": 30, "error": 40}

Log = structlog.typing.FilteringBoundLogger


class _Forgiving:
    """A stream that loses lines which cannot be written: a full disk, a reader that is gone or stuck.

    A node whose disk is full is the one that must be watched; its agent does not end for want of a log, nor
    does it wait for somebody to read it.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._poll: select.poll | None = None
        self._cut = False
        with suppress(OSError, ValueError):  # what is no file never makes anybody wait
            descriptor = stream.fileno()
            # No buffer: what could not be written would be kept there, and fail again when Python ends (120).
            raw = io.FileIO(descriptor, "w", closefd=False)
            self._stream = io.TextIOWrapper(raw, stream.encoding, stream.errors, write_through=True)
            if stream.isatty():
                # That a terminal is ready says little. The file that others write to it by stays as it is.
                descriptor = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
                self._stream = open(descriptor, "w", encoding="utf-8", errors="replace")  # noqa: SIM115, PTH123
            self._poll = select.poll()
            self._poll.register(descriptor, select.POLLOUT)

    def write(self, text: str) -> None:
        with suppress(OSError, ValueError):  # ValueError: it was closed
            whole = f"\n{text}" if self._cut else text
            for at in range(0, len(whole), _PIECE):
                if self._poll is not None and not self._poll.poll(0):
                    self._cut = self._cut or at > 0
                    return
                self._stream.write(whole[at : at + _PIECE])
                self._stream.flush()
            self._cut = False

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()


def configure_logging(level: str, form: str, stream: TextIO | None = None) -> Log:
    """The agent's logger.

    Args:
        level: a key of LEVELS.
        form: `json`, `console`, or `auto` (console on a terminal, else json).
        stream: where lines go; stderr if None.
    """
    out = stream or sys.stderr or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  # for good
    console = form == "console" or (form == "auto" and out.isatty())
    render: Any = _render_console if console else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
            structlog.processors.format_exc_info,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", _Forgiving(out))),
        cache_logger_on_first_use=False,
    )
    logger: Log = structlog.get_logger()
    return logger


def _render_console(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
    """`12:00:01 warning  bundle refused  reason=digest`: plain enough to paste into a ticket."""
    stamp = str(event.pop("ts", ""))[11:19]
    level = str(event.pop("level", ""))
    text = str(event.pop("event", ""))
    exception = event.pop("exception", None)
    fields = "  ".join(f"{key}={_quote(value)}" for key, value in event.items())
    line = f"{stamp} {level:<7}  {text}" + (f"  {fields}" if fields else "")
    return f"{line}\n{exception}" if exception else line


def _quote(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return repr(text) if any(c.isspace() for c in text) or not text else text
