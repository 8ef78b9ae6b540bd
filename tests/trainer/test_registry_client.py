"""What is sent to MLflow, as a client sees it that needs no store."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from node_anomaly_trainer import registry
from node_anomaly_trainer.config import PrometheusConfig, SourceConfig, TrainConfig
from node_anomaly_trainer.registry_client import shown


def test_a_parameter_is_no_longer_than_a_server_takes_and_an_empty_one_is_left_out() -> None:
    config = TrainConfig(source=SourceConfig(prometheus=PrometheusConfig(matchers="x" * 900)))
    known = registry.parameters(config)
    assert known["source.prometheus.matchers"] == "x" * registry.LONGEST_VALUE
    assert "mlflow.tracking_uri" not in known


class Batches:
    """A client that keeps what is sent to it at once."""

    def __init__(self) -> None:
        self.sent: list[list[str]] = []

    def log_batch(self, run: str, params: Sequence[Any] = (), metrics: Sequence[Any] = ()) -> None:
        self.sent.append([one.key for one in (*params, *metrics)])


def test_what_is_more_than_one_batch_is_sent_in_several_and_each_of_it_once() -> None:
    client = Batches()
    settings_, figures = ({f"{kind}{n}": n for n in range(registry.MOST_PER_BATCH + 1)} for kind in "pm")
    registry._log(client, "run", settings_, figures)
    assert [len(keys) for keys in client.sent] == [100, 1, 100, 1]
    assert sorted(key for keys in client.sent for key in keys) == sorted([*settings_, *figures])


class Faster:
    """A store in which another trainer makes the experiment between the question and the order."""

    def __init__(self, *found: object) -> None:
        self.found = list(found)

    def get_experiment_by_name(self, name: str) -> object:
        return self.found.pop(0)

    def create_experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        raise MlflowException("already exists")


def test_an_experiment_that_another_trainer_made_meanwhile_is_taken() -> None:
    from mlflow.exceptions import MlflowException

    theirs = SimpleNamespace(experiment_id=7)
    assert registry.experiment_of(Faster(None, theirs), "x") == "7"
    with pytest.raises(MlflowException, match="already exists"):
        registry.experiment_of(Faster(None, None), "x")


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("http://me:secret@host:5000/path", "http://host:5000/path"),
        ("https://host", "https://host"),
        ("sqlite:////var/runs.db", "sqlite:////var/runs.db"),
        ("postgresql://me:secret@db/mlflow", "postgresql://..."),
    ],
)
def test_an_address_is_shown_without_its_password(uri: str, said: str) -> None:
    assert shown(uri) == said
