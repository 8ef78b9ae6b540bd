"""A manifest is parsed strictly: what it says comes back, all else is refused with the path of the key."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import small_bundle
from node_anomaly_core.errors import BundleError
from node_anomaly_core.manifest import FileEntry, Manifest, parse_manifest
from node_anomaly_core.witnesses import Witness

Document = dict[str, Any]


@pytest.fixture(scope="module")
def manifest(small: small_bundle.SmallBundle) -> Manifest:
    return replace(small.manifest, files={"a.safetensors": FileEntry(10, "0" * 64)})


def refused(content: bytes) -> BundleError:
    with pytest.raises(BundleError) as error:
        parse_manifest(content)
    assert error.value.hint
    return error.value


def changed(manifest: Manifest, edit: Callable[[Document], object]) -> bytes:
    document = json.loads(manifest.to_bytes())
    edit(document)
    return json.dumps(document).encode()


def at(document: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        document = document[key]
    return document


def test_a_manifest_comes_back_as_it_was_written(manifest: Manifest) -> None:
    back = parse_manifest(manifest.to_bytes())
    assert [f.name for f in back.features] == [f.name for f in manifest.features]
    assert [f.direction for f in back.features] == [f.direction for f in manifest.features]
    assert replace(back, features=()) == replace(manifest, features=())


def test_witnesses_come_back_and_are_not_written_where_there_are_none(manifest: Manifest) -> None:
    assert b"witnesses" not in manifest.to_bytes()
    witnesses = (Witness(("lstm",), 0.9), Witness(("isolation_forest", "random_forest"), 0.7))
    assert parse_manifest(replace(manifest, witnesses=witnesses).to_bytes()).witnesses == witnesses


def test_equal_manifests_are_equal_bytes(manifest: Manifest) -> None:
    again = replace(manifest, provenance=dict(reversed(manifest.provenance.items())))
    assert again.to_bytes() == manifest.to_bytes()


def test_a_manifest_can_be_run_as_promql(manifest: Manifest) -> None:
    document = json.loads(manifest.to_bytes())
    assert all("node_" in feature["promql"] for feature in document["features"])


def test_not_a_number_is_never_written(manifest: Manifest) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        replace(manifest, trained_at=float("nan")).to_bytes()


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"[" * 200_000, b"null", b"[]", b'{"format_version": ' + b"9" * 5_000 + b"}", b"{}"],
)
def test_what_is_no_manifest_at_all_is_refused(content: bytes) -> None:
    assert refused(content).reason == "manifest"


@pytest.mark.parametrize("version", [0, 2, 1.5, -1, 10**100])
def test_a_format_version_from_elsewhere_is_named(manifest: Manifest, version: float) -> None:
    error = refused(changed(manifest, lambda d: d.update(format_version=version)))
    assert error.reason == "format"
    assert "upgrade the agent" in error.hint


def test_other_residual_blocks_are_another_format(manifest: Manifest) -> None:
    assert refused(changed(manifest, lambda d: d["scoring"]["blocks"].pop())).reason == "format"
    assert refused(changed(manifest, lambda d: d["scoring"].update(summary_width=1))).reason == "format"


BROKEN: dict[str, tuple[Callable[[Document], object], str]] = {
    "no features": (lambda d: d.update(features=[]), "features"),
    "twice the same feature": (lambda d: d["features"].append(d["features"][0]), "features"),
    "too many features": (lambda d: d.update(features=d["features"] * 100), "features"),
    "a feature without a name": (lambda d: d["features"][2].update(name=""), "features[2].name"),
    "a name nobody can print": (lambda d: d["features"][2].update(name="a\nb"), "features[2].name"),
    "a name that is no text": (lambda d: d["features"][2].update(name="\ud800"), "features[2].name"),
    "an unknown direction": (lambda d: d["features"][0].update(direction="up"), "features[0].direction"),
    "a direction of another type": (lambda d: d["features"][0].update(direction=[]), "features[0].direction"),
    "a floor of zero": (lambda d: d["features"][1].update(floor=0), "features[1].floor"),
    "a floor of true": (lambda d: d["features"][1].update(floor=True), "features[1].floor"),
    "an infinite floor": (lambda d: d["features"][1].update(floor=float("inf")), "features[1].floor"),
    "a floor beyond any float": (lambda d: d["features"][1].update(floor=10**400), "features[1].floor"),
    "no models": (lambda d: d.update(models=[]), "models"),
    "twice the same model": (lambda d: d["models"].append(d["models"][0]), "models"),
    "two forecasters": (lambda d: d["models"].append(d["models"][2] | {"name": "other"}), "models"),
    "two autoregressions": (lambda d: d["models"].append(d["models"][3] | {"name": "other"}), "models"),
    "two sets of centroids": (
        lambda d: d["models"].extend(d["models"][2] | {"name": n, "type": "kmeans"} for n in "ab"),
        "models",
    ),
    "a model that is text": (lambda d: d["models"].append("lstm"), "models[4]"),
    "an unknown model type": (lambda d: d["models"][0].update(type="xgboost"), "models[0].type"),
    "an unknown input": (lambda d: d["models"][0].update(input="raw"), "models[0].input"),
    "a scale of nothing": (lambda d: d["models"][0].update(high=d["models"][0]["median"]), "models[0].high"),
    "a voice of no weight": (lambda d: d["models"][0].update(weight=0), "models[0].weight"),
    "one knot": (lambda d: d["tail"].update(knots=[1], log10p=[-1]), "tail"),
    "knots without probabilities": (lambda d: d["tail"]["log10p"].pop(), "tail"),
    "knots that turn": (lambda d: d["tail"]["knots"].reverse(), "tail.knots"),
    "probabilities that rise": (lambda d: d["tail"]["log10p"].reverse(), "tail.log10p"),
    "an alarm without a level": (lambda d: d["tail"].update(alarm_log10p=0), "tail.alarm_log10p"),
    "knots by the thousand": (lambda d: d["tail"].update(knots=list(range(600))), "tail.knots"),
    "a knot that is text": (lambda d: d["tail"]["knots"].append("x"), "tail.knots"),
    "an interval of a month": (lambda d: d.update(interval_seconds=2.6e6), "interval_seconds"),
    "an interval of no time": (lambda d: d.update(interval_seconds=1e-9), "interval_seconds"),
    "a budget of zero": (lambda d: d.update(budget_false_alarms_per_node_week=0), "budget_false_alarms"),
    "trained before time": (lambda d: d.update(trained_at_seconds=-1), "trained_at_seconds"),
    "trained when there are no dates": (lambda d: d.update(trained_at_seconds=1e18), "trained_at_seconds"),
    "an unknown origin": (lambda d: d.update(origin="found"), "origin"),
    "nodes that are no list": (lambda d: d.update(nodes="alpha"), "nodes"),
    "a node without a name": (lambda d: d.update(nodes=[None]), "nodes"),
    "too many nodes": (lambda d: d.update(nodes=["n"] * 2_001), "nodes"),
    "provenance that is no object": (lambda d: d.update(provenance=[]), "provenance"),
    "provenance with depth": (lambda d: d.update(provenance={"a": {}}), "provenance"),
    "provenance that is no number": (lambda d: d.update(provenance={"a": float("nan")}), "provenance"),
    "provenance nobody can print": (lambda d: d.update(provenance={"a": "\x1b[2J"}), "provenance"),
    "files that are no object": (lambda d: d.update(files=[]), "files"),
    "a file without a size": (lambda d: d["files"].update(b={"sha256": "0" * 64}), "files.b.size"),
    "a digest that is too long": (
        lambda d: d["files"].update(b={"size": 1, "sha256": "0" * 65}),
        "files.b.sha256",
    ),
    "witnesses that are no list": (lambda d: d.update(witnesses={}), "witnesses"),
    "a crowd of witnesses": (
        lambda d: d.update(witnesses=[{"models": ["lstm"], "share": 1}] * 5),
        "witnesses",
    ),
    "a witness nobody knows": (
        lambda d: d.update(witnesses=[{"models": ["lstm", "arima"], "share": 1}]),
        "witnesses[0].models",
    ),
    "a witness of another type": (
        lambda d: d.update(witnesses=[{"models": [["lstm"]], "share": 1}]),
        "witnesses[0].models",
    ),
    "nobody as a witness": (
        lambda d: d.update(witnesses=[{"models": [], "share": 1}]),
        "witnesses[0].models",
    ),
    "a witness of no share": (
        lambda d: d.update(witnesses=[{"models": ["lstm"], "share": 0}]),
        "witnesses[0].share",
    ),
    "files by the hundred": (lambda d: d.update(files={str(i): {} for i in range(33)}), "files"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_wrong_is_refused_with_its_path(manifest: Manifest, case: str) -> None:
    edit, path = BROKEN[case]
    error = refused(changed(manifest, edit))
    assert error.reason == "manifest"
    assert path in error.message


KEYS = [
    "format_version",
    "origin",
    "trained_at_seconds",
    "interval_seconds",
    "budget_false_alarms_per_node_week",
    "scoring",
    "features",
    "models",
    "tail",
    "nodes",
    "provenance",
    "files",
]


@pytest.mark.parametrize("key", KEYS)
def test_every_key_is_required(manifest: Manifest, key: str) -> None:
    error = refused(changed(manifest, lambda d: d.pop(key)))
    assert error.reason == "manifest"
    assert key in error.message


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
PLACES: tuple[tuple[str | int, ...], ...] = (
    *((key,) for key in KEYS),
    ("features", 0),
    *(("features", 0, key) for key in ("name", "unit", "help", "group", "kind", "direction", "floor")),
    ("models", 1),
    *(("models", 1, key) for key in ("name", "type", "file", "input", "median", "high", "weight", "tail")),
    *(("tail", key) for key in ("knots", "log10p", "alarm_log10p")),
    ("files", "a.safetensors"),
    *(("files", "a.safetensors", key) for key in ("size", "sha256")),
)


@settings(max_examples=200)
@given(st.sampled_from(PLACES), anything)
def test_anything_anywhere_is_refused_or_harmless(
    manifest: Manifest, place: tuple[str | int, ...], value: object
) -> None:
    """The parser answers with a manifest that can be written again, or with a BundleError."""
    document = json.loads(manifest.to_bytes())
    at(document, place[:-1])[place[-1]] = value
    try:
        parsed = parse_manifest(json.dumps(document).encode())
    except BundleError as error:
        reason = error.reason
    else:
        assert parse_manifest(parsed.to_bytes()) == parsed
        return
    assert reason in ("manifest", "format")


@settings(max_examples=200)
@given(st.data())
def test_a_damaged_manifest_is_refused_or_harmless(manifest: Manifest, data: st.DataObject) -> None:
    content = bytearray(manifest.to_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        parse_manifest(bytes(content))
    except BundleError as error:
        reason = error.reason
    else:
        return
    assert reason in ("manifest", "format")
