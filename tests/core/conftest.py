"""One small real bundle per session, in memory and on disk."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import small_bundle
from node_anomaly_core.bundle import Bundle, verify_bundle, write_bundle


@pytest.fixture(scope="session")
def small() -> small_bundle.SmallBundle:
    """The bundle before it is written, with what it was made of."""
    return small_bundle.build()


@pytest.fixture(scope="session")
def written(small: small_bundle.SmallBundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle's directory; read only, ask for `copied` to damage it."""
    return write_bundle(tmp_path_factory.mktemp("bundles"), small.manifest, small.files)


@pytest.fixture(scope="session")
def bundle(written: Path) -> Bundle:
    """The bundle as an agent has it: read, checked, tried."""
    return verify_bundle(written)


@pytest.fixture
def copied(written: Path, tmp_path: Path) -> Path:
    """A copy of the bundle's directory that a test may damage."""
    return Path(shutil.copytree(written, tmp_path / "bundles" / written.name))
