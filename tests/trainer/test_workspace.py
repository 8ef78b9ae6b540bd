"""What memory does not hold lies on disk while a run lasts, and gives the same bundle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from node_anomaly_core.errors import TrainingError
from node_anomaly_trainer.config import TrainingConfig, parse_config
from node_anomaly_trainer.memory import disk_bytes, needed_bytes
from node_anomaly_trainer.pipeline import build
from node_anomaly_trainer.progress import SilentProgress, ignore_report
from node_anomaly_trainer.sources import fetch
from node_anomaly_trainer.workspace import Workspace, require_scratch

GIB = 2**30
FLEET = 200, 80_640, 60
"""Two weeks at 15 s of 200 nodes."""


def workspace(scratch, allowed, **options):
    notes = []
    config = replace(TrainingConfig(), scratch=str(scratch) if scratch else "")
    return Workspace(config, notes.append, allowed=allowed, **options), notes


def test_what_fits_stays_in_memory(tmp_path):
    here, notes = workspace(tmp_path, 8 * GIB)
    here.admit(10, 20_000, 60)
    array = here.empty((3, 2), np.float32)
    assert not here.on_disk
    assert array.base is None
    assert notes == []


def test_what_does_not_fit_goes_to_disk_and_leaves_no_name_there(tmp_path):
    here, notes = workspace(tmp_path, 1.5 * GIB)
    here.admit(4, 40_000, 60)
    assert here.on_disk
    array = here.empty((1_000, 4, 60), np.float32)
    array[...] = 2.5
    assert array.base is not None
    assert (array == 2.5).all()
    assert list(tmp_path.iterdir()) == []
    (said,) = notes
    assert said.startswith("memory: about 2.2 GiB are more than there are, so 0.5 go to ")


def test_without_a_scratch_directory_the_refusal_names_it_and_how_much_room_it_takes():
    here, _ = workspace("", 8 * GIB)
    with pytest.raises(
        TrainingError, match="200 nodes, 80,640 ticks and 60 features take about 57"
    ) as caught:
        here.admit(*FLEET)
    assert "training.scratch to a directory on a disk with 52 GiB free" in caught.value.hint


def test_without_the_check_the_disk_is_used_all_the_same(tmp_path):
    here = Workspace(
        replace(TrainingConfig(), scratch=str(tmp_path), check_memory=False), print, allowed=1.5 * GIB
    )
    here.admit(4, 40_000, 60)
    assert here.on_disk
    here.admit(1, 1_000, 60)
    assert not here.on_disk


def test_what_does_not_even_fit_with_it_is_refused(tmp_path):
    here, _ = workspace(tmp_path, 2 * GIB)
    with pytest.raises(TrainingError, match=r"GiB to train on, the rest on disk, and there are 2\.0"):
        here.admit(*FLEET)


def test_a_bundle_in_production_takes_its_part_of_both():
    alone, beside = needed_bytes(*FLEET), needed_bytes(*FLEET, 0.25)
    assert beside > 1.1 * alone
    assert disk_bytes(*FLEET, 0.25) == pytest.approx(1.25 * disk_bytes(*FLEET))


def test_a_directory_without_room_of_memory_or_that_is_none_is_refused_at_once(tmp_path):
    require_scratch(tmp_path, 1_000.0)
    with pytest.raises(TrainingError, match=r"GiB free, 1073741824\.0 are needed"):
        require_scratch(tmp_path, 2.0**60)
    with pytest.raises(TrainingError, match=r"training\.scratch: .*gone: No such file or directory"):
        require_scratch(tmp_path / "gone", 1.0)
    device = tmp_path.stat().st_dev
    table = tmp_path / "proc/self/mountinfo"
    table.parent.mkdir(parents=True)
    table.write_text(
        f"36 35 {os.major(device)}:{os.minor(device)} / /x rw,noatime master:1 - tmpfs tmpfs rw\n"
    )
    with pytest.raises(TrainingError, match=r"is memory itself \(tmpfs\)"):
        require_scratch(tmp_path, 1.0, root=tmp_path)


FULL = """
import resource, signal, sys
import numpy as np
from dataclasses import replace
from node_anomaly_core.errors import TrainingError
from node_anomaly_trainer.config import TrainingConfig
from node_anomaly_trainer.workspace import Workspace
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
here = Workspace(replace(TrainingConfig(), scratch=sys.argv[1]), print, allowed=1.3 * 2**30)
here.admit(40, 4_000, 60)
try:
    here.empty((4_000, 40, 60), np.float32)
except TrainingError as error:
    print(error)
"""


def test_a_disk_that_fills_up_is_an_error_and_not_the_end_of_the_process(tmp_path):
    """As a limit on the size of files does it: the room is taken when the array is made."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"training.scratch: {tmp_path}: File too large" in done.stdout


KILLED = """
import sys, time
import numpy as np
from dataclasses import replace
from node_anomaly_trainer.config import TrainingConfig
from node_anomaly_trainer.workspace import Workspace
here = Workspace(replace(TrainingConfig(), scratch=sys.argv[1]), print, allowed=1.3 * 2**30)
here.admit(40, 4_000, 60)
array = here.empty((4_000, 40, 60), np.float32)
array[...] = 1.0
print("made", flush=True)
time.sleep(60)
"""


def test_a_run_that_is_killed_leaves_nothing_on_the_disk(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        while "made" not in process.stdout.readline():
            pass
        links = [str(one.readlink()) for one in Path(f"/proc/{process.pid}/map_files").iterdir()]
        assert any(str(tmp_path) in link and "deleted" in link for link in links)
        process.send_signal(signal.SIGKILL)
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_made_on_disk_is_the_same_to_the_byte(tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1790000000")
    config = parse_config(
        {
            "source": {"synthetic": {"nodes": 3, "range": "9h"}},
            "features": [
                "cpu_busy_ratio",
                "memory_available_ratio",
                "load1_per_cpu_ratio",
                "forks_per_second",
            ],
            "models": {"enabled": ["isolation_forest", "random_forest", "kmeans", "autoregression"]},
        }
    )
    history = fetch(config, ignore_report, print)
    here, _ = workspace(tmp_path, 1.0)
    here.on_disk = True
    in_memory = build(history, config, SilentProgress())
    on_disk = build(history, config, SilentProgress(), empty=here.empty)
    assert on_disk.candidate.clean.summary.base is not None
    assert on_disk.candidate.files == in_memory.candidate.files
    assert on_disk.candidate.manifest == in_memory.candidate.manifest
