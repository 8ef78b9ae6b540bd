"""Whether so much history is wanted, asked where it is known how much it is and before it is read."""

from __future__ import annotations

from collections.abc import Callable

Admit = Callable[[int, int, int], None]
"""Hears numbers of nodes, ticks and features; raises where that is too much."""


def admit_any(_nodes: int, _ticks: int, _features: int) -> None:
    """However much it is."""
