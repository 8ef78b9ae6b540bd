"""Takes secrets out of a log line before a person at the host is shown it.

Rather too much is masked than too little: what looks like a credential is one.
"""

from __future__ import annotations

import re

MASK = "***"
SHOWN = 300
"""Characters of a line that are shown."""

_WORDS = (
    "pass(?:word|wd|phrase|code)?|pwd|secret|token|api[-_]?key|access[-_]?key|private[-_]?key|auth|authorization"
    "|credential|cookie|session(?:[-_]?id)?|signature|sig|otp|pin"
)
_RULES = (
    # -----BEGIN ... KEY----- and what follows it
    (re.compile(r"-----BEGIN [A-Z0-9 ]+-----.*"), MASK),
    # Authorization: Basic dXNlcjpw, Bearer abc, Digest ...
    (re.compile(r"\b(basic|bearer|digest|negotiate)\s+[^\s,;\"']+", re.IGNORECASE), rf"\1 {MASK}"),
    # scheme://user:password@host
    (re.compile(r"([a-z][a-z0-9+.-]*://)[^\s/@]+@", re.IGNORECASE), rf"\1{MASK}@"),
    # password=..., "api_key": "...", --token ..., X-Auth-Token: ...
    (
        re.compile(
            rf"([\"']?[\w.-]*(?:{_WORDS})[\w.-]*[\"']?\s*(?:[=:]+>?|\s+is)\s*)"
            r"(\"(?:[^\"\\]|\\.)*\"?|'(?:[^'\\]|\\.)*'?|[^\s,;&\"'}\])]+)",
            re.IGNORECASE,
        ),
        rf"\1{MASK}",
    ),
    (re.compile(rf"(--?[\w-]*(?:{_WORDS})[\w-]*\s+)(?!-)\S+", re.IGNORECASE), rf"\1{MASK}"),
    # mail addresses
    (re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"), f"{MASK}@{MASK}"),
    # JSON web tokens, keys with a known prefix, long hexadecimal and base64
    (re.compile(r"\beyJ[\w-]{8,}(?:\.[\w-]*){0,2}"), MASK),
    (re.compile(r"\b(?:AKIA|ASIA|gh[pousr]_|glpat-|xox[abprs]-|sk-|sk_live_|AIza)[\w-]{8,}"), MASK),
    (re.compile(r"\b[0-9a-fA-F]{24,}\b"), MASK),
    (re.compile(r"(?<![\w/+-])(?=[\w/+-]*\d)(?=[\w/+-]*[a-zA-Z])[A-Za-z0-9+_-]{28,}={0,2}(?![\w/+-])"), MASK),
    (re.compile(r"(?<![\w/+])(?=[\w/+]*\d)[A-Za-z0-9+/]{40,}={0,2}(?![\w/+])"), MASK),
)
_CONTROL = re.compile(r"[^\x20-\x7e\xa0-\U0010ffff]")


def mask_line(line: bytes) -> str:
    """A line as it may be shown: secrets masked, control characters replaced, cut off at SHOWN characters."""
    text = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", line[: 16 * SHOWN].decode("utf-8", "replace"))
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."
