"""Scores for rows that a client brings: the question, the answer, and that the tick does not notice."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import small_bundle
from agent_fakes import FakeLog
from node_anomaly_agent.loop_question import LoopQuestion
from node_anomaly_agent.predict import Predictor
from node_anomaly_agent.predict_request import MAX_ROWS, parse_request, parse_rows
from node_anomaly_agent.scorer import AgentScorer, Candidate, Fork
from node_anomaly_agent.snapshot import BundleInfo
from node_anomaly_core.errors import ConfigError
from node_anomaly_core.scoring import NodeScorer
from web_site import Running

TICKS = 40
NAMES = [feature.name for feature in small_bundle.FEATURES]
JSON = {"Content_Type": "application/json"}


@pytest.fixture(scope="module")
def scorer() -> AgentScorer:
    """A node that has lived through forty ordinary ticks."""
    bundle = small_bundle.build().bundle()
    info = BundleInfo.of("/bundles/small", bundle.version, bundle.manifest)
    live = AgentScorer(Candidate(NodeScorer(bundle, 15.0), np.arange(len(NAMES)), info))
    for at, values in enumerate(small_bundle.rows(5, TICKS)):
        live.step(small_bundle.LIVE + 15.0 * at, values)
    return live


@pytest.fixture
def site(scorer) -> Iterator[Running]:
    predictor = Predictor(lambda _patience: scorer.fork(), lambda: None)
    with Running(predict=predictor).started() as site:
        yield site


def ask(site: Running, document: object, **headers: str) -> tuple[int, Any]:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    status, _, answer = site.ask("/api/v1/predict", "POST", body, **(JSON | headers))
    return status, json.loads(answer)


def row(values: Any, **more: Any) -> dict[str, Any]:
    return {"features": dict(zip(NAMES, map(float, values), strict=True)), **more}


def test_rows_are_scored_as_what_this_node_would_have_said_and_it_does_not_notice(site, scorer):
    rows = small_bundle.rows(6, 3)
    before = scorer.fork().state
    status, answer = ask(site, {"rows": [row(values) for values in rows]})
    assert status == 200
    after = scorer.fork().state
    assert all(np.array_equal(before[name], after[name], equal_nan=True) for name in before)
    twin = scorer.fork().scorer(with_history=True)
    last = small_bundle.LIVE + 15.0 * (TICKS - 1)
    for at, (values, given_row) in enumerate(zip(rows, answer["rows"], strict=True)):
        said = twin.step(last + 15.0 * (at + 1), values)
        assert given_row["timestamp"] == said.timestamp
        assert given_row["score"] == pytest.approx(said.score)
        assert given_row["warm"]


def test_a_row_that_is_far_off_is_anomalous_and_its_feature_comes_first(site):
    values = small_bundle.rows(6, 1)[0].copy()
    values[NAMES.index("disk_busy_ratio")] = 1.0
    _, answer = ask(site, {"rows": [row(values)] * 4, "reasons": 3})
    last = answer["rows"][-1]
    assert last["anomalous"]
    assert len(last["reasons"]) == 3
    assert last["reasons"][0]["feature"] == "disk_busy_ratio"
    assert last["reasons"][0]["direction"] == "above"
    assert last["reasons"][0]["observed"] == 1.0


def test_without_a_history_the_first_rows_warm_a_node_up_that_nobody_knows(site):
    rows = [row(values) for values in small_bundle.rows(7, 30)]
    status, answer = ask(site, {"rows": rows, "history": "none"})
    assert status == 200
    scores = [one["score"] for one in answer["rows"]]
    assert scores[0] is None
    assert answer["rows"][0]["reasons"] == []
    assert scores[-1] is not None


def test_what_a_row_does_not_name_or_calls_null_is_missing_and_not_zero(site):
    _, answer = ask(site, {"rows": [{"features": {NAMES[0]: 0.2, NAMES[1]: None}}], "reasons": 50})
    observed = {one["feature"]: one["observed"] for one in answer["rows"][0]["reasons"]}
    assert observed[NAMES[0]] == 0.2
    assert {observed[name] for name in NAMES[1:]} == {None}


def one_feature(name: str, value: Any) -> dict[str, Any]:
    return {"rows": [{"features": {name: value}}]}


@pytest.mark.parametrize(
    ("document", "where", "what"),
    [
        (b"", "body", "not JSON"),
        (b"{", "body", "not JSON"),
        (b"\xff", "body", "not JSON"),
        (b"[" * 100_000, "body", "not JSON"),
        (b'{"rows": [{"features": {"cpu_user_ratio": NaN}}]}', "body", "send null"),
        ([], "body", "got a list"),
        ({}, "rows", "at least one row"),
        ({"rows": []}, "rows", "at least one row"),
        ({"rows": [{"features": {}}] * (MAX_ROWS + 1)}, "rows", "more than 500"),
        ({"rows": [{"features": {}}], "row": 1}, "row", "unknown key"),
        ({"rows": [3]}, "rows[0]", "got a number"),
        ({"rows": [{"feature": {}}]}, "rows[0].feature", "unknown key"),
        ({"rows": [{}]}, "rows[0].features", "an object"),
        ({"rows": [{"features": []}]}, "rows[0].features", "an object"),
        (one_feature("cpu_usr_ratio", 1), "rows[0].features.cpu_usr_ratio", "no such"),
        (one_feature(NAMES[0], "1"), f"rows[0].features.{NAMES[0]}", "a number or null"),
        (one_feature(NAMES[0], True), f"rows[0].features.{NAMES[0]}", "a number or null"),
        (one_feature(NAMES[0], 10**400), f"rows[0].features.{NAMES[0]}", "too large"),
        ({"rows": [{"features": {}, "timestamp": "now"}]}, "rows[0].timestamp", "unix seconds"),
        ({"rows": [{"features": {}, "timestamp": -1}]}, "rows[0].timestamp", "unix seconds"),
        ({"rows": [{"features": {}, "timestamp": 10**30}]}, "rows[0].timestamp", "unix seconds"),
        ({"rows": [{"features": {}, "timestamp": 5.0}]}, "rows[0].timestamp", "the node's last tick"),
        ({"rows": [{"features": {}}], "history": "mine"}, "history", "node or none"),
        ({"rows": [{"features": {}}], "reasons": -1}, "reasons", "0 to 50"),
        ({"rows": [{"features": {}}], "reasons": True}, "reasons", "0 to 50"),
        ({"rows": [{"features": {}}], "reasons": 51}, "reasons", "0 to 50"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_whatever_is_wrong_is_refused_with_its_place(site, document, where, what):
    status, answer = ask(site, document)
    assert status == 400
    assert answer["where"] == where
    assert what in answer["error"]


@pytest.mark.parametrize(
    ("document", "where"),
    [(one_feature("\ud800", 1), "rows[0].features.\ud800"), ({"\udfff": 1}, "\udfff")],
    ids=["feature", "key"],
)
def test_half_a_character_is_refused_as_any_other_name_is(site, document, where):
    status, answer = ask(site, document)
    assert (status, answer["where"]) == (400, where)


def test_the_nearest_name_is_offered(site):
    _, answer = ask(site, one_feature("cpu_usr_ratio", 1))
    assert answer["next"] == "did you mean cpu_user_ratio?"


def test_time_that_goes_back_within_the_rows_is_refused(site):
    rows = [{"features": {}, "timestamp": at} for at in (100.0, 115.0, 115.0)]
    status, answer = ask(site, {"rows": rows, "history": "none"})
    assert (status, answer["where"]) == (400, "rows[2].timestamp")


def test_another_content_type_is_refused_so_that_no_foreign_page_can_ask(site):
    status, answer = ask(site, {"rows": []}, Content_Type="text/plain")
    assert (status, answer["where"]) == (415, "Content-Type")


def test_only_post_is_taken(site):
    status, headers, _ = site.ask("/api/v1/predict")
    assert (status, headers["allow"]) == (405, "POST")


def test_without_a_bundle_there_is_nothing_to_score_with():
    with Running(predict=Predictor(lambda _patience: None, lambda: None)).started() as site:
        status, answer = ask(site, {"rows": [{"features": {}}]})
    assert status == 503
    assert "no bundle" in answer["error"]


def test_a_second_request_at_the_same_time_is_told_to_come_back_and_scrapes_go_on(scorer):
    begun, go_on = threading.Event(), threading.Event()

    def slow(_patience: float) -> Fork:
        begun.set()
        go_on.wait(5.0)
        return scorer.fork()

    with Running(predict=Predictor(slow, lambda: None)).started() as site:
        answers: list[int] = []
        first = threading.Thread(
            target=lambda: answers.append(ask(site, {"rows": [{"features": {}}]})[0]), daemon=True
        )
        first.start()
        assert begun.wait(5.0)
        status, headers, _ = site.ask("/api/v1/predict", "POST", b"{}", **JSON)
        assert (status, headers["retry-after"]) == (429, "2")
        assert site.ask("/metrics")[0] == 200
        go_on.set()
        first.join(5.0)
        assert answers == [200]


KEYS = st.sampled_from(["rows", "features", "timestamp", "history", *NAMES]) | st.text(max_size=5)
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)


@given(DOCUMENTS)
def test_any_document_is_read_or_refused_with_a_place(document):
    refused: list[str] = []
    try:
        asked = parse_request(json.dumps(document).encode())
        parse_rows(asked, small_bundle.FEATURES, 15.0, None)
    except ConfigError as error:
        refused.append(error.message)
    assert all(": " in message for message in refused)


@given(st.binary(max_size=50))
def test_any_bytes_are_refused_without_another_error(body):
    with pytest.raises(ConfigError):
        parse_request(body)


def test_a_question_that_the_loop_does_not_hear_is_given_up():
    question = LoopQuestion(lambda: 1, lambda: None, FakeLog())
    assert question.ask(0.05) is None
    question.answer()
    assert question.ask(0.05) is None, "nobody asks any more"


def test_a_question_is_answered_by_the_loop_and_an_error_in_it_is_survived():
    answers = iter([41, None])

    def make() -> int:
        return next(answers) + 1

    log = FakeLog()
    question = LoopQuestion(make, lambda: threading.Thread(target=question.answer).start(), log)
    assert question.ask(5.0) == 42
    assert question.ask(5.0) is None
    assert log.events("exception") == ["a question could not be answered"]
