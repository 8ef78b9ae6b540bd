"""Users' own features: one description, checked against itself, that prints and evaluates as one feature."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_anomaly_core.errors import ConfigError
from node_anomaly_core.expressions import Gauge, Match, Written
from node_anomaly_core.features import FeatureEvaluator
from node_anomaly_core.own_features import (
    MAX_OWN,
    OwnFeature,
    name_clashes,
    parse_own_document,
    parse_own_features,
    series_metric,
    url_problem,
)

MAILS: dict[str, Any] = {
    "name": "mail_sent_per_second",
    "unit": "per_second",
    "help": "Mails sent per second.",
    "kind": "rate",
    "direction": "both",
    "floor": 0.5,
    "promql": 'sum by (instance) (rate(mail_sent_total{queue=~"out|bulk",$matchers}[$window]))',
    "source": {
        "exporter": "http://127.0.0.1:9154/metrics",
        "metric": "mail_sent_total",
        "match": {"queue": "=~out|bulk"},
    },
}
BACKUP: dict[str, Any] = {
    "name": "backup_age_seconds",
    "unit": "seconds",
    "help": "Age of the newest backup.",
    "kind": "gauge",
    "direction": "high",
    "floor": 3600,
    "promql": "max by (instance) (backup_age_minutes) * 60",
    "source": {
        "textfile": "/var/lib/prometheus/node-exporter/backup.prom",
        "metric": "backup_age_minutes",
        "scale": 60,
        "max_age_seconds": 7200,
    },
}


def changed(base: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A description with other values; keys of the source are spelt `source__key`, None takes a key away."""
    item = copy.deepcopy(base)
    for key, value in changes.items():
        place, name = (item["source"], key[8:]) if key.startswith("source__") else (item, key)
        if value is None:
            place.pop(name, None)
        else:
            place[name] = value
    return item


def problem(item: object) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_own_features([item], "features")
    assert caught.value.hint
    return caught.value.message


def one(item: object) -> OwnFeature:
    (own,) = parse_own_features([item], "features")
    return own


def test_a_description_becomes_a_feature_with_a_query_and_a_source():
    own = one(MAILS)
    assert (own.feature.name, own.feature.group, own.feature.kind) == ("mail_sent_per_second", "own", "rate")
    assert own.feature.promql("2m", 'job="mail"') == (
        'sum by (instance) (rate(mail_sent_total{queue=~"out|bulk",job="mail"}[2m]))'
    )
    assert own.source.match == (Match("queue", "=~", "out|bulk"),)
    assert own.source.selects({"queue": "out"})
    assert not own.source.selects({"queue": "outer"})
    assert not own.source.selects({})


def test_the_node_computes_the_rate_of_each_series_before_it_adds_them():
    own = one(MAILS)
    metric = series_metric(own.feature.name)
    evaluator = FeatureEvaluator([own.feature], 60.0)
    evaluator.update(0.0, {(metric, "a"): 100.0, (metric, "b"): 900.0})
    assert evaluator.update(10.0, {(metric, "a"): 110.0, (metric, "b"): 20.0})[0] == 1.0 + 2.0


def test_a_gauge_is_scaled_and_the_query_says_which_aggregate():
    own = one(BACKUP)
    assert own.source.aggregate == "max"
    assert own.source.max_age_s == 7200.0
    metric = series_metric(own.feature.name)
    values = FeatureEvaluator([own.feature], 60.0).update(0.0, {(metric, "a"): 2.0, (metric, "b"): 3.0})
    np.testing.assert_array_equal(values, [180.0])


