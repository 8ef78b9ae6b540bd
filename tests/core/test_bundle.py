"""`verify_bundle` takes what the trainer made, and refuses with a reason what scores otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import small_bundle
from node_anomaly_core.bundle import GOLDEN_FILE, Bundle, _agree, golden_scores, starter_bundle, verify_bundle
from node_anomaly_core.errors import BUNDLE_REASONS, BundleError
from node_anomaly_core.members import COHORT_FILE, Models
from node_anomaly_core.tensors import read_tensors, write_tensors

ISOLATION, JUDGE, LSTM = "isolation_forest.safetensors", "random_forest.safetensors", "lstm.tflite"
TENSOR_FILES = (ISOLATION, JUDGE, COHORT_FILE, GOLDEN_FILE)


def reason(path: Path) -> str:
    with pytest.raises(BundleError) as refused:
        verify_bundle(path)
    assert refused.value.hint
    return refused.value.reason


def golden(path: Path, **changes: NDArray[Any] | None) -> Path:
    """The bundle with other golden vectors; None takes an array away."""
    tensors = read_tensors((path / GOLDEN_FILE).read_bytes()) | changes
    content = write_tensors({name: array for name, array in tensors.items() if array is not None})
    return small_bundle.refiled(path, GOLDEN_FILE, content)


def test_what_the_trainer_made_is_taken(written: Path, bundle: Bundle) -> None:
    assert bundle.path == written
    assert bundle.version == written.name
    assert [model.name for model in bundle.manifest.models] == [
        "isolation_forest",
        "random_forest",
        "lstm",
        "autoregression",
    ]


def test_golden_scores_say_something_about_every_member(bundle: Bundle) -> None:
    recorded = read_tensors(bundle.files[GOLDEN_FILE])["scores"]
    assert recorded.shape[1] == 1 + len(bundle.manifest.models)
    assert np.isnan(recorded[0]).all()
    assert np.isfinite(recorded[-1]).all()
    assert recorded[-1, 0] > 1.0


def test_the_starter_bundle_is_taken_and_says_what_it_is() -> None:
    starter = verify_bundle(starter_bundle())
    assert starter.origin == "starter"
    assert starter.manifest.nodes == (), "a host of the same name would be held against a simulated one"


def test_scores_are_the_same_every_time(bundle: Bundle) -> None:
    values = small_bundle.rows(5, 30)
    np.testing.assert_array_equal(golden_scores(bundle, values), golden_scores(bundle, values))


# ------------------------------------------------------------------------------------------ golden vectors


def test_other_scores_than_the_trainer_recorded_fail_the_self_test(copied: Path) -> None:
    scores = read_tensors((copied / GOLDEN_FILE).read_bytes())["scores"].copy()
    scores[-1, 2] += 0.2
    assert reason(golden(copied, scores=scores)) == "selftest"


def test_the_rounding_of_another_processor_passes_the_self_test(copied: Path) -> None:
    scores = read_tensors((copied / GOLDEN_FILE).read_bytes())["scores"] + 1e-3
    assert verify_bundle(golden(copied, scores=scores)).version


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_recorded_scores_that_prove_nothing_fail_the_self_test(copied: Path, value: float) -> None:
    scores = read_tensors((copied / GOLDEN_FILE).read_bytes())["scores"]
    assert reason(golden(copied, scores=np.full_like(scores, value))) == "selftest"


def test_scores_for_another_number_of_members_fail_the_self_test(copied: Path) -> None:
    scores = read_tensors((copied / GOLDEN_FILE).read_bytes())["scores"]
    assert reason(golden(copied, scores=scores[:, :2])) == "selftest"


@pytest.mark.parametrize("gone", ["values", "scores"])
def test_golden_vectors_that_lack_a_part_are_refused(copied: Path, gone: str) -> None:
    assert reason(golden(copied, **{gone: None})) == "model"


@pytest.mark.parametrize("shape", [(40,), (40, 7), (0, 8), (257, 8)])
def test_golden_vectors_of_another_shape_are_refused(copied: Path, shape: tuple[int, ...]) -> None:
    assert reason(golden(copied, values=np.zeros(shape))) == "model"


def test_a_bundle_without_golden_vectors_is_refused(copied: Path) -> None:
    small_bundle.resealed(copied, lambda document: document["files"].pop(GOLDEN_FILE))
    assert reason(copied) == "manifest"


def test_golden_values_beyond_all_measure_are_no_crash(copied: Path) -> None:
    values = np.array(read_tensors((copied / GOLDEN_FILE).read_bytes())["values"], dtype=np.float64)
    values[25], values[30, 2], values[33] = np.inf, -1e308, np.nan
    assert reason(golden(copied, values=values)) == "selftest"


# ------------------------------------------------------------------------------------------------- members


@pytest.mark.parametrize("name", [ISOLATION, JUDGE, LSTM, COHORT_FILE, GOLDEN_FILE])
@pytest.mark.parametrize("content", [b"x", b"\0" * 100])
def test_a_file_that_is_something_else_is_refused(copied: Path, name: str, content: bytes) -> None:
    assert reason(small_bundle.refiled(copied, name, content)) == "model"


def test_a_bundle_without_its_cohort_is_refused(copied: Path) -> None:
    small_bundle.resealed(copied, lambda document: document["files"].pop(COHORT_FILE))
    assert reason(copied) == "manifest"


def test_a_forest_under_another_name_is_refused(copied: Path) -> None:
    """Digests fit and the structure is a forest's, but it is not the one that the manifest calibrates."""
    swapped = {ISOLATION: (copied / JUDGE).read_bytes(), JUDGE: (copied / ISOLATION).read_bytes()}
    for name, content in swapped.items():
        small_bundle.refiled(copied, name, content)
    assert reason(copied) in ("model", "selftest")


