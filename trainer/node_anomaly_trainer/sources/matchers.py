"""The user's label matchers, `job="node",env=~"prod|stage"`, taken apart as PromQL would."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import cast

from node_anomaly_core.expressions import Match, MatchOp

_MATCHER = re.compile(
    r"""\s*(?P<label>[A-Za-z_][A-Za-z0-9_]*)\s*(?P<op>=~|!~|!=|=)\s*"""
    r"""(?:"(?P<double>(?:[^"\\]|\\.)*)"|'(?P<single>(?:[^'\\]|\\.)*)'|`(?P<raw>[^`]*)`)\s*(?:,|$)""",
    re.DOTALL,
)
_ESCAPE = re.compile(r"\\(x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|[0-7]{3}|.)", re.DOTALL)
_SINGLE = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def parse_matchers(text: str) -> tuple[Match, ...]:
    """Every matcher of the text. Raises ValueError for what is none."""
    matchers: list[Match] = []
    at = 0
    text = text.strip()
    while at < len(text):
        found = _MATCHER.match(text, at)
        if found is None:
            raise ValueError(f"no label matcher at {text[at : at + 40]!r}")
        raw = found["raw"]
        quoted = found["double"] if found["double"] is not None else found["single"]
        value = raw if raw is not None else _ESCAPE.sub(_unescaped, quoted)
        matchers.append(Match(found["label"], cast("MatchOp", found["op"]), value))
        at = found.end()
    return tuple(matchers)


def joined(*parts: str) -> str:
    """Texts of matchers as one; empty ones are left out."""
    return ",".join(part.strip().rstrip(",") for part in parts if part.strip().rstrip(","))


def one_of(label: str, values: Sequence[str]) -> Match:
    """The matcher of a label that has one of these values."""
    if len(values) == 1:
        return Match(label, "=", values[0])
    return Match(label, "=~", "|".join(re.escape(value) for value in values))


def none_of(label: str, values: Sequence[str]) -> Match:
    """The matcher of a label that has none of these values."""
    chosen = one_of(label, values)
    return Match(label, "!=" if chosen.op == "=" else "!~", chosen.value)


def _unescaped(found: re.Match[str]) -> str:
    code = found[1]
    if code[0] in "xuU":
        return chr(int(code[1:], 16))
    if len(code) == 3:
        return chr(int(code, 8))
    return _SINGLE.get(code, code)
