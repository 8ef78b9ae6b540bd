"""Fixtures that every test folder may use; the real parts themselves are in rig.py."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import rig

settings.register_profile("default", deadline=None)
settings.register_profile(  # the same examples on every run: a red CI run can be repeated
    "ci", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "default")


LONGEST = (
    "e2e/test_make_run.py",
    "e2e/test_installed_agent.py",
    "trainer/test_registry.py",
    "trainer/test_cli.py",
    "trainer/test_bench_run.py",
    "trainer/test_bench_entity.py",
    "contract/test_models.py",
    "deploy/test_systemd_booted.py",
    "trainer/test_backtest.py",
    "trainer/test_log_member.py",
)
"""Files that take longest, roughly the longest first: minutes or most of one."""


@pytest.hookimpl(optionalhook=True)  # also where xdist is switched off
def pytest_xdist_auto_num_workers() -> int:
    """What `-n auto` starts: one more than there are cores, for tests wait for servers and for clocks.

    `--maxprocesses` is still the limit.
    """
    return len(os.sched_getaffinity(0)) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slowest first, so that no worker is left with an installation when the others are done.

    A file stays with one worker (loadfile): its server or its training run is started once.
    """
    tests = rig.REPOSITORY / "tests"
    order = {tests / name: place for place, name in enumerate(LONGEST)}
    if gone := [str(path) for path in order if not path.exists()]:
        raise pytest.UsageError(f"tests/conftest.py has files among LONGEST that are not there: {gone}")
    items.sort(key=lambda item: order.get(item.path, len(order)))
    alone = {item.path for item in items if item.get_closest_marker("alone")}
    if hidden := [str(path) for path in alone if "mark.alone" not in path.read_text()]:
        raise pytest.UsageError(f"the Makefile looks for the words mark.alone, not there in {hidden}")


# A shell's background job ignores Ctrl-C, and so would every program that a test starts to interrupt it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the source tree."""
    return rig.REPOSITORY


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """tests/fixtures: the frozen machine and recorded inputs."""
    return rig.REPOSITORY / "tests" / "fixtures"


@pytest.fixture
def forbidden(tmp_path: Path) -> Iterator[tuple[Path, list[str]]]:
    """A folder that only another user may enter, and what makes a command run as a user like any other.

    Root may enter everything; without two of its capabilities it may not.
    """
    folder = tmp_path / "forbidden"
    folder.mkdir(mode=0)
    ordinary: list[str] = []
    if os.geteuid() == 0:
        os.chown(folder, 1, 1)
        ordinary = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    yield folder, ordinary
    if os.geteuid() == 0:
        os.chown(folder, 0, 0)
    folder.chmod(0o700)


@pytest.fixture
def free_port() -> int:
    """A TCP port that is free on loopback."""
    return rig.free_port()


@pytest.fixture(scope="session")
def lint_metrics() -> Callable[[str], str]:
    """`promtool check metrics` as a function: exposition text -> complaints ('' = clean)."""
    rig.need(rig.PROMTOOL)
    return rig.lint_metrics


@pytest.fixture
def node_exporter(tmp_path: Path) -> Iterator[rig.Service]:
    """A real node_exporter of this host."""
    with rig.node_exporter(tmp_path / "node_exporter") as running:
        yield running
