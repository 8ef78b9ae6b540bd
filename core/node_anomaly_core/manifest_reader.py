"""Typed access to the JSON of a manifest; every complaint carries the path of the key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, cast

from node_anomaly_core.calibration import Tail
from node_anomaly_core.errors import BundleError

MAX_NUMBER = 1e300  # an integer beyond it is no float any more
LATEST = 253_402_300_799.0  # the end of the year 9999, beyond which Python has no dates


def tail_document(tail: Tail) -> dict[str, object]:
    """A tail as JSON has it."""
    return {"knots": list(tail.knots), "log10p": list(tail.log10p), "alarm_log10p": tail.alarm_log10p}


def read_tail(item: Reader) -> Tail:
    """A tail whose probabilities fall while its knots rise. Raises BundleError("manifest")."""
    knots, log10p = item.numbers("knots", 512), item.numbers("log10p", 512)
    if len(knots) != len(log10p) or len(knots) < 2:
        raise wrong(item.path, "needs as many knots as probabilities, at least two")
    if any(b <= a for a, b in pairwise(knots)):
        raise wrong(f"{item.path}.knots", "must rise")
    if any(b > a for a, b in pairwise(log10p)) or log10p[-1] >= log10p[0]:
        raise wrong(f"{item.path}.log10p", "must fall")
    alarm = item.number("alarm_log10p")
    if not alarm < 0:
        raise wrong(f"{item.path}.alarm_log10p", "must be below 0")
    return Tail(knots, log10p, alarm)


def wrong(path: str, what: str) -> BundleError:
    """The complaint about one key."""
    return BundleError(
        "manifest",
        f"manifest.json: {path or 'the document'} {what}",
        "publish the bundle again with anomaly-trainer",
    )


class Reader:
    """Typed access to one JSON object; every complaint carries the path of the key."""

    def __init__(self, document: object, path: str) -> None:
        if not isinstance(document, dict):
            raise wrong(path, "must be an object")
        self._document = cast("Mapping[str, Any]", document)
        self.path = path

    def _at(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def value(self, key: str) -> object:
        """Whatever is at the key."""
        if key not in self._document:
            raise wrong(self._at(key), "is missing")
        return self._document[key]

    def text(self, key: str, longest: int) -> str:
        """Printable text."""
        value = self.value(key)
        if not isinstance(value, str) or not 0 < len(value) <= longest or not value.isprintable():
            raise wrong(self._at(key), f"must be printable text of 1 to {longest} characters")
        return value

    def one_of(self, key: str, choices: Sequence[str]) -> str:
        """One of several words."""
        value = self.value(key)
        if value not in choices:
            raise wrong(self._at(key), f"must be one of {', '.join(choices)}")
        return str(value)

    def number(self, key: str) -> float:
        """A finite number."""
        value = self.value(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= MAX_NUMBER:
            raise wrong(self._at(key), "must be a finite number")
        return float(value)

    def positive(self, key: str) -> float:
        """A number above 0."""
        value = self.number(key)
        if value <= 0:
            raise wrong(self._at(key), "must be above 0")
        return value

    def time(self, key: str) -> float:
        """Unix seconds that can be shown as a date."""
        value = self.positive(key)
        if value >= LATEST:
            raise wrong(self._at(key), "must be unix seconds before the year 10000")
        return value

    def count(self, key: str) -> int:
        """A whole number above 0."""
        value = self.positive(key)
        if not value.is_integer():
            raise wrong(self._at(key), "must be a whole number")
        return int(value)

    def numbers(self, key: str, most: int) -> tuple[float, ...]:
        """A list of finite numbers."""
        value = self.value(key)
        if not isinstance(value, list) or len(value) > most:
            raise wrong(self._at(key), f"must be a list of at most {most} numbers")
        return tuple(Reader({str(i): v}, self._at(key)).number(str(i)) for i, v in enumerate(value))

    def child(self, key: str) -> Reader:
        """The object at the key."""
        return Reader(self.value(key), self._at(key))

    def has(self, key: str) -> bool:
        """Whether there is such a key."""
        return key in self._document

    def figures(self, most: int) -> dict[str, float]:
        """The object itself as numbers by name."""
        if len(self._document) > most:
            raise wrong(self.path, f"must have at most {most} entries")
        return {key: self.number(key) for key in self._document}

    def children(self, key: str, most: int) -> list[Reader]:
        """A list of objects."""
        value = self.value(key)
        if not isinstance(value, list) or len(value) > most:
            raise wrong(self._at(key), f"must be a list of at most {most} objects")
        return [Reader(item, f"{self._at(key)}[{index}]") for index, item in enumerate(value)]

    def items(self, most: int) -> list[tuple[str, Reader]]:
        """Every key with its object."""
        if len(self._document) > most:
            raise wrong(self.path, f"must have at most {most} entries")
        return [(key, Reader(value, self._at(key))) for key, value in self._document.items()]
