"""The text exposition format, read strictly where it is wanted and not at all where it is not.

An exporter's answer holds thousands of lines of which a few hundred are wanted. A line is looked at by its
name first; the labels of a wanted one are parsed once and remembered by their bytes, because they are the
same at every scrape. https://prometheus.io/docs/instrumenting/exposition_formats/#text-format-details
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence

from node_anomaly_core.expressions import Reading, SeriesKey

MAX_LABEL_SETS = 16384
"""Label sets remembered for each metric; beyond that (a metric that churns) they are parsed again."""

MAX_SERIES = 4096
"""Series kept of one answer. With more it is refused: a partial sum would look like a real number."""

Want = Callable[[Mapping[str, str]], SeriesKey | None]
"""The labels of a series -> the key its value is kept under, None if it is not wanted."""

_LABEL = rb'[ \t]*+([a-zA-Z_][a-zA-Z0-9_]*+)[ \t]*+=[ \t]*+"((?:[^"\\\n]|\\[\\"n])*+)"[ \t]*+'
_LABELS = re.compile(rb"\{(?:%s(?:,%s)*+,?+)?+[ \t]*+\}" % ((_LABEL,) * 2))
_ONE_LABEL = re.compile(_LABEL)
_ESCAPE = re.compile(r'\\([\\"n])')
_TAIL = re.compile(
    rb"[ \t]++([+-]?(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++)(?:[eE][+-]?[0-9]++)?+|[+-]?Inf|NaN)"
    rb"(?:[ \t]++-?[0-9]{1,20})?+[ \t]*+"
)
_NAME = re.compile(rb"[a-zA-Z_:][a-zA-Z0-9_:]*+")
_BLANKS = (b" ", b"\t")


class TextReader:
    """Takes the wanted series out of an exposition; keeps nothing of it but how label sets are keyed."""

    def __init__(self, wants: Mapping[str, Sequence[Want]]) -> None:
        self.metrics = tuple(wants)
        self._wants = {metric.encode(): tuple(of_metric) for metric, of_metric in wants.items()}
        self._known: dict[bytes, dict[bytes, tuple[SeriesKey, ...]]] = {name: {} for name in self._wants}

    def read(self, data: bytes) -> Reading:
        """The wanted series of a text exposition; the last of repeated ones counts, NaN is left out.

        Raises ValueError if a line that is wanted is not as the format has it, if the text ends within a
        line, if there is nothing of what is wanted, or more than MAX_SERIES of it.
        """
        if data and not data.endswith(b"\n"):
            raise ValueError("the answer ends within a line")
        reading: Reading = {}
        known_labels = self._known
        seen = False
        for line in data.split(b"\n"):
            # The cheap look first: most lines end here.
            brace = line.find(b"{")
            name = line[:brace] if brace > 0 else line.partition(b" ")[0]
            known = known_labels.get(name)
            if known is None:
                if not (name[-1:] in _BLANKS or line[:1] in _BLANKS or b"\t" in name):
                    continue
                line = line.lstrip(b" \t")  # noqa: PLW2901  # rare: blanks where nobody writes them
                name = _name(line)
                known = known_labels.get(name)
                if known is None:
                    continue
            seen = True
            end = line.rfind(b"}") + 1
            labels = line[len(name) : end] if end else b""
            keys = known.get(labels)
            if keys is None:
                keys = self._keys(name, labels, known)
            tail = _TAIL.fullmatch(line, end or len(name))
            if tail is None:
                raise ValueError(f"not a sample: {_shown(line)}")
            value = float(tail[1])
            if not math.isnan(value):  # not known, so not there
                for key in keys:
                    reading[key] = value
        if not seen:
            what = self.metrics[0] if len(self.metrics) == 1 else f"any of {len(self.metrics)} wanted metrics"
            raise ValueError(f"no sample of {what}: {_shown(data[:200])}")
        if len(reading) > MAX_SERIES:
            raise ValueError(f"more than {MAX_SERIES} series")
        return reading

    def _keys(
        self, name: bytes, labels: bytes, known: dict[bytes, tuple[SeriesKey, ...]]
    ) -> tuple[SeriesKey, ...]:
        parsed = parse_labels(labels)
        found = (want(parsed) for want in self._wants[name])
        keys = tuple(key for key in found if key is not None)
        if len(known) >= MAX_LABEL_SETS:
            known.clear()
        known[labels] = keys
        return keys


def parse_labels(text: bytes) -> dict[str, str]:
    """The labels of `{a="b",c="d"}`, braces included; empty for no text at all.

    Raises ValueError if they are not as the format has them, or if one is there twice.
    """
    text = text.strip(b" \t")
    if not text:
        return {}
    if not _LABELS.fullmatch(text):
        raise ValueError(f"not a set of labels: {_shown(text)}")
    labels: dict[str, str] = {}
    for name, value in _ONE_LABEL.findall(text):
        key = name.decode()
        if key in labels:
            raise ValueError(f"label {key} twice: {_shown(text)}")
        labels[key] = _ESCAPE.sub(_unescape, value.decode("utf-8", "replace"))
    return labels


def _unescape(found: re.Match[str]) -> str:
    return "\n" if found[1] == "n" else found[1]


def _name(line: bytes) -> bytes:
    """The metric's name at the start of a line; empty for a comment or an empty line."""
    found = _NAME.match(line)
    return found[0] if found else b""


def _shown(data: bytes) -> str:
    text = data[:80].decode("utf-8", "replace")
    return repr(text + ("..." if len(data) > 80 else ""))
