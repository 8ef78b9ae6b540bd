"""The cache of history: what is in it stays, what is missing is known, and no file is ever half there."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_anomaly_core.errors import SourceError
from node_anomaly_trainer.config import PrometheusConfig
from node_anomaly_trainer.sources.cache import Cache, Covered, Day, days

DAY = Day(20_458, 900)  # 2026-01-05, 96 ticks


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path, PrometheusConfig(), DAY.step)


@given(st.integers(1, 300), st.integers(19_000 * 86_400, 21_000 * 86_400), st.integers(1, 4000))
def test_days_cover_every_tick_of_a_range_once(step, start, ticks):
    start = start // step * step
    wanted = start + step * np.arange(ticks)
    found = [
        day.start + step * tick
        for day, first, stop in days(start, int(wanted[-1]), step)
        for tick in range(first, stop)
    ]
    assert found == wanted.tolist()
    assert all(0 <= first < stop <= day.ticks for day, first, stop in days(start, int(wanted[-1]), step))


@given(st.lists(st.tuples(st.integers(0, 95), st.integers(1, 40)), min_size=1, max_size=6))
def test_what_is_missing_and_what_is_there_make_one_unbroken_range(parts):
    known = None
    for first, length in parts:
        stop = min(first + length, 96)
        if known is None:
            known = Covered("q", first, stop, 0)
            continue
        lacking = known.missing(first, stop)
        read = sorted([(known.first, known.stop), *lacking])
        assert all(before[1] == after[0] for before, after in itertools.pairwise(read))
        known = Covered("q", read[0][0], read[-1][1], 0)
        assert known.first <= first
        assert known.stop >= stop


def test_values_keep_their_ticks_and_gaps_stay_nan(cache):
    cache.extend("a:9100", DAY, 10, {"x": ("q", np.array([1.0, np.nan, 0.0]))})
    cache.extend("a:9100", DAY, 13, {"x": ("q", np.array([4.0])), "y": ("p", np.array([np.nan]))})
    column = cache.read("a:9100", DAY, ["x"])["x"]
    np.testing.assert_array_equal(column[10:14], [1.0, np.nan, 0.0, 4.0])
    assert np.isnan(column[:10]).all()
    assert np.isnan(column[14:]).all()
    assert cache.covered("a:9100", DAY) == {"x": Covered("q", 10, 14, 3), "y": Covered("p", 13, 14, 0)}


def test_another_query_replaces_what_the_old_one_gave(cache):
    cache.extend("a", DAY, 0, {"x": ("old", np.ones(96))})
    cache.extend("a", DAY, 5, {"x": ("new", np.zeros(2))})
    assert cache.covered("a", DAY)["x"] == Covered("new", 5, 7, 2)
    assert np.isnan(cache.read("a", DAY, ["x"])["x"][[0, 4, 7, 95]]).all()


def test_what_was_read_far_before_or_after_the_rest_leaves_no_hole_that_passes_for_read(cache):
    for node, first, then in (("a", 50, 10), ("b", 10, 50)):
        cache.extend(node, DAY, first, {"x": ("q", np.ones(5))})
        cache.extend(node, DAY, then, {"x": ("q", np.ones(5))})
        assert cache.covered(node, DAY)["x"] == Covered("q", then, then + 5, 5)


def test_ticks_that_will_be_read_again_are_not_counted_as_present(cache):
    cache.extend("a", DAY, 0, {"x": ("q", np.arange(10.0))}, settled=6)
    assert cache.covered("a", DAY)["x"] == Covered("q", 0, 6, 6)


def test_young_ticks_are_kept_but_will_be_read_again(cache):
    cache.extend("a", DAY, 0, {"x": ("q", np.arange(20.0))}, settled=15)
    assert cache.covered("a", DAY)["x"].missing(0, 20) == ((15, 20),)
    assert cache.read("a", DAY, ["x"])["x"][19] == 19.0
    cache.extend("b", DAY, 8, {"x": ("q", np.arange(4.0))}, settled=-3)
    assert cache.covered("b", DAY)["x"].missing(8, 12) == ((8, 12),)


@pytest.mark.parametrize("node", ["a:9100", "../../etc", "a/b", "[::1]:9100", "Ü %"])
def test_any_name_of_a_node_is_one_folder_below_the_cache(cache, tmp_path, node):
    cache.extend(node, DAY, 0, {"x": ("q", np.ones(1))})
    (file,) = tmp_path.rglob("*.parquet")
    assert file.relative_to(cache.root).parts[1:] == ("day=2026-01-05", "ticks.parquet")
    assert cache.covered(node, DAY)


def test_others_can_read_the_files(cache):
    cache.extend("a", DAY, 0, {"x": ("q", np.arange(96.0))})
    table = pq.read_table(cache.path("a", DAY), partitioning=None)
    assert table["timestamp"][0].as_py().isoformat() == "2026-01-05T00:00:00"
    assert table["x"].to_pylist() == list(range(96))


def test_servers_selections_and_tenants_do_not_mix(tmp_path):
    configs = [
        PrometheusConfig(),
        PrometheusConfig(url="http://other:9090"),
        PrometheusConfig(matchers='job="node"'),
        PrometheusConfig(headers={"X-Scope-OrgID": "a"}),
    ]
    assert len({Cache(tmp_path, config, 15).root for config in configs}) == 4
    assert Cache(tmp_path, configs[0], 15).root == Cache(tmp_path, configs[0], 15).root
    assert Cache(tmp_path, configs[0], 15).root != Cache(tmp_path, configs[0], 60).root


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"PAR1" + b"\0" * 4000 + b"PAR1"])
def test_a_damaged_file_counts_as_missing_and_is_replaced(cache, damage):
    cache.extend("a", DAY, 0, {"x": ("q", np.ones(3))})
    cache.path("a", DAY).write_bytes(damage)
    assert cache.covered("a", DAY) == {}
    assert cache.read("a", DAY, ["x"]) == {}
    cache.extend("a", DAY, 1, {"x": ("q", np.ones(3))})
    assert cache.covered("a", DAY)["x"] == Covered("q", 1, 4, 3)


def test_a_cache_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError, match="cannot write to the cache") as caught:
        Cache(tmp_path / "file", PrometheusConfig(), 15)
    assert "source.prometheus.cache" in caught.value.hint


WRITER = """
import sys
from pathlib import Path
import numpy as np
from node_anomaly_trainer.config import PrometheusConfig
from node_anomaly_trainer.sources.cache import Cache, Day
cache = Cache(Path(sys.argv[1]), PrometheusConfig(), 15)
for number in range(10**6):
    columns = {f"f{at}": ("q", np.full(5760, float(number))) for at in range(20)}
    cache.extend(f"node-{number % 3}", Day(20458, 15), 0, columns)
    print("written", flush=True)
"""


def test_a_kill_at_any_moment_leaves_whole_files_only(tmp_path):
    for number in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE
        ) as writer:
            writer.stdout.readline()
            time.sleep(0.02 + 0.03 * number)
            writer.send_signal(signal.SIGKILL)
    cache, day = Cache(tmp_path, PrometheusConfig(), 15), Day(20_458, 15)
    files = list(tmp_path.rglob("*.parquet"))
    assert files
    for node in {file.parent.parent.name.removeprefix("node=") for file in files}:
        values = cache.read(node, day, [f"f{at}" for at in range(20)])
        assert len(values) == 20
        assert len({column[at] for column in values.values() for at in (0, 5759)}) == 1
    json.loads((cache.root / "about.json").read_text())
