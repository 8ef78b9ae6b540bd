"""VictoriaMetrics' export: whatever it may send decodes to the same bits, or is refused; bad servers too."""

from __future__ import annotations

import contextlib
import json
import re
import urllib.parse

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from misbehaving import STEP, Misbehaving, always, answer, data, half, hang, result, then
from node_anomaly_core.errors import SourceError
from node_anomaly_core.expressions import Match
from node_anomaly_core.features import FEATURES_BY_NAME
from node_anomaly_trainer.config import PrometheusConfig
from node_anomaly_trainer.progress import ignore_report
from node_anomaly_trainer.sources.export import export_request, read_export
from node_anomaly_trainer.sources.prometheus import read_prometheus
from promwrite import STALE

NOW = 1_767_571_200_000
LABELS = {"instance": "a:9100", "job": "node"}


def as_text(value):
    """As both old and new releases write it."""
    if np.isnan(value):
        return "null"
    if np.isinf(value):
        return '"Infinity"' if value > 0 else '"-Infinity"'
    return repr(float(value))


def line(times, values, metric="up", labels=LABELS, text=as_text):
    """One series, as VictoriaMetrics writes it."""
    head = json.dumps({"__name__": metric, **labels}, separators=(",", ":"), ensure_ascii=False)
    numbers = ",".join(text(value) for value in values)
    return f'{{"metric":{head},"values":[{numbers}],"timestamps":[{",".join(map(str, times))}]}}\n'.encode()


numbers = st.one_of(
    st.sampled_from([0.0, 1.0, STALE, np.inf, -np.inf, 5e-324, 1e300, 123456789012.0]),
    st.floats(allow_nan=False),
)
times = st.lists(st.integers(0, 10_000_000), min_size=1, max_size=80, unique=True).map(sorted)


@given(st.lists(times, min_size=1, max_size=4), st.data(), st.sampled_from([0, NOW]))
def test_every_value_keeps_its_bits_and_its_time(offsets, drawn, base):
    """Zeros, infinities and stale markers, times of any length, several series in one answer."""
    many = [([base + at for at in some], [drawn.draw(numbers) for _ in some]) for some in offsets]
    found = read_export(b"".join(line(*one) for one in many))
    assert [one.times.tolist() for one in found] == [at for at, _ in many]
    for one, (_, values) in zip(found, many, strict=True):
        assert one.labels == LABELS
        expected = np.array(values)
        expected.view(np.uint64)[np.isnan(expected)] = 0x7FF0000000000002
        assert one.values.view(np.uint64).tolist() == expected.view(np.uint64).tolist()


def test_an_old_release_writes_infinities_bare_and_a_first_marker_as_nan():
    body = b'{"metric":{"__name__":"up"},"values":[NaN,+Inf,null,-Inf],"timestamps":[1,2,3,4]}\n'
    (found,) = read_export(body)
    assert found.stale.tolist() == [True, False, True, False]
    assert found.values[[1, 3]].tolist() == [np.inf, -np.inf]


@pytest.mark.parametrize("value", ['"values":[', '],"timestamps":[', "\\", '"', "é\n,]}", "Inf"])
def test_a_label_may_hold_anything(value):
    labels = {"x": value, "values": "[1]"}
    (found,) = read_export(line([NOW], [2.0], labels=labels))
    assert found.labels == labels
    assert found.values.tolist() == [2.0]


def test_of_several_samples_of_a_millisecond_the_largest_counts_and_a_number_before_an_end():
    """Two scrapers without deduplication leave such samples, in any order."""
    at = [NOW, NOW, NOW + 1, NOW + 1, NOW + 2, NOW + 2]
    (found,) = read_export(line(at, [2.0, 5.0, 1.0, STALE, STALE, -np.inf]))
    assert found.times.tolist() == [NOW, NOW + 1, NOW + 2]
    assert found.values.tolist()[:2] == [5.0, 1.0]
    assert found.stale.tolist()[:2] == [False, False]


def test_nothing_found_is_nothing():
    assert read_export(b"") == []


WHOLE = line([NOW, NOW + 15_000], [1.5, 2.5])


@pytest.mark.parametrize(
    "content",
    [
        WHOLE + WHOLE[:40],
        WHOLE[:-1],
        WHOLE + b"\n",
        WHOLE + b"remoteAddr: cannot send data to the client\n",
        WHOLE.replace(b"1.5,", b""),
        WHOLE.replace(b"1.5", b"1.5.5"),
        WHOLE.replace(b"1.5", b""),
        WHOLE.replace(b"2.5", b""),
        line([NOW + 1, NOW], [1.0, 2.0]),
        line([NOW], [1.0]).replace(b"17", b"x7"),
        b"<html>Log in</html>\n",
        b'{"status":"success","data":{}}\n',
    ],
    ids=[
        "half a line", "no end", "an empty line", "an error within", "fewer values", "no number",
        "no first value", "no last value", "out of order", "no time", "html", "another JSON",
    ],
)  # fmt: skip
def test_what_is_no_answer_is_refused(content):
    with pytest.raises(ValueError, match=r"."):
        read_export(content)


