"""What a bench says beside its figures: who was refused, what was noted, and what it took."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from types import SimpleNamespace
from typing import Any

from rich.console import Console

from node_anomaly_trainer.bench.metrics import Figures
from node_anomaly_trainer.bench.record import Record
from node_anomaly_trainer.bench.run import Entity, Outcome
from node_anomaly_trainer.bench.table import MOST_LINES, SHOWN, as_json, lines, print_outcome, without_scores

FIGURES = Figures(
    rows=100, days=2.0, unknown=0, vus_pr=0.9, auc_pr=0.8, events=4, caught=3, alarms=5, false_alarms=1,
    false_alarms_per_day=0.5, alarm_share=0.0625, delay=2.5,
)  # fmt: skip


def entity(name: str, **record: Any) -> Entity:
    """Done in a minute of training, two of scoring and three of baselines, unless it is said otherwise."""
    known: dict[str, Any] = {
        "lenders": 0,
        "refused": "",
        "refused_hint": "",
        "notes": (),
        "seconds": {"train": 60.0, "score": 120.0, "baselines": 180.0},
        "tick_ms": 1.0,
        "bundle_bytes": 1 << 20,
    }
    made = Record(fingerprint="", scores={}, figures={}, **(known | record))
    entry = SimpleNamespace(dataset="web", entity=name, name=f"web/{name}")
    return Entity(entry, made, dict.fromkeys(SHOWN, FIGURES))  # type: ignore[arg-type]


def outcome(*entities: Entity, **changes: Any) -> Outcome:
    known: dict[str, Any] = {
        "failed": {},
        "notes": (),
        "false_alarms_per_day": 1.0,
        "done_before": 0,
        "seconds": 90.0,
    }
    return Outcome(entities, **(known | changes))


def test_a_row_has_its_figures_in_the_order_of_the_columns() -> None:
    stream = StringIO()
    print_outcome(outcome(entity("one")), Console(file=stream, width=80))
    row = next(line for line in stream.getvalue().splitlines() if line.startswith("node-anomaly"))
    assert row.split()[1:] == ["0.900", "0.800", "0.750", "0.500", "3.50", "6.2%", "0.800", "2.5"]
    assert "web, 1 entity; " in stream.getvalue()


def test_brackets_in_the_name_of_a_data_set_stand_in_its_title() -> None:
    stream = StringIO()
    one = entity("one")
    entry = SimpleNamespace(dataset="web[prod]", entity="one", name="web[prod]/one")
    print_outcome(outcome(replace(one, entry=entry)), Console(file=stream, width=80))  # type: ignore[arg-type]
    assert stream.getvalue().startswith("web[prod], 1 entity; ")


def test_the_title_says_whose_labels_taught_and_not_who_was_asked_for_them() -> None:
    def title(*entities: Entity) -> str:
        stream = StringIO()
        print_outcome(outcome(*entities), Console(file=stream, width=120))
        return " ".join(stream.getvalue().split()).split(" FA per")[0]

    short = entity("short", refused="too short")
    assert title(entity("one"), short).endswith("per node-day")
    assert title(entity("one", lenders=3), short).endswith("per node-day, labels of others")
    assert title(entity("one", lenders=3), entity("two")).endswith("per node-day, labels of others for 1")


def test_what_is_said_of_most_comes_first_with_the_first_few_of_them() -> None:
    short = [entity(f"short-{number}", refused="too short") for number in range(6)]
    told = lines(outcome(entity("odd", refused="odd"), *short, entity("fine", notes=("slow",))))
    assert told[:5] == [
        "no scores for 7 of 8 entities, the trainer refuses them:",
        "  web/short-0, web/short-1, web/short-2, web/short-3 and 2 more: too short",
        "  web/odd: odd",
        "otherwise than configured, or worth knowing:",
        "  web/fine: slow",
    ]


def test_what_to_do_about_a_refusal_stands_behind_its_reason() -> None:
    made = outcome(entity("one", refused="too short", refused_hint="give it more"), entity("two"))
    assert lines(made)[1] == "  web/one: too short. Try: give it more"
    assert json.loads(as_json(made))["entities"]["web/one"]["refused_hint"] == "give it more"


def test_what_a_refused_entity_noted_is_not_worth_a_line() -> None:
    told = lines(outcome(entity("one", refused="too short", notes=("slow",))))
    assert not [line for line in told if "slow" in line]


def test_of_many_different_refusals_the_rest_is_counted() -> None:
    told = lines(outcome(*(entity(str(n), refused=f"reason {n}") for n in range(MOST_LINES + 3))))
    assert told[MOST_LINES + 1] == "  and 3 more; --output json has them all"
    assert len([line for line in told if line.startswith("  web/")]) == MOST_LINES


def test_what_it_took_is_said_in_minutes_and_mebibytes_over_all_entities() -> None:
    made = outcome(
        entity("one", tick_ms=1.0),
        entity("two", tick_ms=2.0, bundle_bytes=3 << 20),
        entity("three", tick_ms=9.0),
        entity("none", refused="too short", tick_ms=None, bundle_bytes=None),
        done_before=3,
    )
    assert lines(made)[-1] == (
        "this run took 1.5 min (3 entities done before); all entities together 24.0 min (4.0 train, "
        "8.0 score, 12.0 baselines); a tick 2.00 ms CPU (median, 9.00 at most); largest bundle 3.00 MiB"
    )
    totals = json.loads(as_json(made))["totals"]
    assert totals["this_run_minutes"] == 1.5
    assert (totals["tick_ms_median"], totals["tick_ms_largest"]) == (2.0, 9.0)
    assert totals["largest_bundle_bytes"] == 3 << 20


def test_where_nothing_was_scored_there_is_no_tick_and_no_bundle() -> None:
    said = lines(outcome(entity("one", refused="too short", tick_ms=None, bundle_bytes=None)))[-1]
    assert "a tick - ms CPU (median, - at most); largest bundle - MiB" in said


def test_those_without_scores_are_counted_and_the_first_few_named() -> None:
    short = [entity(f"short-{number}", refused="too short") for number in range(6)]
    made = outcome(entity("fine"), *short)
    assert made.refused == tuple(f"web/short-{number}" for number in range(6))
    error = without_scores(made)
    assert error.message == (
        "6 of 7 entities without scores, the trainer refuses web/short-0, web/short-1, web/short-2, "
        "web/short-3 and 2 more"
    )
    assert error.hint.endswith("leave them out of manifest.json")


def test_those_with_a_train_part_have_a_table_of_their_own_beside_single_series() -> None:
    """It is what an outside evaluator of test parts sees."""
    alone = replace(entity("rate"), has_train_part=False)
    missed = replace(alone, figures=dict.fromkeys(SHOWN, replace(FIGURES, vus_pr=0.1, caught=0)))
    mixed, stream = outcome(entity("one"), missed, entity("two")), StringIO()
    print_outcome(mixed, Console(file=stream, width=80))
    both, apart = stream.getvalue().split("web, only the 2 with a train part of their own")
    assert "web, 3 entities; " in both
    assert "node-anomaly      0.633" in both
    assert "node-anomaly      0.900" in apart
    means = json.loads(as_json(mixed))["datasets"]["web"]["ours"]
    assert (means["mean"]["entities"], means["mean_with_train_part"]["entities"]) == (3, 2)
    assert means["mean_with_train_part"]["recall"] == 0.75


def test_a_data_set_of_one_kind_has_one_table() -> None:
    for has_train_part in (True, False):
        stream = StringIO()
        alike = [replace(entity(name), has_train_part=has_train_part) for name in ("one", "two")]
        print_outcome(outcome(*alike), Console(file=stream, width=80))
        assert "only the" not in stream.getvalue()
