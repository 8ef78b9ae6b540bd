"""Servers of bundles, good and bad."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import agent_bundle
from bundle_server import BundleServer
from fetch_world import KEY, NEW, OLD
from node_anomaly_core.bundle import add_signature
from node_anomaly_core.signing import sign


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[float, Path]:
    """Two signed bundles by when they were trained."""
    root = tmp_path_factory.mktemp("made")
    found = {}
    for trained_at in (OLD, NEW):
        path = agent_bundle.make_bundle(root, trained_at=trained_at)
        add_signature(path, sign((path / "manifest.json").read_bytes(), [KEY]))
        found[trained_at] = path
    return found


@pytest.fixture
def serve() -> Iterator[Callable[..., BundleServer]]:
    running: list[BundleServer] = []

    def start(**options: bool) -> BundleServer:
        running.append(BundleServer(**options).start())
        return running[-1]

    yield start
    for server in running:
        server.stop()


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a host without one."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