@given(st.integers(0, 400), st.data())
def test_a_damaged_answer_is_refused_or_read_but_never_breaks(length, drawn):
    body = line([NOW + 15 * at for at in range(12)], [1.5] * 12)
    cut = bytearray(body[: min(length, len(body))])
    if cut:
        cut[drawn.draw(st.integers(0, len(cut) - 1))] = drawn.draw(st.integers(0, 255))
    with contextlib.suppress(ValueError, KeyError):
        read_export(bytes(cut))


def test_a_request_names_range_and_selector():
    form = urllib.parse.parse_qs(
        export_request(
            [Match("__name__", "=", "up"), Match("job", "!~", 'a|"b"')], NOW, NOW + 60_000
        ).decode()
    )
    assert form == {
        "match[]": [r'{__name__="up",job!~"a|\"b\""}'],
        "start": ["1767571199.999"],
        "end": ["1767571260.001"],
    }


# --- servers


FEATURES = (FEATURES_BY_NAME["memory_available_ratio"],)
SAMPLES = {"node_memory_MemTotal_bytes": 4.0, "node_memory_MemAvailable_bytes": 1.0}
AT = 11 * STEP


def good(handler, number):
    (selector,) = urllib.parse.parse_qs(handler.body.decode())["match[]"]
    answer(handler, body=line([1000 * AT], [value_of(selector)], labels={"instance": "a"}))


def value_of(selector):
    (value,) = (one for metric, one in SAMPLES.items() if metric in selector)
    return value


def as_victoria_metrics(export=good, shown=1.0):
    """A server that has export; a range selector shows its samples, times `shown`."""

    def respond(handler, number):
        path, _, question = handler.path.partition("?")
        (query,) = urllib.parse.parse_qs(question).get("query", [""])
        if path.startswith("/api/v1/status/"):
            answer(handler, 400, "unsupported path requested", "text/plain")
        elif path == "/api/v1/export" and handler.command == "GET":
            answer(handler, 400, "missing `match[]` arg", "text/plain")
        elif path == "/api/v1/export":
            export(handler, number)
        elif query.endswith("s]"):
            values = [[AT, str(shown * value_of(query))]]
            answer(handler, body=result({"metric": {"instance": "a"}, "values": values}))
        else:
            then(always(body=result({"metric": {"instance": "a"}, "values": [[AT, "0.5"]]})))(handler, number)

    return respond


def ask(url, notes, **settings):
    config = PrometheusConfig(url=url, range=2 * STEP, end=AT, timeout=0.3, retries=1, **settings)
    return read_prometheus(config, FEATURES, STEP, ignore_report, notes.append, backoff_s=0.01)


def test_export_is_taken_where_it_gives_the_samples_that_a_query_shows():
    notes = []
    with Misbehaving(as_victoria_metrics()) as server:
        history = ask(server.url, notes)
    assert notes[-1].startswith("route: export; it gave api's raw samples on a short range")
    assert history.values[:, 0, 0].tolist()[-1] == 0.25


def test_samples_that_a_query_does_not_show_lead_to_the_api():
    notes = []
    with Misbehaving(as_victoria_metrics(shown=2.0)) as server:
        history = ask(server.url, notes)
    assert notes[-1] == "route: api; the server's raw samples do not give what its queries give"
    assert history.values[:, 0, 0].tolist()[-1] == 0.5


MISBEHAVIOURS = {
    "401": (always(401, "who are you?", "text/plain"), "refused the credentials"),
    "429": (always(429, "{}"), r"asks to slow down \(HTTP 429\) after 2 attempts"),
    "500": (always(500, "boom", "text/plain"), r"failed \(HTTP 500: boom\) after 2 attempts"),
    "html": (always(200, "<html>Log in</html>", "text/html"), "answered an HTML page"),
    "another JSON": (always(body=data([])), r"cannot be decoded \(the last line is cut off\)"),
    "half a line": (always(body=WHOLE[:-9]), r"cannot be decoded \(the last line is cut off\)"),
    "half a body": (half, "broke off in the middle"),
    "hang": (hang, r"did not answer within 0\.3 s after 2 attempts"),
}


@pytest.mark.parametrize(("export", "said"), MISBEHAVIOURS.values(), ids=MISBEHAVIOURS)
def test_export_that_misbehaves_is_one_clear_error_or_leads_to_the_api(export, said):
    notes = []
    with Misbehaving(as_victoria_metrics(export)) as server:
        history = ask(server.url, notes)
        with pytest.raises(SourceError, match=f"cannot be read by export: .*{said}") as caught:
            ask(server.url, [], route="export")
    assert re.search(f"^route: api; remote-read is not to be had .*, nor is export .*{said}", notes[-1])
    assert history.values[:, 0, 0].tolist()[-1] == 0.5
    assert "route: auto or api" in caught.value.hint
