"""What the processes of a bench are told to do; what they import for it, they import there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from node_anomaly_trainer.bench.data import Entry
from node_anomaly_trainer.config import TrainConfig
from node_anomaly_trainer.progress import Report


@dataclass(frozen=True, slots=True)
class BenchEntity:
    """Train, score and judge one entity."""

    entry: Entry
    out: Path
    config: TrainConfig
    fingerprint: str
    lenders: tuple[Path, ...]

    def run(self, report: Report) -> None:
        """See entity.bench_entity."""
        from node_anomaly_trainer.bench.entity import bench_entity

        bench_entity(self.entry, self.out, self.config, self.fingerprint, self.lenders, report)


@dataclass(frozen=True, slots=True)
class LendLabels:
    """Write down what the incidents of one entity look like."""

    entry: Entry
    out: Path
    config: TrainConfig
    fingerprint: str

    def run(self, report: Report) -> None:
        """See lenders.lend."""
        from node_anomaly_trainer.bench.lenders import lend

        lend(self.entry, self.out, self.config, self.fingerprint, report)
