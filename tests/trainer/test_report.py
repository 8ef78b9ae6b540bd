"""What a report says of a run, figure by figure: on histories and scores small enough to count by hand."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

import small_bundle
from node_anomaly_core.bundle_store import Bundle
from node_anomaly_core.calibration import Tail
from node_anomaly_core.manifest import Manifest
from node_anomaly_trainer.assess import COMBINED
from node_anomaly_trainer.candidate import Parts
from node_anomaly_trainer.dataset import ANOMALOUS, NORMAL, History
from node_anomaly_trainer.moment import moment
from node_anomaly_trainer.report import pictures
from node_anomaly_trainer.report.record import (
    BINS,
    COVERAGE_COLUMNS,
    LEVELS,
    MOST_GAPS,
    Distributions,
    changes,
    coverage_picture,
    distributions,
    summarise_data,
)
from node_anomaly_trainer.report.write import figure, named, plain, share

NAN = float("nan")
TICKS = 480
ALARM = -2.0
"""log10 of how rare an alarm is."""


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return small_bundle.build().manifest


def parts(history: History, labels: NDArray[np.int8] | None = None) -> Parts:
    """Half of it fitted on, a quarter to calibrate, a quarter to judge."""
    fit, judged = history.ticks // 2, history.ticks * 3 // 4
    faulted = history if labels is None else replace(history, labels=labels)
    return Parts(history, faulted, [], slice(0, fit), slice(fit, judged), slice(judged, history.ticks))


def past(*holes: tuple[str, slice, slice]) -> History:
    """A history in which nothing is known of some ticks and features of nodes."""
    history = small_bundle.history(TICKS)
    values = np.array(history.values)
    for node, ticks, features in holes:
        values[ticks, history.nodes.index(node), features] = np.nan
    return replace(history, values=values)


EVERYTHING = slice(None)


# ----------------------------------------------------------------------------------------------- the data


def test_the_longest_gap_comes_first_and_one_under_ten_ticks_is_none() -> None:
    history = past(
        ("alpha", slice(100, 110), EVERYTHING),
        ("beta", slice(20, 260), EVERYTHING),
        ("gamma", slice(300, 309), EVERYTHING),
    )
    found = summarise_data(history, parts(history))
    assert [(gap.node, gap.start, gap.hours) for gap in found.gaps] == [
        ("beta", moment(history.timestamps[20]), 1.0),
        ("alpha", moment(history.timestamps[100]), 10 * 15 / 3600),
    ]
    assert found.gap_count == 2


def test_ticks_of_which_one_feature_is_known_are_no_gap() -> None:
    history = past(("alpha", slice(100, 200), slice(1, None)))
    assert summarise_data(history, parts(history)).gaps == ()


def test_gaps_that_are_not_listed_are_counted() -> None:
    history = past(*(("alpha", slice(start, start + 10), EVERYTHING) for start in range(0, TICKS, 20)))
    found = summarise_data(history, parts(history))
    assert (len(found.gaps), found.gap_count) == (MOST_GAPS, 24)


def test_values_missing_are_a_share_over_the_nodes_that_have_the_feature() -> None:
    """Beta has no disk at all and gamma misses a tenth of it; alpha misses a quarter of the processor."""
    history = past(
        ("beta", EVERYTHING, slice(4, 5)),
        ("gamma", slice(0, 48), slice(4, 5)),
        ("alpha", slice(0, 120), slice(0, 1)),
        ("alpha", slice(0, 1), slice(1, 2)),  # one value is not worth a line
    )
    names = history.feature_names
    missing = summarise_data(history, parts(history)).missing
    assert list(missing) == [names[0], names[4]], "the worst first"
    assert list(missing.values()) == pytest.approx([0.25 / 3, 0.1 / 2])


def test_it_is_said_until_when_was_fitted_and_until_when_calibrated() -> None:
    history = past()
    found = summarise_data(history, parts(history))
    at = history.timestamps
    assert (found.start, found.stop) == (moment(at[0]), moment(at[-1]))
    assert (found.fit_until, found.calibrate_until) == (moment(at[240]), moment(at[360]))


def test_the_map_has_the_share_of_values_known_per_node_and_stretch() -> None:
    stretch = TICKS // COVERAGE_COLUMNS
    history = past(
        ("alpha", slice(0, stretch), EVERYTHING), ("gamma", slice(stretch, 2 * stretch), slice(0, 2))
    )
    alpha, beta, gamma = coverage_picture(history)
    assert len(alpha) == COVERAGE_COLUMNS
    assert alpha[:3] == (0.0, 1.0, 1.0)
    assert set(beta) == {1.0}
    assert gamma[:3] == (1.0, 0.75, 1.0)
    assert len(coverage_picture(small_bundle.history(5))[0]) == 5, "no more of them than ticks"


# --------------------------------------------------------------------------------------------- the scores


def judged(
    lived: list[NDArray[np.float64]], faulted: NDArray[np.float64], labels: NDArray[np.int8]
) -> Distributions:
    """Distributions of scores of the small history; an alarm is a hundredth of all ticks."""
    tail = Tail((0.0, 1.0), (0.0, ALARM), ALARM)
    candidate = SimpleNamespace(manifest=SimpleNamespace(tail=tail))
    assessed = SimpleNamespace(faulted={COMBINED: faulted}, lived=tuple(lived), candidate=candidate)
    return distributions(assessed, parts(past(), labels))  # type: ignore[arg-type]


def at_bin(found: Distributions, score: float) -> int:
    return int(np.searchsorted(found.edges, score, side="right")) - 1


def test_every_known_normal_tick_is_in_a_bin_and_the_outermost_hold_what_lies_beyond() -> None:
    shape = (TICKS, len(small_bundle.NODES))
    lived = [np.array([0.51, 0.52, NAN, 99.0]), np.array([-7.0, 2.3])]
    found = judged(lived, np.zeros(shape), np.full(shape, NORMAL, dtype=np.int8))
    counts = dict(enumerate(found.normal))
    assert sum(counts.values()) == 5
    assert counts[at_bin(found, 0.51)] == 2
    assert counts[at_bin(found, 2.3)] == 1
    assert (found.normal[0], found.normal[-1]) == (1, 1)
    assert sum(found.faulty) == 0
    assert len(found.edges) == len(BINS) == len(found.normal) + 1


def test_within_faults_are_known_scores_of_the_judged_part_alone() -> None:
    shape = (TICKS, len(small_bundle.NODES))
    scores, labels = np.full(shape, 1.51), np.full(shape, NORMAL, dtype=np.int8)
    labels[300:310] = ANOMALOUS  # nobody judged there
    labels[400:404, 1] = ANOMALOUS
    scores[400, 1] = NAN
    found = judged([], scores, labels)
    assert sum(found.faulty) == found.faulty[at_bin(found, 1.51)] == 3
    assert sum(found.normal) == 0
    assert all(math.isnan(value) for value in found.observed)


def test_a_level_is_promised_by_the_tail_and_observed_where_it_was_reached() -> None:
    shape = (TICKS, len(small_bundle.NODES))
    lived = [np.array([0.0, 0.0, 0.0, 1.0])]
    found = judged(lived, np.zeros(shape), np.full(shape, NORMAL, dtype=np.int8))
    promised = dict(zip(found.levels, found.promised, strict=True))
    observed = dict(zip(found.levels, found.observed, strict=True))
    assert found.levels == tuple(LEVELS.tolist())
    assert promised[1.0] == pytest.approx(0.01)
    assert promised[0.5] == pytest.approx(0.1)
    assert observed[0.5] == observed[1.0] == 0.25
    assert math.isnan(observed[1.1]), "a share of 0 has no place on a scale of powers"


# ------------------------------------------------------------------------------------- against production


def in_production(manifest: Manifest) -> Bundle:
    return Bundle(Path("old"), "0123456789abcdef", manifest, {})


def test_without_a_bundle_in_production_nothing_has_changed(manifest: Manifest) -> None:
    assert changes(manifest, None) == ()


def test_the_same_again_changes_nothing_but_is_named(manifest: Manifest) -> None:
    level = f"{manifest.tail.alarm_level():.2f}"
    assert changes(manifest, in_production(manifest)) == (
        f"in production: 0123456789abcdef, trained {moment(manifest.trained_at)}",
        f"alarm threshold, in units of normal scatter: {level} before, {level} now",
    )


def test_what_is_new_what_is_gone_and_what_weighs_more_is_said_in_the_order_of_time(
    manifest: Manifest,
) -> None:
    now = replace(
        manifest,
        features=manifest.features[1:],
        nodes=(*manifest.nodes[1:], "delta"),
        models=(replace(manifest.models[0], weight=2.5), *manifest.models[2:]),
        budget_per_week=7.0,
        tail=Tail((0.0, 1.0, 3.0), (0.0, -1.0, -3.0), -3.0),
    )
    old = replace(manifest, tail=Tail((0.0, 1.0, 2.0), (0.0, -1.0, -2.0), -2.0))
    was = f"{manifest.models[0].weight:g}"
    assert changes(now, in_production(old))[1:] == (
        f"features gone: {manifest.features[0].name}",
        "new nodes: delta",
        "nodes gone: alpha",
        f"members gone: {manifest.models[1].name}",
        f"weight of {manifest.models[0].name}: {was} before, 2.5 now",
        "budget: 1 before, 7 now",
        "alarm threshold, in units of normal scatter: 2.00 before, 3.00 now",
    )


# -------------------------------------------------------------------------------------------- the pictures


def words(svg: str) -> list[str]:
    return re.findall(r">([^<>\n]+)</text>", svg)


def test_a_bar_has_its_share_beside_it_and_an_unknown_one_says_so() -> None:
    said = words(pictures.recall_bars({"combined": 0.42, "plain_kmeans": NAN, "pca": 0.0}, "Faults found"))
    assert "Faults found" in said
    names, values = ("combined", "plain kmeans", "pca"), ("42%", "unknown", "0%")
    for shown in (names, values):  # drawn from below
        assert [word for word in said if word in shown] == list(shown)[::-1]


def test_only_what_we_are_compared_with_is_drawn_in_another_colour() -> None:
    def bars(name: str) -> set[str]:
        return {pictures.OURS, pictures.THEIRS} & set(
            re.findall(r"fill: (#[0-9a-f]{6})", pictures.recall_bars({name: 0.5}, "t"))
        )

    assert bars("combined") == bars("cpu spike") == {pictures.OURS}
    assert bars("pca") == bars("plain_kmeans") == bars("production") == {pictures.THEIRS}


def test_the_epoch_that_is_kept_is_the_one_of_the_least_loss() -> None:
    assert "kept: epoch 3, 0.2500" in words(pictures.learning_curve([0.9, 0.5, 0.25, 0.3]))


def test_no_more_nodes_are_named_at_the_map_than_fit_and_its_ends_are() -> None:
    nodes = [f"node-{number}" for number in range(100)]
    said = words(pictures.coverage_map([[1.0, 0.0]] * 100, nodes, "first", "last"))
    assert [word for word in said if word.startswith("node-")] == nodes[::2]
    assert [word for word in said if word in ("first", "last")] == ["first", "last"]


def drawn(**changes: tuple[float, ...]) -> Distributions:
    """Three bins, the last twice as wide, and two levels."""
    known = {
        "edges": (0.0, 1.0, 2.0, 4.0), "normal": (25, 25, 50), "faulty": (0, 0, 0),
        "levels": (0.5, 1.0), "promised": (0.1, 0.01), "observed": (0.1, 0.01),
    }  # fmt: skip
    return Distributions(**{**known, **changes})  # type: ignore[arg-type]


def test_a_bin_that_is_twice_as_wide_holds_twice_as_many_at_the_same_height() -> None:
    def heights(found: Distributions) -> int:
        path = re.search(
            rf'<path d="([^"]+)"[^>]*style="fill: {pictures.THEIRS}', pictures.score_distribution(found)
        )
        assert path
        return len({y for _, y in re.findall(r"[ML] ([-\d.]+) ([-\d.]+)", path[1])})

    assert heights(drawn()) == 2, "the foot and one height"
    assert heights(drawn(normal=(25, 25, 25))) == 3


def test_what_was_not_there_is_not_in_the_legend() -> None:
    assert "within injected faults" not in words(pictures.score_distribution(drawn()))
    both = words(pictures.score_distribution(drawn(faulty=(0, 1, 1))))
    assert {"held-back normal", "within injected faults"} <= set(both)


def test_a_level_that_one_tick_of_all_reached_lies_on_the_line_that_says_so() -> None:
    svg = pictures.calibration(drawn(observed=(0.1, 0.01)))  # of a hundred
    line = re.search(rf'<path d="M [\d.]+ ([\d.]+)[^"]*"[^>]*stroke: {pictures.FAINT}', svg)
    points = re.findall(rf'<use [^>]*y="([\d.]+)"[^>]*fill: {pictures.OURS}', svg)
    assert line
    assert float(points[1]) == pytest.approx(float(line[1]))
    assert float(points[0]) < float(line[1])


def test_the_same_numbers_are_the_same_picture_to_the_byte() -> None:
    assert pictures.learning_curve([0.9, 0.5]) == pictures.learning_curve([0.9, 0.5])


# ------------------------------------------------------------------------------------------- its numbers


@pytest.mark.parametrize(
    ("value", "digits", "said"),
    [(0.4249, 0, "42%"), (0.4249, 1, "42.5%"), (1.0, 0, "100%"), (NAN, 0, "unknown"), (None, 1, "unknown")],
)
def test_a_share_is_a_percentage_with_as_many_digits_as_are_asked_for(
    value: float | None, digits: int, said: str
) -> None:
    assert share(value, digits) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.012345, "0.0123"), (99.94, "99.9"), (100.0, "100"), (-1234.4, "-1,234"), (NAN, "-"), (None, "-")],
)
def test_a_figure_has_three_digits_that_count(value: float | None, said: str) -> None:
    assert figure(value, "-") == said


def test_what_is_no_number_is_null_in_json_however_deep_it_lies() -> None:
    found = plain({"a": [math.inf, (NAN, 1.5)], 2: Path("x"), "b": True})
    assert json.dumps(found, allow_nan=False) == '{"a": [null, [null, 1.5]], "2": "x", "b": true}'


# -------------------------------------------------------------------------------------------- its directory


def test_two_runs_that_end_in_one_second_have_a_directory_each(tmp_path: Path) -> None:
    made = []
    for number in range(4):
        (tmp_path / f".{number}").mkdir()
        made.append(named(tmp_path, tmp_path / f".{number}").name)
    assert len(set(made)) == 4
    assert all(re.fullmatch(r"\d{8}T\d{6}Z(-[2-4])?", name) for name in made)
    assert any("-" in name for name in made), "four in one second, or in two"
