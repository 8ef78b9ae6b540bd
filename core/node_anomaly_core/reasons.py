"""Why a score is what it is: worked out when somebody first asks.

Of most ticks nobody does, and the answer costs a tenth of the tick (docs/adr/0027). What it is made of never
changes afterwards, so it is the same whenever it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Shares(NamedTuple):
    """Which feature is behind a score."""

    combined: Array  # (f,) of the whole score: sums to 1, NaN = unknown
    members: Mapping[str, Array]  # (f,) of each member alone


class Reasons:
    """The shares of one score. Any thread may ask; two that ask first at once both work it out."""

    __slots__ = ("_made", "_make")

    def __init__(self, make: Callable[[], Shares] | None, made: Shares | None = None) -> None:
        """`make` must depend on nothing that changes; it is let go once it has been called."""
        self._made = made
        self._make = make

    @classmethod
    def known(cls, combined: Array, members: Mapping[str, Array] | None = None) -> Reasons:
        """Reasons that are there already."""
        return cls(None, Shares(combined, members or {}))

    def shares(self) -> Shares:
        """The answer, worked out at the first call."""
        make, made = self._make, self._made  # in this order: `_made` is set before `_make` goes
        if made is None:
            made = self._made
        if made is None:
            if make is None:
                raise RuntimeError("reasons that nobody can work out")
            self._made = made = make()
            self._make = None
        return made
