"""Numbers as people read them: 12.3 %, 4.1 GiB, 350 µs."""

from __future__ import annotations

import math
from datetime import UTC, datetime

UNKNOWN = "\N{EN DASH}"

_YEAR_3000 = 32_503_680_000.0
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_DECIMAL = ("", "k", "M", "G", "T")


def format_value(value: float, unit: str) -> str:
    """A value in one of the catalogue's units. NaN is a dash: it is not known, which is not 0."""
    if math.isnan(value):
        return UNKNOWN
    if unit == "ratio":
        return f"{_short(100 * value)} %"
    if unit == "bytes":
        return _scaled(value, 1024.0, _BINARY)
    if unit == "bytes_per_second":
        return _scaled(value, 1024.0, _BINARY) + "/s"
    if unit == "per_second":
        return _scaled(value, 1000.0, _DECIMAL) + "/s"
    if unit == "seconds":
        return _seconds(value)
    if unit == "celsius":
        return f"{_short(value)} °C"
    if unit == "count":
        return _scaled(value, 1000.0, _DECIMAL)
    return f"{_short(value)} {unit}".rstrip()


def format_age(seconds: float) -> str:
    """A time span in its largest unit: 45 s, 12 min, 3 h, 5 d."""
    if math.isnan(seconds):
        return UNKNOWN
    for size, name in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if abs(seconds) >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} s"


def format_fact(name: str, value: str | float) -> str:
    """A value of a bundle's provenance: its times are unix seconds, its counts are whole."""
    if isinstance(value, str):
        return value
    if name in ("from", "to") and 0 < value < _YEAR_3000:
        return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"{value:.12g}"


def printable(text: str) -> str:
    """What others wrote, fit for a terminal: nothing that moves its cursor, no halves of characters.

    >>> printable("postgres" + chr(27) + "[2J")
    'postgres?[2J'
    """
    return "".join(letter if letter.isprintable() else "?" for letter in text)


OUTGROWN = "the last alarm is over because this node's threshold rose; what it was for has not gone away"
"""Said wherever a score below 1 is shown that would be taken for recovery."""


def threshold_words(ratio: float, learnt: float) -> str:
    """Where a node's own threshold lies, and how much of its window it has seen while it leans on training.

    >>> threshold_words(0.931, 0.05)
    '0.93 times what training promised (5 % of its window seen)'
    """
    own = "" if learnt >= 1 else f" ({100 * learnt:.0f} % of its window seen)"
    return f"{ratio:.2f} times what training promised{own}"


def _short(value: float) -> str:
    """Three significant digits, never in scientific notation below a million."""
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    size = abs(value)
    if size >= 100:
        return f"{value:.0f}"
    if size >= 10:
        return f"{value:.1f}".removesuffix(".0")
    if size >= 0.01 or size == 0:
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return f"{value:.2g}"


def _scaled(value: float, base: float, names: tuple[str, ...]) -> str:
    step = 0
    while abs(value) >= base and step < len(names) - 1 and math.isfinite(value):
        value /= base
        step += 1
    return f"{_short(value)} {names[step]}".rstrip()


def _seconds(value: float) -> str:
    size = abs(value)
    for scale, name in ((1e-6, "µs"), (1e-3, "ms")):
        if 0 < size < 1000 * scale:
            return f"{_short(value / scale)} {name}"
    return f"{_short(value)} s"
