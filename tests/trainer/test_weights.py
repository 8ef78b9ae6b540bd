"""A member's weight is halved or doubled only where that clearly finds more of the injected faults."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from node_anomaly_core.calibration import MemberScale, Tail
from node_anomaly_core.features import CATALOGUE
from node_anomaly_core.manifest import Manifest, ModelEntry
from node_anomaly_core.witnesses import Witness
from node_anomaly_trainer.candidate import split
from node_anomaly_trainer.config import parse_config
from node_anomaly_trainer.config_models import ModelsConfig
from node_anomaly_trainer.dataset import History
from node_anomaly_trainer.fitting import WEIGHTS, _entry, witnesses_among
from node_anomaly_trainer.models import MODELS
from node_anomaly_trainer.weights import LEAST_FAULTS, weighted

TICKS, NODES, INTERVAL_S = 24_000, ("a", "b", "c"), 15.0
FEATURES = CATALOGUE[:3]
BUDGET = 20.0  # a week
PRIOR = {"keen": 1.0, "deaf": 1.0, "lent": 2.0}


@pytest.fixture(scope="module")
def parts():
    rng = np.random.default_rng(0)
    values = rng.uniform(0.2, 0.4, (TICKS, len(NODES), len(FEATURES)))
    labels = np.zeros(values.shape[:2], dtype=np.int8)
    history = History(FEATURES, INTERVAL_S, NODES, INTERVAL_S * np.arange(TICKS), values, labels)
    return split(history, parse_config({"training": {"faults_per_node_day": 100, "fit_fraction": 0.5}}))


def manifest(*names: str) -> Manifest:
    scale, tail = MemberScale(0.0, 1.0), Tail((0.0, 1.0), (0.0, -1.0), -1.0)
    models = tuple(
        ModelEntry(name, "isolation_forest", f"{name}.safetensors", "summary", scale, tail, PRIOR[name])
        for name in names
    )
    return Manifest(FEATURES, INTERVAL_S, models, tail, 1.0, 0.0, "trained", NODES, {}, {})


def quiet(seed: int):
    return np.random.default_rng(seed).exponential(size=(TICKS, len(NODES)))


def loud(parts, scores, by: float):
    """Raised during faults."""
    raised = scores.copy()
    for fault in parts.faults:
        raised[fault.start : fault.stop, NODES.index(fault.node)] += by
    return raised


def weights(found: Manifest) -> dict[str, float]:
    return {model.name: model.weight for model in found.models}


def test_a_random_forest_starts_with_what_its_labels_are_worth():
    """Little if they are injected faults, much if they are real incidents."""
    models = {name: MODELS[name](ModelsConfig()) for name in ("isolation_forest", "random_forest")}
    injected, incidents = (_entry("random_forest", models, real=real) for real in (False, True))
    assert injected.weight < 1.0 < incidents.weight
    for real in (False, True):
        assert _entry("isolation_forest", models, real=real).weight == WEIGHTS["isolation_forest"]


def test_the_autoregression_is_a_member_whose_file_is_the_cohort():
    entry = _entry("autoregression", {}, real=False)
    assert (entry.type, entry.file, entry.input) == ("autoregression", "cohort.safetensors", "residuals")
    assert entry.weight == 1.0


def test_who_hears_the_faults_gains_on_who_does_not_by_one_step_each(parts):
    clean = {name: quiet(seed) for seed, name in enumerate(PRIOR)}
    faulted = clean | {"keen": loud(parts, clean["keen"], 3.5)}
    found = weights(weighted(parts, manifest(*PRIOR), clean, faulted, BUDGET))
    assert found["keen"] == 2.0
    assert found["deaf"] == 0.5
    assert found["lent"] == 1.0


def test_where_nothing_is_gained_the_weights_stay_as_they_were_measured(parts):
    """Every member hears everything, or all say the same."""
    clean = {name: quiet(seed) for seed, name in enumerate(PRIOR)}
    all_hear = {name: loud(parts, scores, 50.0) for name, scores in clean.items()}
    assert weights(weighted(parts, manifest(*PRIOR), clean, all_hear, BUDGET)) == PRIOR
    same = dict.fromkeys(PRIOR, quiet(7))
    one_voice = dict.fromkeys(PRIOR, loud(parts, quiet(7), 2.0))
    assert weights(weighted(parts, manifest(*PRIOR), same, one_voice, BUDGET)) == PRIOR


def test_nothing_else_of_the_manifest_changes(parts):
    clean = {name: quiet(seed) for seed, name in enumerate(PRIOR)}
    faulted = clean | {"keen": loud(parts, clean["keen"], 3.5)}
    given = manifest(*PRIOR)
    found = weighted(parts, given, clean, faulted, BUDGET)
    models = tuple(replace(model, weight=PRIOR[model.name]) for model in found.models)
    assert replace(found, models=models) == given


def test_few_faults_and_a_single_member_decide_nothing(parts):
    clean = {name: quiet(seed) for seed, name in enumerate(PRIOR)}
    faulted = clean | {"keen": loud(parts, clean["keen"], 3.5)}
    late = [fault for fault in parts.faults if fault.start >= parts.calibration.start]
    few = replace(parts, faults=late[: LEAST_FAULTS - 1])
    assert weights(weighted(few, manifest(*PRIOR), clean, faulted, BUDGET)) == PRIOR
    alone = manifest("keen")
    assert weighted(parts, alone, clean, faulted, BUDGET) is alone


def test_only_faults_of_the_part_that_calibrates_are_enough_to_decide(parts):
    clean = {name: quiet(seed) for seed, name in enumerate(PRIOR)}
    faulted = clean | {"keen": loud(parts, clean["keen"], 3.5)}
    before, inside, after = (
        [fault for fault in parts.faults if part.start <= fault.start < part.stop]
        for part in (parts.fit, parts.calibration, parts.judged)
    )
    assert min(len(before), len(after)) > LEAST_FAULTS
    for others in (before, after):
        few = replace(parts, faults=[*others, *inside[: LEAST_FAULTS - 1]])
        assert weights(weighted(few, manifest(*PRIOR), clean, faulted, BUDGET)) == PRIOR


def test_the_part_that_is_judged_has_no_say(parts):
    """Whatever happens there, in scores or in faults, the weights come out the same."""
    clean = {name: quiet(seed) for seed, name in enumerate(PRIOR)}
    faulted = clean | {"keen": loud(parts, clean["keen"], 3.5)}
    expected = weights(weighted(parts, manifest(*PRIOR), clean, faulted, BUDGET))
    wild = {name: scores.copy() for name, scores in faulted.items()}
    for scores in wild.values():
        scores[parts.judged] = 1e3
    fewer = replace(parts, faults=[fault for fault in parts.faults if fault.start < parts.judged.start])
    assert weights(weighted(fewer, manifest(*PRIOR), clean, wild, BUDGET)) == expected


def test_who_must_agree_decides_what_a_weight_is_worth(parts):
    """The keen member hears faults, but no weight finds more where alarms are what the deaf one hears."""
    clean = {name: quiet(seed) for seed, name in enumerate(PRIOR)}
    faulted = clean | {"keen": loud(parts, clean["keen"], 3.5)}
    bound = replace(manifest(*PRIOR), witnesses=(Witness(("deaf",), 1e6),))
    assert weights(weighted(parts, manifest(*PRIOR), clean, faulted, BUDGET)) != PRIOR
    assert weights(weighted(parts, bound, clean, faulted, BUDGET)) == PRIOR


def test_a_tight_budget_has_witnesses_among_the_members_there_are():
    assert witnesses_among(("lstm", "isolation_forest", "kmeans")) == (
        Witness(("lstm",), 0.9),
        Witness(("isolation_forest",), 0.7),
    )
    assert witnesses_among(("kmeans",)) == ()
