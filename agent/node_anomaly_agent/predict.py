"""`POST /api/v1/predict`: scores and reasons for rows of feature values that a client brings.

The rows are scored one after the other by a scorer of their own, beside the tick and without a trace in it:
as what this node does next (`"history": "node"`, the default), or as a node that nobody knows yet. One
request at a time; the next one is told to come back.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from node_anomaly_agent import api
from node_anomaly_agent.predict_request import Asked, Row, parse_request, parse_rows
from node_anomaly_agent.scorer import Fork
from node_anomaly_agent.snapshot import Snapshot, reasons
from node_anomaly_agent.web_answer import Answer, Request, json_answer, problem
from node_anomaly_core.errors import ConfigError
from node_anomaly_core.score import Score
from node_anomaly_core.scoring import NodeScorer

FORK_PATIENCE_S = 5.0
_BUSY_S = 2
_PAUSE_S = 0.0005
_PATIENT_PAUSES = 1000


class Predictor:
    """Answers requests for scores. Any thread.

    Args:
        fork: asks the loop for a fork of its scorer, waiting at most so many seconds.
        trim: gives freed memory back to the system.
        ticking: whether the loop is at its work now, which comes first.
    """

    def __init__(
        self,
        fork: Callable[[float], Fork | None],
        trim: Callable[[], None],
        ticking: Callable[[], bool] = lambda: False,
    ) -> None:
        self._fork = fork
        self._ticking = ticking
        self._trim = trim
        self._busy = threading.Lock()

    def __call__(self, request: Request) -> Answer:
        """Answer one request."""
        if request.header("CONTENT_TYPE").partition(";")[0].strip().lower() != "application/json":
            return problem(
                "415 Unsupported Media Type",
                "the body must be JSON",
                "Content-Type",
                "send the header Content-Type: application/json",
            )
        if not self._busy.acquire(blocking=False):
            return problem(
                "429 Too Many Requests",
                "another prediction is being made; this node makes one at a time",
                request.path,
                f"try again in {_BUSY_S} s",
                (("Retry-After", str(_BUSY_S)),),
            )
        try:
            return self._predict(request)
        except ConfigError as error:
            where, _, what = error.message.partition(": ")
            return problem("400 Bad Request", what, where, error.hint)
        finally:
            self._busy.release()
            self._trim()

    def _predict(self, request: Request) -> Answer:
        asked = parse_request(request.body())
        fork = self._fork(FORK_PATIENCE_S)
        if fork is None:
            return problem(
                "503 Service Unavailable",
                "there is no bundle to score with",
                request.path,
                "look at /-/ready for the reason",
                (("Retry-After", "15"),),
            )
        scorer = fork.scorer(with_history=asked.with_history)
        times = fork.state.get("times")
        last = float(times[-1]) if asked.with_history and times is not None and len(times) else None
        rows = parse_rows(asked, fork.info.features, fork.interval_s, last)
        snapshot = Snapshot(started=0.0, interval_s=fork.interval_s, heartbeat=0.0, bundle=fork.info)
        return json_answer(
            {
                "bundle": api.bundle_document(snapshot),
                "history": "node" if asked.with_history else "none",
                "interval_seconds": fork.interval_s,
                "rows": [_document(self._step(scorer, row), snapshot, asked) for row in rows],
            }
        )

    def _step(self, scorer: NodeScorer, row: Row) -> Score:
        # The interpreter's lock goes back and forth between two threads that compute, 5 ms at a time; a tick
        # that had to share it would take a hundred times as long.
        for _ in range(_PATIENT_PAUSES):
            time.sleep(_PAUSE_S)
            if not self._ticking():
                break
        return scorer.step(row.timestamp, np.array(row.values))


def _document(score: Score, snapshot: Snapshot, asked: Asked) -> dict[str, object]:
    top = reasons(replace(snapshot, score=score), asked.reasons) if score.warm else []
    return {
        **api.scored(score),
        "warm": score.warm,
        "reasons": [api.reason_document(reason) for reason in top],
    }
