"""Labelled folders as `anomaly-trainer bench` reads them, and tasks that its processes are tried with."""

from __future__ import annotations

import csv
import json
import os
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from node_anomaly_trainer.config import TrainConfig, parse_config

INTERVAL_S = 60
TRAIN, TEST = 600, 400
EVENTS = ((90, 110), (250, 290))
COLUMNS = ("cpu busy", "load", "requests/s", "load")

SMALL = """
training: {faults_per_node_day: 90}
models:
  enabled: [isolation_forest, random_forest]
  isolation_forest: {n_estimators: 10, max_samples: 128}
  random_forest: {n_estimators: 10}
"""


def small_config() -> TrainConfig:
    """Two members of few trees: an entity takes seconds."""
    return parse_config(yaml.safe_load(SMALL))


def server(seed: int, train: int = TRAIN, test: int = TEST) -> dict[str, NDArray[Any]]:
    """Four features of one server with two incidents in its test part, as arrays of a file."""
    rng = np.random.default_rng(seed)
    ticks = train + test
    noise = rng.normal(size=(ticks, len(COLUMNS)))
    for tick in range(1, ticks):
        noise[tick] += 0.6 * noise[tick - 1]
    values = (noise + 2.0 * np.sin(np.arange(ticks) / 70.0)[:, None]).astype(np.float32)
    label = np.zeros(test, dtype=np.uint8)
    for first, stop in EVENTS:
        label[first:stop] = 1
        values[train + first : train + stop, :3] += 15.0
    return {
        "train": values[:train],
        "test": values[train:],
        "label": label,
        "columns": np.array(COLUMNS),
        "interval_s": np.array(INTERVAL_S),
    }


def series(seed: int, rows: int) -> dict[str, NDArray[Any]]:
    """One value over time, with one incident, as arrays of a file."""
    rng = np.random.default_rng(seed)
    label = np.zeros(rows, dtype=np.uint8)
    label[rows // 2 : rows // 2 + 5] = 1
    return {
        "time": 1_600_000_000 + INTERVAL_S * np.arange(rows),
        "value": rng.normal(size=rows) + 20.0 * label,
        "label": label,
        "interval_s": np.array(INTERVAL_S),
    }


def write_folder(folder: Path, entities: dict[str, dict[str, NDArray[Any]]]) -> Path:
    """A folder with these entities; keys are dataset/entity."""
    manifest = []
    for number, (name, arrays) in enumerate(entities.items()):
        dataset, entity = name.split("/", 1)
        path = folder / dataset / f"{number}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **arrays)
        manifest.append({"dataset": dataset, "entity": entity, "path": f"{dataset}/{number}.npz"})
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def read_scores(path: Path) -> NDArray[np.float64]:
    """The column of a scores file, as a reader of CSV sees it."""
    with path.open(newline="") as file:
        return np.array([float(row["score"]) for row in csv.DictReader(file)])


Report = Callable[[float, str], None]


@dataclass(frozen=True)
class Write:
    """Writes what its process is like, then ends well."""

    path: Path

    def run(self, report: Report) -> None:
        report(0.5, "half")
        names = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "LOKY_MAX_CPU_COUNT")
        blocked = signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
        seen = {"pid": os.getpid(), "deaf": blocked, **{name: os.environ.get(name) for name in names}}
        self.path.write_text(json.dumps(seen))


@dataclass(frozen=True)
class Fail:
    """Raises this."""

    error: Exception

    def run(self, report: Report) -> None:
        raise self.error


@dataclass(frozen=True)
class Die:
    """Its process is gone without a word, by a signal or with an exit code."""

    code: int

    def run(self, report: Report) -> None:
        if self.code < 0:
            os.kill(os.getpid(), -self.code)
        os._exit(self.code)


@dataclass(frozen=True)
class Chatter:
    """Tells how far it is as fast as it can."""

    def run(self, report: Report) -> None:
        for tick in range(10_000):
            report(tick / 10_000, "on")


@dataclass(frozen=True)
class Litter:
    """Says where its temporary directory is, and dies with a file in it."""

    path: Path

    def run(self, report: Report) -> None:
        folder = Path(tempfile.mkdtemp())
        (folder / "left").write_text("behind")
        self.path.write_text(str(folder))
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Sleep:
    """Goes on for a long time, and says where it is once it has begun."""

    path: Path

    def run(self, report: Report) -> None:
        self.path.write_text(str(os.getpid()))
        while True:
            report(0.1, "asleep")
            time.sleep(0.05)


@dataclass(frozen=True)
class Silent:
    """Says once that it has begun, and then hears that nobody listens only from a signal, if at all."""

    path: Path
    stubborn: bool = False

    def run(self, report: Report) -> None:
        if self.stubborn:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self.path.write_text(str(os.getpid()))
        report(0.1, "asleep")
        time.sleep(30)


def names_of(entries: Sequence[Any]) -> list[str]:
    """Of entries, in order."""
    return [entry.name for entry in entries]
