"""The central trainer: history in, a bundle that passed the gate out.

`Pipeline` and `ModelComparator` are the Python API; they are loaded when they are first asked for, so that
importing the package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from node_anomaly_trainer.api import ModelComparator, Pipeline

__all__ = ["ModelComparator", "Pipeline"]


def __getattr__(name: str) -> object:
    """Load the API at its first use."""
    if name in __all__:
        from node_anomaly_trainer import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
