"""The trainer from Python: what its commands do, on DataFrames and objects.

Nothing here is heavy to import; scikit-learn, pandas and TensorFlow come with the first call that needs them.
Errors are `AnomalyError`s with a message and a hint, as on the command line.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from node_anomaly_trainer.config import TrainConfig, load_config, parse_config
from node_anomaly_trainer.progress import Progress, SilentProgress

if TYPE_CHECKING:
    import pandas as pd

    from node_anomaly_core.bundle_store import Bundle
    from node_anomaly_trainer.compare import Comparison
    from node_anomaly_trainer.dataset import History
    from node_anomaly_trainer.pipeline import TrainingReport

Config = TrainConfig | Mapping[str, object] | str | Path | None


def configuration(config: Config) -> TrainConfig:
    """A configuration from a file's path, a mapping as in the file, or one that is ready; defaults for None.

    Raises ConfigError with every wrong key.

    >>> configuration({"interval": "1m"}).interval
    60.0
    """
    if isinstance(config, TrainConfig):
        return config
    if isinstance(config, Mapping):
        return parse_config(config, os.environ)
    return load_config(None if config is None else Path(config), os.environ)


class Pipeline:
    """Train, publish, predict and explain with one configuration.

    >>> pipeline = Pipeline({"source": {"synthetic": {"nodes": 2}}, "publish": {"directory": "bundles"}})
    >>> pipeline.config.source.synthetic.nodes
    2
    """

    def __init__(
        self, config: Config = None, *, bundle: str | Path | None = None, progress: Progress | None = None
    ) -> None:
        """`bundle` is what `predict` and `explain` score with; without it, what is published.

        Raises ConfigError with every wrong key.
        """
        self.config = configuration(config)
        self._path = None if bundle is None else Path(bundle)
        self._progress = progress or SilentProgress()
        self._bundle: Bundle | None = None

    def run(self, deploy: bool = True) -> TrainingReport:
        """Fetch, fit, judge and, if it is accepted and `deploy`, publish.

        A refused candidate is a report with reasons, not an error. Raises SourceError, TrainingError.
        """
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        from node_anomaly_trainer.pipeline import train

        report = train(self.config, self._progress, deploy=deploy)
        self._bundle = None  # predict with what is published now
        return report

    @property
    def bundle(self) -> Bundle:
        """The bundle in use, verified. Raises BundleError where there is none."""
        if self._bundle is None:
            from node_anomaly_trainer.predicting import open_bundle

            self._bundle = open_bundle(self._path, Path(self.config.publish.directory))
        return self._bundle

    def predict(self, frame: pd.DataFrame, model: str = "combined") -> pd.DataFrame:
        """Score every row of a frame with the columns timestamp, node and the features.

        The frame's timestamp and node, `score` (1.0 is the alarm threshold, NaN while too little is known)
        and `alarm` (0 or 1), in the order and with the index of the frame. `model` names a member instead of
        all together. Raises SourceError for a cell that cannot be read, BundleError without a bundle.
        """
        from node_anomaly_trainer.predict import as_frame, predict_rows, rows_of

        rows = rows_of(frame, self.bundle, Path("frame"))
        found = predict_rows(self.bundle, rows, model=model)
        for note in found.notes:
            self._progress.note(note)
        return as_frame(frame, found, alarm=True, reasons=False)

    def explain(self, frame: pd.DataFrame, top: int = 5) -> pd.DataFrame:
        """Say why: one row for each row of the frame and each of its `top` features, the largest share first.

        Columns: timestamp, node (if the frame has it), score, feature, share (of the score), observed and
        expected in the feature's unit; the index is the frame's, repeated. Rows without a score have none.
        """
        from node_anomaly_trainer.predict import as_frame, predict_rows, rows_of

        found = predict_rows(self.bundle, rows_of(frame, self.bundle, Path("frame")), reasons=top)
        scored = as_frame(frame, found, alarm=False, reasons=False)
        counts = [len(reasons) for reasons in found.reasons]
        result = scored.loc[scored.index.repeat(counts)].copy()
        flat = [reason for reasons in found.reasons for reason in reasons]
        for name in ("feature", "share", "observed", "expected"):
            result[name] = [getattr(reason, name) for reason in flat]
        return result


class ModelComparator:
    """Compare the members with each other, with PCA and with k-means under several scenarios.

    >>> ModelComparator(models=["lstn"])
    Traceback (most recent call last):
    ...
    node_anomaly_core.errors.ConfigError: models: there is no lstn; did you mean lstm?
    """

    def __init__(
        self,
        config: Config = None,
        models: Sequence[str] = ("all",),
        *,
        progress: Progress | None = None,
    ) -> None:
        """`models` names members, or "all". Raises ConfigError."""
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        from node_anomaly_trainer.compare import Comparator

        self._comparator = Comparator(configuration(config), models)
        self._progress = progress or SilentProgress()

    def compare(self, scenarios: Sequence[str] = ("standard",), history: History | None = None) -> Comparison:
        """Fit and judge under each scenario: standard, high_anomaly, drift, noisy, gaps.

        `history` is compared on instead of what the configuration would fetch. Nothing is published.
        """
        return self._comparator.compare(scenarios, self._progress, history)
