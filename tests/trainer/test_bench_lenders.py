"""What other entities lend the Random Forest of a bench: who may, what exactly, and what if nobody can."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from bench_data import EVENTS, TEST, read_scores, series, server, small_config, write_folder
from node_anomaly_core.errors import ConfigError, TrainingError
from node_anomaly_trainer.bench.data import digest_of, digests_of, load, read_manifest
from node_anomaly_trainer.bench.entity import NO_INCIDENT
from node_anomaly_trainer.bench.lenders import MOST_NORMAL_ROWS, borrow, labelled_rows, lend
from node_anomaly_trainer.bench.loans import (
    Checked,
    Loan,
    check,
    labels_path,
    lend_out,
    lent,
    loans_for,
    may_lend,
    refusal,
)
from node_anomaly_trainer.bench.run import Options, run
from node_anomaly_trainer.bench.table import lines, print_outcome
from node_anomaly_trainer.fitting import FAULT_GUARD_TICKS
from node_anomaly_trainer.progress import SilentProgress, ignore_report

CONFIG = small_config()


def entries(tmp_path, **arrays):
    """Entries of a folder, one for each keyword, all of the data set web."""
    folder = {f"web/{name}": one for name, one in arrays.items()}
    return read_manifest(write_folder(tmp_path / "data", folder))


def checked(entry, *measured):
    return Checked(entry, "whole", frozenset(measured), 1)


def test_nobody_lends_to_itself(tmp_path):
    """Not under its name, and not what was measured on it under another one; nor to another data set."""
    one, two, three = entries(tmp_path, one=server(1), two=server(2), three=server(3))
    other = replace(two, dataset="db")
    loans = [
        Loan(checked(one, "a", "b"), tmp_path, "1"),
        Loan(checked(two, "c", "b"), tmp_path, "2"),
        Loan(checked(three, "d", "e"), tmp_path, "3"),
        Loan(checked(other, "f"), tmp_path, "4"),
    ]
    assert [loan.fingerprint for loan in loans_for(checked(one, "b", "x"), loans)] == ["3"]
    assert [loan.fingerprint for loan in loans_for(checked(other, "x"), loans)] == []


def test_a_server_that_was_packed_anew_rounded_or_labelled_otherwise_is_the_same_server(tmp_path):
    arrays = server(1)
    (one,) = entries(tmp_path, one=arrays)
    plain, label = load(one)
    np.savez_compressed(
        one.path,
        **arrays
        | {
            "train": arrays["train"][::-1],
            "test": arrays["test"].astype(np.float64) * (1 + 1e-12),
            "columns": np.array(["a", "b", "c", "d"]),
            "label": 1 - arrays["label"],
        },
    )
    packed, other = load(one)
    assert len(digests_of(plain) & digests_of(packed)) == 1, "it has the same test"
    assert digest_of(plain, label) != digest_of(packed, other)
    assert digest_of(plain, label) == digest_of(*load(entries(tmp_path / "again", one=arrays)[0]))
    np.savez_compressed(one.path, **arrays | {"label": 1 - arrays["label"]})
    assert digest_of(*load(one)) != digest_of(plain, label), "what it taught is another lesson"


def test_servers_that_stood_still_at_first_are_not_taken_for_the_same(tmp_path):
    """A count is 0 for the first weeks on many servers; with the same test part they are the same."""
    still = {f"web/{seed}": server(seed) for seed in (1, 2)}
    for arrays in still.values():
        arrays["train"][:] = 0
        arrays["train"][:, 0] = np.nan
    still["web/again"] = still["web/1"]
    one, other, again = (digests_of(load(e)[0]) for e in read_manifest(write_folder(tmp_path, still)))
    assert not one & other
    assert one & again


def test_only_those_lend_who_can_teach_somebody(tmp_path):
    one, two = entries(tmp_path, one=server(1), two=server(2))
    folder = tmp_path / "data"
    assert may_lend(None, [one]) == ()
    assert may_lend(folder, [one]) == (two,)
    assert may_lend(folder, [one, two]) == (one, two)
    with pytest.raises(ConfigError, match="no entity there belongs to a data set that is judged here") as no:
        may_lend(folder, [replace(one, dataset="db")])
    assert "judged are db" in str(no.value)


def test_a_lender_lends_its_incidents_and_normal_rows_that_are_far_from_them(tmp_path):
    (entry,) = entries(tmp_path, one=server(1))
    loaded, label = load(entry)
    rows = labelled_rows(loaded, label, CONFIG, ignore_report)
    close = sum(stop - first + 2 * FAULT_GUARD_TICKS for first, stop in EVENTS)
    assert (rows.labels == 1).sum() == label.sum()
    assert (rows.labels == 0).sum() == TEST - close
    assert rows.summary.shape == rows.normalised.shape
    assert rows.summary.dtype == np.float32
    anomalous = rows.labels == 1
    assert (
        np.median(rows.summary[anomalous], axis=0).sum() > np.median(rows.summary[~anomalous], axis=0).sum()
    )


def test_normal_rows_of_a_long_series_are_a_sample(tmp_path):
    (entry,) = entries(tmp_path, one=series(1, 7000))
    rows = labelled_rows(*load(entry), CONFIG, ignore_report)
    assert (rows.labels == 0).sum() == MOST_NORMAL_ROWS
    assert (rows.labels == 1).sum() == 5


def test_what_was_lent_is_kept_under_its_fingerprint(tmp_path):
    one, two = entries(tmp_path, one=server(1), two=server(2))
    for entry in (one, two):
        lend(entry, tmp_path, CONFIG, entry.entity, ignore_report)
    paths = [labels_path(tmp_path, entry) for entry in (one, two)]
    assert lent(paths[0], "one")
    assert not lent(paths[0], "two")
    assert not lent(tmp_path / "gone.npz", "one")
    rows = borrow(paths)
    assert rows is not None
    assert (rows.labels == 1).sum() == 2 * server(1)["label"].sum()
    paths[0].write_bytes(paths[0].read_bytes()[:-500])
    assert not lent(paths[0], "one")


def calm(seed):
    """A server to which nothing happens."""
    return server(seed) | {"label": np.zeros(TEST, dtype=np.uint8)}


def test_where_no_lender_has_an_incident_injected_faults_teach_and_nothing_says_otherwise(tmp_path, capsys):
    """It used to cost the entity all of its scores."""
    folder = write_folder(tmp_path / "data", {"web/one": server(1), "web/calm": calm(2)})
    out = tmp_path / "out"
    outcome = run(Options(folder, out, labels_from=folder, entities="one"), CONFIG, SilentProgress())
    (entity,) = outcome.entities
    assert entity.record.refused == ""
    assert entity.record.lenders == 0
    assert NO_INCIDENT in entity.record.notes
    assert any(NO_INCIDENT in line for line in lines(outcome))
    assert np.isfinite(read_scores(out / "web" / "one.csv")).all()
    print_outcome(outcome, Console(width=80))
    assert "labels of others" not in capsys.readouterr().out


def test_labels_for_a_forest_that_is_left_out_are_refused_before_anything_is_done(tmp_path):
    folder = write_folder(tmp_path / "data", {"web/one": server(1), "web/two": server(2)})
    config = replace(CONFIG, models=replace(CONFIG.models, enabled=("isolation_forest",)))
    with pytest.raises(ConfigError, match="only the random_forest learns from labels"):
        run(Options(folder, tmp_path / "out", labels_from=folder), config, SilentProgress())
    assert not (tmp_path / "out").exists()


def test_a_calm_server_lends_what_is_normal_beside_the_incidents_of_another(tmp_path):
    one, two = entries(tmp_path, one=calm(1), two=server(2))
    for entry in (one, two):
        lend(entry, tmp_path, CONFIG, "x", ignore_report)
    calm_rows, both = labels_path(tmp_path, one), [labels_path(tmp_path, entry) for entry in (one, two)]
    assert borrow([calm_rows]) is None
    rows = borrow(both)
    assert rows is not None
    assert (rows.labels == 0).sum() > TEST


def test_a_lender_without_enough_history_says_so_and_is_not_asked_again(tmp_path):
    one, short = entries(tmp_path, one=server(1), short=server(2, train=49))
    progress = SilentProgress()
    lending = check((one, short), "check", progress)
    loans, notes = lend_out(lending, tmp_path, CONFIG, 1, progress)
    assert [loan.lender.entry.entity for loan in loans] == ["one"]
    assert notes == ("web/short lends no labels: its train part has 49 ticks, 50 are needed",)
    assert refusal(labels_path(tmp_path, short)) == "its train part has 49 ticks, 50 are needed"
    written = labels_path(tmp_path, short).stat().st_mtime_ns
    assert lend_out(lending, tmp_path, CONFIG, 1, progress) == (loans, notes)
    assert labels_path(tmp_path, short).stat().st_mtime_ns == written


def test_labels_that_cannot_be_written_end_a_bench_that_was_to_have_them(tmp_path):
    """Or its figures would be headed labels of others, and be of fewer for want of room."""
    (one,) = entries(tmp_path, one=server(1))
    labels_path(tmp_path, one).mkdir(parents=True)
    with pytest.raises(TrainingError, match="labels of web/one could not be written down: ") as raised:
        lend_out(check((one,), "check", SilentProgress()), tmp_path, CONFIG, 1, SilentProgress())
    assert "Try: " not in raised.value.message, "it is what the hint is shown by"
    assert raised.value.hint == (
        "check the path, its permissions and free space; what is done is kept, the same command goes on"
    )


def test_a_disk_without_room_for_labels_is_found_before_they_are_written(tmp_path, monkeypatch):
    (one,) = entries(tmp_path, one=server(1))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100_000))
    with pytest.raises(TrainingError, match=re.escape(f"{tmp_path}: ")):
        lend(one, tmp_path, CONFIG, "x", ignore_report)
    assert not labels_path(tmp_path, one).exists()
