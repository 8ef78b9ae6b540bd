"""The text format: what is written comes back, and what is not the format is refused."""

from __future__ import annotations

import contextlib
import math
import timeit
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from node_anomaly_agent.collectors import prom_text
from node_anomaly_agent.collectors.prom_text import TextReader, parse_labels
from node_anomaly_core.expressions import Reading


def reader(*metrics: str) -> TextReader:
    """Every series of these metrics, keyed by its sorted labels."""
    return TextReader(
        {metric: [lambda labels, m=metric: (m, repr(sorted(labels.items())))] for metric in metrics}
    )


def read(text: str, *metrics: str) -> Reading:
    return reader(*metrics).read(text.encode())


def test_samples_with_and_without_labels_timestamps_and_blanks():
    text = (
        "# HELP a_total Help {with} braces.\n# TYPE a_total counter\n"
        'a_total{x="1",y="two"} 3\n'
        'a_total{ x = "2" , } 4.5e3 1700000000000\n'
        "a_total{} 7\n"
        "\n"
        "  b\t-Inf \n"
        'a_totally{x="1"} 9\n'
        "c NaN\n"
        'a_total {x="3"} .5\n'
    )
    found = read(text, "a_total", "b", "c")
    assert found == {
        ("a_total", "[('x', '1'), ('y', 'two')]"): 3.0,
        ("a_total", "[('x', '2')]"): 4500.0,
        ("a_total", "[]"): 7.0,
        ("a_total", "[('x', '3')]"): 0.5,
        ("b", "[]"): -math.inf,
    }


def test_a_series_may_be_wanted_twice_or_not_at_all():
    text = TextReader({
        "a": [lambda labels: ("one", labels["x"]), lambda _: ("two", ""), lambda _: None],
    })  # fmt: skip
    assert text.read(b'a{x="1"} 5\n') == {("one", "1"): 5.0, ("two", ""): 5.0}
    assert text.metrics == ("a",)


@pytest.mark.parametrize(
    "line",
    [
        "a",
        "a ",
        "a x",
        "a 1_0",
        "a 0x10",
        "a 1 2 3",
        "a 1 1.5",
        "a infinity",
        "a{ 1",
        'a{x="1" 1',
        'a{x="1"}1',
        "a{x=1} 1",
        'a{x="1"y="2"} 1',
        'a{x="1",,y="2"} 1',
        "a{,} 1",
        'a{x="1",x="2"} 1',
        'a{x="\\q"} 1',
        'a{"x"="1"} 1',
        'a{x="1"} 1\r',
        "a 1 }",
    ],
)
def test_a_wanted_line_that_is_not_a_sample_is_refused(line):
    with pytest.raises(ValueError, match=r"not a|twice|set of labels"):
        read(line + "\n", "a")


def test_a_line_nobody_wants_is_not_looked_at():
    assert read("b{{{ what\na 1\n", "a") == {("a", "[]"): 1.0}


def test_half_an_answer_and_a_page_of_html_are_refused():
    with pytest.raises(ValueError, match="ends within a line"):
        read("a 1\na 2", "a")
    with pytest.raises(ValueError, match="no sample of a: '<html>"):
        read("<html><body>login</body></html>\n", "a")
    with pytest.raises(ValueError, match="any of 2 wanted metrics"):
        read("", "a", "b")


def test_more_series_than_allowed_are_refused(monkeypatch):
    monkeypatch.setattr(prom_text, "MAX_SERIES", 2)
    with pytest.raises(ValueError, match="more than 2 series"):
        read('a{x="1"} 1\na{x="2"} 1\na{x="3"} 1\n', "a")


def test_label_sets_that_churn_do_not_pile_up(monkeypatch):
    monkeypatch.setattr(prom_text, "MAX_LABEL_SETS", 10)
    text = reader("a")
    for at in range(100):
        assert len(text.read(f'a{{x="{at}"}} 1\n'.encode())) == 1
    assert len(text._known[b"a"]) <= 10


_LABEL_NAMES = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,5}", fullmatch=True).filter(lambda n: n != "le")
_NUMBERS = st.floats() | st.integers(-(10**15), 10**15).map(float)


@given(
    series=st.lists(
        st.tuples(st.dictionaries(_LABEL_NAMES, st.text(max_size=8), max_size=3), _NUMBERS), max_size=6
    )
)
def test_what_is_written_by_the_format_comes_back(series):
    """Any label values and numbers, escaped as the format has it; the last of equal label sets counts."""
    lines, expected = [], {}
    for labels, value in series:
        inner = ",".join(
            '{}="{}"'.format(name, text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"'))
            for name, text in labels.items()
        )
        number = {math.inf: "+Inf", -math.inf: "-Inf"}.get(value, repr(value).replace("nan", "NaN"))
        lines.append(f"a{{{inner}}} {number}\n")
        if not math.isnan(value):
            expected["a", repr(sorted(labels.items()))] = value
    text = "".join(lines) + "b 1\n"
    data = text.encode("utf-8", "replace")
    if "?" in data.decode() and "?" not in text:  # lone surrogates cannot be written at all
        return
    found = reader("a", "b").read(data)
    assert found.pop(("b", "[]")) == 1.0
    assert found == expected


@given(st.binary(max_size=200))
def test_no_bytes_make_it_raise_anything_but_a_value_error(data):
    for prefix in (b"", b"a", b"a{", b'a{x="'):
        with contextlib.suppress(ValueError):
            reader("a").read(prefix + data + b"\n")
        with contextlib.suppress(ValueError):
            parse_labels(prefix[1:] + data)


def test_it_agrees_with_the_reference_parser():
    """What prometheus_client writes is read as prometheus_client reads it."""
    registry = CollectorRegistry()
    gauge = Gauge("temperature", 'Says "hot"\\n', ["room"], registry=registry)
    for at, room in enumerate(('a"b', "c\\d", "e\nf", "ü{}", "")):
        gauge.labels(room).set(at / 3)
    Histogram("took_seconds", "Took.", registry=registry).observe(0.3)
    data = generate_latest(registry)
    expected = {
        (sample.name, repr(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(data.decode())
        for sample in family.samples
    }
    assert reader(*{name for name, _ in expected}).read(data) == expected


def test_an_answer_of_three_thousand_lines_is_read_five_times_as_fast_as_a_full_parser_would():
    """The best of a few reads of 3,000 lines, 300 of them wanted (measured: 0.9 ms, and 23 times as fast)."""
    lines = [f'other_{at % 90}{{a="{at}",b="c"}} {at}\n' for at in range(2700)]
    lines += [f'wanted_{at % 30}{{device="{at // 30}"}} {at}.5\n' for at in range(300)]
    data = "".join(lines).encode()
    text = reader(*(f"wanted_{at}" for at in range(30)))
    assert len(text.read(data)) == 300
    ours = min(timeit.repeat(lambda: text.read(data), number=1, repeat=20))
    full = partial(text_string_to_metric_families, data.decode())
    theirs = min(timeit.repeat(lambda: list(full()), number=1, repeat=5))
    assert ours < theirs / 5
