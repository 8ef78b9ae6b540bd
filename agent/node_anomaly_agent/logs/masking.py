"""Takes secrets out of a log line before a person at the host is shown it.

Rather too much is masked than too little: what looks like a credential is one.
"""

from __future__ import annotations

import re
import unicodedata

MASK = "***"
SHOWN = 300
"""Characters of a line that are shown."""

_READ = 4 * SHOWN
"""Characters that are looked at: masking makes a line shorter. No rule may take long over any of them."""

_WORDS = (
    r"pass(?:word|wd|phrase|code)?|pwd|secret|token|auth|authorization|credential|cookie|session(?:[-_]?id)?"
    r"|(?:api|access|account|client|encryption|license|master|private|shared|signing|ssh)[-_]?key|\bkey|\bpw"
    r"|signature|sig|otp|pin|jwt"
)
_NAME = rf"(?:{_WORDS})[\w.-]{{0,64}}"
_VALUE = r"\\+[\"'][^\"']*[\"']?|\"(?:[^\"\\]|\\.)*\"?|'(?:[^'\\]|\\.|'')*'?|[^\s,;&\"'<>]+"
_RULES = (
    # -----BEGIN ... KEY----- and what follows it
    (r"-----BEGIN [A-Z0-9 ]+-----.*", MASK),
    # Authorization: and Cookie: headers, to their end
    (r"((?:authorization|cookie)\\*[\"']?\s*:\s*\\*[\"']?)[^\"'\\]+", rf"\1{MASK}"),
    # Basic dXNlcjpw, Bearer abc, Digest ...
    (r"\b(basic|bearer|digest|negotiate)\s+[^\s,;\"'*]+", rf"\1 {MASK}"),
    # scheme://user:password@host
    (r"(://)[^\s@]+@", rf"\1{MASK}@"),
    # <password>...</password>, name="password" value="..."
    (rf"({_NAME}>)[^<]+", rf"\1{MASK}"),
    (rf"({_NAME}[\"']\s+value\s*=\s*[\"'])[^\"']*", rf"\1{MASK}"),
    # password=..., "api_key": "...", \"token\":\"...\", password -> ..., X-Auth-Token: ...
    (rf"({_NAME}\\*[\"']?\s*(?:[=:]+>?|->|\s+is)\s*)(?:{_VALUE})", rf"\1{MASK}"),
    (rf"(\bidentified\s+by\s+)(?:{_VALUE})", rf"\1{MASK}"),
    # --token ..., -u user:password, mysql -ppassword
    (rf"(--?[\w-]{{0,32}}(?:{_WORDS})[\w-]{{0,32}}\s+)(?!-)\S+", rf"\1{MASK}"),
    (r"(\s(?:-u|--user)[\s=])\S+", rf"\1{MASK}"),
    (r"(\bmysql\w*\s(?:.*\s)?-p)\S+", rf"\1{MASK}"),
    # password 'abc', token [abc], secret a1b2: a word alone says enough if what follows is no plain word
    (rf"((?:{_WORDS})\s+)(?=[\"'\[(]|[^\s\d]*\d)\S+", rf"\1{MASK}"),
    # mail addresses
    (r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+", f"{MASK}@{MASK}"),
    # JSON web tokens, keys with a known prefix, long hexadecimal and base64
    (r"\beyJ[\w-]{8,}(?:\.[\w-]*){0,2}", MASK),
    (
        r"(?-i:\b(?:AKIA|ASIA|gh[pousr]_|glpat-|xox[abprs]-|sk-|[sr]k_(?:live|test)_|AIza|hf_|npm_)[\w-]{8,})",
        MASK,
    ),
    (r"(?<=hooks\.slack\.com/)\S+", MASK),
    (r"\b[0-9a-f]{24,}\b", MASK),
    (r"(?<![\w/+-])(?=[\w/+-]*\d)(?=[\w/+-]*[a-z])[a-z0-9+_-]{28,}={0,2}(?![\w/+-])", MASK),
    (r"(?<![\w/+])(?=[\w/+]*\d)[a-z0-9+/]{40,}={0,2}(?![\w/+])", MASK),
)
_COMPILED = tuple((re.compile(pattern, re.IGNORECASE), replacement) for pattern, replacement in _RULES)
_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x9b[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?"
)
"""Colours and the like. They go first: they would hide a name from its value, or write to the terminal."""


def mask_line(line: bytes) -> str:
    """A line as it may be shown: secrets masked, nothing that moves a terminal, cut off at SHOWN characters.

    Terminals' escape sequences and characters without a width (which turn the order of others) are left out,
    other control characters replaced.
    """
    text = _ESCAPES.sub("", line[: 4 * _READ].decode("utf-8", "replace"))[:_READ]
    text = "".join(map(_shown, text))
    for pattern, replacement in _COMPILED:
        text = pattern.sub(replacement, text)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def _shown(character: str) -> str:
    if character.isprintable():
        return character
    if character == "\t" or unicodedata.category(character) == "Zs":
        return " "
    return "" if unicodedata.category(character) == "Cf" else "\N{REPLACEMENT CHARACTER}"
