"""The two text formats, held to prometheus_client's own parsers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from node_anomaly_agent.families import (
    OPENMETRICS,
    TEXT,
    Family,
    choose_format,
    counter,
    gauge,
    plain_counter,
    plain_gauge,
    render,
)

# Both formats end a line with \n only; Python splits at these too, in the parsers and in str.strip.
TEXTS = st.text(alphabet=st.characters(exclude_characters="\r\v\f\x1c\x1d\x1e\x1f\x85\u2028\u2029"))


@given(
    st.dictionaries(TEXTS, st.floats(allow_nan=False), min_size=1, max_size=5),
    TEXTS.map(str.strip),
)
def test_any_label_help_and_value_reads_back_in_both_formats(values, text):
    family = gauge("a_ratio", text, values.items(), "name")
    for parse, form in ((parse_text, TEXT), (parse_openmetrics, OPENMETRICS)):
        (found,) = parse(render([family], form))
        assert {sample.labels["name"]: sample.value for sample in found.samples} == values


def test_a_counter_is_named_by_its_series_in_text_and_by_its_family_in_openmetrics():
    families = [plain_counter("a", "Help.", 3), counter("b", "Help.", [("x", 1.0)], "reason")]
    assert render(families, TEXT).splitlines() == [
        "# HELP a_total Help.",
        "# TYPE a_total counter",
        "a_total 3.0",
        "# HELP b_total Help.",
        "# TYPE b_total counter",
        'b_total{reason="x"} 1.0',
    ]
    assert "# TYPE a counter\na_total 3.0\n" in render(families, OPENMETRICS)
    assert render(families, OPENMETRICS).endswith("# EOF\n")


def test_what_is_not_known_is_left_out_and_a_family_without_samples_too():
    assert render([plain_gauge("a", "Help.", math.nan)], TEXT) == ""
    family = Family("b", "gauge", "Help.")
    family.add(math.inf, (("side", "up"),))
    family.add(-math.inf, (("side", "down"),))
    assert render([family], TEXT).splitlines()[2:] == ['b{side="up"} +Inf', 'b{side="down"} -Inf']


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", TEXT),
        ("*/*", TEXT),
        ("text/plain;version=0.0.4", TEXT),
        ("application/openmetrics-text", OPENMETRICS),
        ("text/plain;q=0.2, application/openmetrics-text; version=1.0.0; q=0.5", OPENMETRICS),
        (
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
                "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,*/*;q=0.2"
            ),
            OPENMETRICS,
        ),
        ("application/openmetrics-text;version=2.0.0", TEXT),
        ("application/openmetrics-text;q=0", TEXT),
        (";;=,=;", TEXT),
    ],
)
def test_the_format_follows_the_accept_header(accept, chosen):
    assert choose_format(accept) == chosen
