"""A sample of bench/mutations.py: nothing damaged or forged crashes, hangs, or passes for what it is not."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from bench_programs import program
from node_anomaly_core.archive import write_archive
from node_anomaly_core.bundle import write_bundle
from node_anomaly_core.signing import sign

COUNT = 300


@pytest.fixture(scope="module")
def mutations():
    with pytest.MonkeyPatch.context() as loading:
        yield program("mutations", loading)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # forged numbers overflow, and are refused for it
def test_no_mutated_bundle_does_anything_but_be_refused_or_be_itself(mutations, small, tmp_path):
    path = write_bundle(
        tmp_path / "made", small.manifest, small.files, lambda content: sign(content, [mutations.KEY])
    )
    original = {entry.name: entry.read_bytes() for entry in path.iterdir()}
    archive = write_archive(original)
    seed = random.randrange(10**9)
    found = Counter(
        mutations.attempt(number, original, archive, tmp_path)[1] for number in range(seed, seed + COUNT)
    )
    assert {what for what in found if not what.islower()} == set(), seed
    assert found["accepted"] < COUNT / 2
    assert found["digest"] > 0
    assert found["signature"] > 0


def test_the_judge_notices_a_wrong_digest(mutations, small, tmp_path):
    """Otherwise the test above could not fail."""
    path = write_bundle(tmp_path, small.manifest, small.files)
    original = {entry.name: entry.read_bytes() for entry in path.iterdir()}
    assert mutations.wrong(path, original, "damaged", signed=False) == ""
    (path / "lstm.tflite").write_bytes(b"changed")
    assert "lstm.tflite" in mutations.wrong(path, original, "damaged", signed=False)
    (path / "manifest.json").write_bytes(original["manifest.json"] + b" ")
    assert "MANIFEST" in mutations.wrong(path, original, "damaged", signed=False)
