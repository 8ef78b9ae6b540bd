"""A run that this machine's memory cannot hold is refused before anything is read."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from node_anomaly_core.errors import TrainingError
from node_anomaly_trainer import memory, pipeline, workspace
from node_anomaly_trainer.compare import Comparator
from node_anomaly_trainer.config import TrainConfig, TrainingConfig, parse_config
from node_anomaly_trainer.memory import admission_to_read, allowed_bytes, needed_bytes, require_memory
from node_anomaly_trainer.progress import SilentProgress, ignore_report
from node_anomaly_trainer.sources import fetch

GIB = 2**30


@pytest.mark.parametrize(("nodes", "days", "peak_mib"), [(50, 14, 5221), (20, 7, 2362)])
def test_the_estimate_is_what_a_run_was_measured_to_take(nodes, days, peak_mib):
    """bench/results/training.md, Pipeline: 60 features, a tick of a minute."""
    assert needed_bytes(nodes, days * 1440, 60) / 2**20 == pytest.approx(peak_mib, rel=0.05)


def test_what_does_not_fit_is_refused_with_the_part_that_does():
    require_memory(50, 20_160, 60, 8 * GIB)
    with pytest.raises(
        TrainingError, match=r"300 nodes, 80,640 ticks and 60 features take about 85"
    ) as caught:
        require_memory(300, 80_640, 60, 16 * GIB)
    assert "read 17 % of it" in caught.value.hint
    require_memory(300 * 17 // 100, 80_640, 60, 16 * GIB)
    require_memory(1, 1000, 60, 0.5 * GIB)
    with pytest.raises(TrainingError) as caught:
        require_memory(10, 10_000, 60, 0.5 * GIB)
    assert caught.value.hint.startswith("give it more memory")


def host(root, available_kb, swap_kb, cgroup="0::/\n", **limits):
    """A root with these files; `limits` are by the folder of the cgroup."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(
        f"MemTotal: 64000000 kB\nMemAvailable:   {available_kb} kB\nSwapFree: {swap_kb} kB\n"
    )
    (root / "proc/self/cgroup").write_text(cgroup)
    for path, limit in limits.items():
        file = root / "sys/fs/cgroup" / path.replace("__", "/").replace("_max", ".max")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{limit}\n")
    return root


def test_allowed_is_what_the_host_has_left(tmp_path):
    assert allowed_bytes(host(tmp_path, 1_000_000, 24_000, memory_max="max")) == 1024 * 1_024_000


def test_the_narrowest_cgroup_around_the_process_counts(tmp_path):
    inside = "0::/system.slice/anomaly-trainer.service\n"
    root = host(
        tmp_path,
        32_000_000,
        0,
        inside,
        system__memory_max=1,
        **{"system.slice__memory_max": 8 * GIB, "system.slice__anomaly-trainer.service__memory_max": "max"},
    )
    assert allowed_bytes(root) == 8 * GIB


def test_the_older_cgroups_are_heard_too(tmp_path):
    root = host(tmp_path, 32_000_000, 0, "9:cpu,cpuacct:/x\n4:memory:/kubepods/pod1\n")
    limit = root / "sys/fs/cgroup/memory/kubepods/pod1/memory.limit_in_bytes"
    limit.parent.mkdir(parents=True)
    limit.write_text(f"{4 * GIB}\n")
    assert allowed_bytes(root) == 4 * GIB


def test_where_nothing_is_known_nothing_is_refused(tmp_path):
    assert allowed_bytes(tmp_path) == math.inf


def test_this_host_is_understood():
    assert 2**20 < allowed_bytes() < 2**50


def test_a_run_ends_before_anything_is_fitted(monkeypatch):
    monkeypatch.setattr(workspace, "allowed_bytes", lambda: 1.0 * GIB)
    seen = []

    class Watched(SilentProgress):
        def phase(self, name):
            seen.append(name)
            return super().phase(name)

    config = TrainConfig()
    small = replace(config.source.synthetic, nodes=140, range=4 * 3600.0)
    config = replace(config, source=replace(config.source, synthetic=small))
    with pytest.raises(TrainingError, match="memory: 140 nodes, 960 ticks"):
        pipeline.train(config, Watched(), deploy=False)
    with pytest.raises(TrainingError, match="memory: 140 nodes, 960 ticks"):
        Comparator(config).compare(["standard"], Watched())
    assert seen == ["history"] * 2
    large = replace(config, source=replace(config.source, synthetic=replace(small, nodes=700)))
    for production, gibibytes in ((None, r"3\.9"), (object(), r"4\.3")):
        monkeypatch.setattr(pipeline, "in_production", lambda *_, known=production: known)
        with pytest.raises(TrainingError, match=f"take about {gibibytes} GiB"):
            pipeline.train(large, Watched(), deploy=False)
    monkeypatch.undo()
    tried = replace(config, training=replace(TrainingConfig(), check_memory=False))
    with pytest.raises(TrainingError, match="ticks with samples, 1000 are needed"):
        pipeline.train(tried, Watched(), deploy=False)


def test_a_file_is_asked_for_with_the_features_that_will_be_used(tmp_path):
    path = tmp_path / "fleet.csv"
    path.write_text(
        "timestamp,node,a,b\n" + "".join(f"{60 * (at // 7)},n{at % 7},1,2\n" for at in range(700))
    )
    config = parse_config({"interval": "60s", "source": {"type": "file", "file": {"path": str(path)}}})
    asked = []

    def refuse(*what):
        asked.append(what)
        raise TrainingError("too much")

    with pytest.raises(TrainingError, match="too much"):
        fetch(config, ignore_report, print, refuse)
    with pytest.raises(TrainingError, match="too much"):
        fetch(replace(config, features=("a",)), ignore_report, print, refuse)
    assert asked == [(7, 100, 2), (7, 100, 1)]


def test_what_only_reads_a_history_is_refused_where_its_values_alone_are_too_much(monkeypatch):
    monkeypatch.setattr(memory, "allowed_bytes", lambda: 1.0 * GIB)
    admit = admission_to_read(TrainingConfig())
    admit(100, 20_000, 60)
    with pytest.raises(TrainingError, match=r"are 1\.8 GiB before anything is done with them"):
        admit(200, 20_000, 60)
    admission_to_read(replace(TrainingConfig(), check_memory=False))(10**6, 10**6, 60)