def test_one_feature_fewer_than_the_models_know_is_refused(copied: Path) -> None:
    small_bundle.resealed(copied, lambda document: document["features"].pop())
    assert reason(copied) == "model"


def test_other_node_names_than_the_cohort_has_are_refused(copied: Path) -> None:
    small_bundle.resealed(copied, lambda document: document["nodes"].pop())
    assert reason(copied) == "model"


def test_another_calibration_fails_the_self_test(copied: Path) -> None:
    small_bundle.resealed(copied, lambda document: document["tail"].update(alarm_log10p=-1e-3))
    assert reason(copied) == "selftest"


def test_a_bundle_without_a_forecaster_is_no_less_a_bundle(small: small_bundle.SmallBundle) -> None:
    """Members are what the manifest lists; none of them is special."""
    forests = small_bundle.only(small, "isolation_forest", "random_forest")
    models = Models(forests.bundle())
    assert models.forecaster is None
    assert models.forecast_path(1, 15.0) is None
    scores = golden_scores(forests.bundle(), small_bundle.rows(1, 30))
    assert np.isfinite(scores[-1]).all()
    assert scores.shape == (30, 3)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damage_under_a_good_digest_is_refused_or_harmless(copied: Path, data: st.DataObject) -> None:
    """Whoever can write the manifest can seal anything: still a bundle or a BundleError, nothing else."""
    name = data.draw(st.sampled_from(TENSOR_FILES))
    whole = (copied / name).read_bytes()
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    small_bundle.refiled(copied, name, bytes(content))
    try:
        verify_bundle(copied)
    except BundleError as error:
        reason = error.reason
    else:
        reason = "model"
    finally:
        small_bundle.refiled(copied, name, whole)
    assert reason in BUNDLE_REASONS


def test_a_score_near_the_threshold_may_fall_on_its_other_side_on_another_processor() -> None:
    assert _agree(np.array([[1.05]]), np.array([[0.93]]))
    assert not _agree(np.array([[0.80]]), np.array([[0.92]]))
