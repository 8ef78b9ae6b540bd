"""Log lines on stderr: JSON for a collector of logs, or a readable line for a terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, TextIO

# structlog.dev imports rich where it is installed: 4.5 MiB that this agent never uses. None is the import
# system's own spelling of "not importable".
if "rich" not in sys.modules:
    sys.modules["rich"] = None  # type: ignore[assignment]
    import structlog

    del sys.modules["rich"]
else:
    import structlog

LEVELS: Mapping[str, int] = {"debug": 10, "info": 20, "warning": 30, "error": 40}

Log = structlog.typing.FilteringBoundLogger


def configure_logging(level: str, form: str, stream: TextIO | None = None) -> Log:
    """The agent's logger.

    Args:
        level: a key of LEVELS.
        form: `json`, `console`, or `auto` (console on a terminal, else json).
        stream: where lines go; stderr if None.
    """
    out = sys.stderr if stream is None else stream
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
        logger_factory=structlog.WriteLoggerFactory(file=out),
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
