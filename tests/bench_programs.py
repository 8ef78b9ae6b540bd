"""Programs of bench/, loaded as Python runs them from their folder."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).resolve().parents[1] / "bench"


def program(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """One of them, known as `bench.NAME` to those that are loaded after it, until the test is over."""
    monkeypatch.setattr(sys, "path", [str(BENCH.parent), *sys.path])
    spec = importlib.util.spec_from_file_location(f"bench.{name}", BENCH / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, f"bench.{name}", module)
    spec.loader.exec_module(module)
    return module
