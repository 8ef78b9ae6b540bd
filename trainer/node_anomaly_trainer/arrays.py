"""How the arrays that grow with a history are made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

Empty = Callable[[tuple[int, ...], DTypeLike], NDArray[Any]]
"""Makes an array of this shape and kind whose content is not decided."""


def in_memory(shape: tuple[int, ...], kind: DTypeLike) -> NDArray[Any]:
    """Where every array lies that no workspace makes."""
    return np.empty(shape, dtype=kind)