def test_nothing_described_is_nothing():
    assert parse_own_features(None, "features") == ()
    assert parse_own_document(None, "own.yml") == ()
    assert parse_own_document({"features": None}, "own.yml") == ()
    assert len(parse_own_document({"features": [MAILS, BACKUP]}, "own.yml")) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": None}, "features[0].name: is required"),
        ({"name": "Mail_per_second"}, "lower-case"),
        ({"name": "mail_sent"}, "must end with its unit, such as mail_sent_per_second"),
        ({"name": "forks_per_second"}, "forks_per_second is a feature of the catalogue already"),
        ({"unit": "per_minute"}, "did you mean per_second?"),
        ({"unit": "count", "name": "mail_count"}, "a rate is per second, not in count"),
        ({"help": ""}, "features[0].help: expected a text"),
        ({"help": "a\x00b"}, "printable"),
        ({"kind": "counter"}, "must be one of gauge, rate"),
        ({"kind": "gauge"}, "kind is gauge, but the query takes rate()"),
        ({"direction": "up"}, "must be one of high, low, both"),
        ({"floor": None}, "features[0].floor: is required"),
        ({"floor": 0}, "expected a number above 0"),
        ({"floor": True}, "expected a number above 0"),
        ({"floor": float("nan")}, "expected a number above 0"),
        ({"promql": None}, "features[0].promql: is required"),
        ({"promql": "  "}, "features[0].promql: expected a text"),
        ({"promql": 'sum(rate(mails_total{queue="a"}[$window]))'}, "does not mention mail_sent_total"),
        ({"promql": 'sum(rate(mail_send_total{queue="a"}[$window]))'}, "did you mean mail_send_total?"),
        ({"promql": "sum(rate(mail_sent_total[$window]))"}, "does not mention the label queue"),
        ({"promql": 'sum(mail_sent_total{queue="a"})'}, "must take rate()"),
        ({"promql": 'sum(irate(mail_sent_total{queue="a"}[$window]))'}, "must take rate(), not irate()"),
        ({"promql": 'sum(rate(mail_sent_total{queue="a"}[1m]))'}, "a rate must span [$window]"),
        ({"promql": 'sum(rate(mail_sent_total{queue="a"}[$window])'}, "'(' that is never closed"),
        ({"promql": 'sum(rate(mail_sent_total{queue="a"}[$window])))'}, "')' too many"),
        ({"promql": 'max(rate(mail_sent_total{queue="a"}[$window]))', "source__aggregate": "sum"},
         "takes the max, but source.aggregate is sum"),
        ({"source": None}, "features[0].source: is required"),
        ({"source": {}}, "features[0].source: is empty"),
        ({"source": "x"}, "features[0].source: expected a mapping"),
        ({"source__exporter": None}, "features[0].source: needs either exporter or textfile"),
        ({"source__textfile": "/a.prom"}, "needs either exporter or textfile"),
        ({"source__exporter": "node-exporter"}, "did you mean node_exporter?"),
        ({"source__exporter": "https://127.0.0.1/metrics"}, "expected http://HOST:PORT/PATH"),
        ({"source__exporter": "http://u:p@127.0.0.1/"}, "without a user or a password"),
        ({"source__metric": "a-b"}, "expected a metric's name"),
        ({"source__match": ["queue"]}, "match: expected a mapping"),
        ({"source__match": {"a-b": "x"}}, "match.a-b: is not a label's name"),
        ({"source__match": {"queue": 5}}, "match.queue: expected a text (put it into quotes)"),
        ({"source__match": {"queue": "=~("}}, "match.queue: '(' is not a regular expression"),
        ({"source__aggregate": "summ"}, "did you mean sum?"),
        ({"source__scale": -1}, "source.scale: expected a number above 0"),
        ({"source__max_age_seconds": 5}, "max_age_seconds: is for a textfile only"),
        ({"source__metrik": "x"}, "features[0].source.metrik: unknown key (did you mean metric?)"),
        ({"promqll": "x"}, "features[0].promqll: unknown key (did you mean promql?)"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_with_its_path(changes, message):
    assert message in problem(changed(MAILS, **changes))


@pytest.mark.parametrize("path", ["backup.prom", "/var/backup.txt", "/a\0.prom"])
def test_a_textfile_is_an_absolute_path_of_a_prom_file(path):
    assert "expected an absolute path that ends with .prom" in problem(changed(BACKUP, source__textfile=path))


@pytest.mark.parametrize("item", ["text", 5, None, [1]])
def test_an_item_that_is_no_mapping_is_refused(item):
    assert problem(item).startswith("features[0]: expected a mapping")


@pytest.mark.parametrize("document", [[], "x", {"feature": []}, {"features": {}}, {"features": [], "x": 1}])
def test_a_file_has_the_one_key_features_with_a_list(document):
    with pytest.raises(ConfigError, match=r"own\.yml"):
        parse_own_document(document, "own.yml")


def test_names_are_unique_and_there_is_a_limit():
    with pytest.raises(ConfigError, match="mail_sent_per_second is named twice"):
        parse_own_features([MAILS, MAILS], "features")
    with pytest.raises(ConfigError, match=f"at most {MAX_OWN}"):
        parse_own_features([MAILS] * (MAX_OWN + 1), "features")
    assert name_clashes(["a_count", "b_count"], "features") == []


def test_every_problem_is_named_at_once():
    message = problem(changed(MAILS, unit="x", floor=0, source__metric="?"))
    assert message.count("features[0].") == 3


def test_the_metric_may_be_named_in_quotes_or_by_an_exported_label():
    """As Prometheus 3 writes odd names, and as it renames a label that clashes with its own."""
    one(changed(MAILS, promql='sum(rate({__name__="mail_sent_total",exported_queue="out"}[$window]))'))


def test_a_string_is_no_code():
    """A bracket or a word in a label's value is neither a call nor a parenthesis."""
    one(changed(BACKUP, promql='max(backup_age_minutes{job="rate(x)[1m"}) * 60'))


def test_a_local_side_of_many_values_is_refused():
    with pytest.raises(ValueError, match="one number"):
        Written("x", Gauge("x"))


@pytest.mark.parametrize("url", ["http://[::1]:9100/metrics", "http://localhost:9100", "http://h/p?a=b"])
def test_urls_of_exporters(url):
    assert url_problem(url) == ""


@pytest.mark.parametrize(
    "url",
    ["", "h:9100", "http://", "http://h:x/", "http://h:0/", "http://h/a b", "http://h/#f", "http://[::/"],
)
def test_other_urls_are_refused(url):
    assert url_problem(url)


_JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(
    at=st.sampled_from([*MAILS, *(f"source__{key}" for key in ("exporter", "metric", "match", "aggregate"))]),
    value=_JUNK,
)
def test_no_description_makes_it_raise_anything_but_a_config_error(at, value):
    item = changed(MAILS, **{at: value})
    with contextlib.suppress(ConfigError):
        assert len(parse_own_features([item], "features")) == 1
