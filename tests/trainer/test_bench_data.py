"""The folder that bench reads: what is refused, with which words, and how a single series is laid out."""

from __future__ import annotations

import io
import json
import re
import zipfile

import numpy as np
import pytest

from bench_data import COLUMNS, TEST, TRAIN, names_of, series, server, write_folder
from node_anomaly_core.errors import ConfigError, SourceError
from node_anomaly_trainer.bench.data import MOST_ERRORS, START_S, choose, load, read_manifest
from node_anomaly_trainer.bench.loans import check
from node_anomaly_trainer.progress import SilentProgress


@pytest.fixture
def folder(tmp_path):
    return write_folder(
        tmp_path / "data",
        {"web/web-1": server(1), "web/web-2": server(2), "cloud/eu/requests": series(3, 100)},
    )


def one(tmp_path, arrays):
    """The only entry of a folder with these arrays."""
    (entry,) = read_manifest(write_folder(tmp_path / "one", {"web/web-1": arrays}))
    return entry


def test_entities_come_in_the_order_of_the_manifest(folder):
    assert names_of(read_manifest(folder)) == ["web/web-1", "web/web-2", "cloud/eu/requests"]


def test_a_server_is_read_as_it_is_in_its_file(folder):
    entry, *_ = read_manifest(folder)
    found, label = load(entry)
    assert (found.train.shape, found.test.shape) == ((TRAIN, len(COLUMNS)), (TEST, len(COLUMNS)))
    assert found.train.dtype == np.float32
    assert found.columns == COLUMNS
    assert found.start_s == START_S
    assert label.sum() == 60
    assert found.has_train_part
    assert np.array_equal(found.in_file(found.judged(np.arange(TEST))), np.arange(TEST))


def test_a_single_series_is_judged_after_its_first_15_percent(folder):
    *_, entry = read_manifest(folder)
    found, label = load(entry)
    assert (len(found.train), len(found.test), len(label)) == (15, 85, 85)
    assert found.columns == ("value",)
    written = found.in_file(found.judged(np.arange(85.0)))
    assert np.isnan(written[:15]).all()
    assert np.array_equal(written[15:], np.arange(85.0))


def test_rows_of_a_series_find_their_tick_whatever_their_order(tmp_path):
    """Gaps are missing ticks, of rows at one time the last counts, and each row gets its tick's score."""
    arrays = series(1, 40)
    arrays["value"] = np.arange(40.0)
    arrays["time"][30:] += 5 * 60  # a gap of five ticks
    arrays["time"][35] = arrays["time"][34]
    order = np.random.default_rng(0).permutation(40)
    swapped = [at for at in order if at not in (34, 35)]
    order = np.array([*swapped, 34, 35])
    shuffled = {key: array[order] if array.ndim else array for key, array in arrays.items()}
    found, label = load(one(tmp_path, shuffled))
    assert found.train[:, 0].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    test = found.test[:, 0]
    assert np.isnan(test[24:29]).all()
    assert test[29:34].tolist() == [30.0, 31.0, 32.0, 33.0, 35.0]
    assert np.isnan(test[34])
    written = found.in_file(found.judged(np.nan_to_num(test)))
    expected = np.where(order == 34, 35.0, order.astype(float))
    assert np.array_equal(written, np.where(order < 6, np.nan, expected), equal_nan=True)
    assert np.array_equal(label, arrays["label"][6:])


def without(arrays, key):
    return {name: array for name, array in arrays.items() if name != key}


WRONG = {
    "no label": (without(server(1), "label"), "no label; it holds columns"),
    "flat": (server(1) | {"train": np.zeros(9)}, r"train is float64 of shape \(9,\), expected"),
    "text instead of numbers": (server(1) | {"test": np.array([["a"]])}, "test is <U1 of shape"),
    "other widths": (server(1) | {"train": np.zeros((9, 3))}, "train has 3 features, test 4, and columns"),
    "columns": (server(1) | {"columns": np.array(["a"])}, "and columns names 1"),
    "few labels": (server(1) | {"label": np.zeros(9)}, r"label has shape \(9,\), test has 400"),
    "label 2": (server(1) | {"label": np.full(TEST, 2)}, "label holds 2, expected 0 and 1"),
    "label NaN": (server(1) | {"label": np.full(TEST, np.nan)}, "label holds nan, expected 0 and 1"),
    "one row": (server(1) | {"train": np.zeros((1, 4))}, "train has 1 rows"),
    "no time passes": (server(1) | {"interval_s": np.array(0)}, "interval_s is 0, expected 1 to 3600"),
    "too little time": (server(1) | {"interval_s": np.array(0.5)}, "is 0.5, expected 1 to 3600"),
    "two intervals": (server(1) | {"interval_s": np.array([1, 2])}, "expected one number"),
    "no interval": (without(server(1), "interval_s"), "no interval_s, and none in the manifest"),
    "no time": (without(series(1, 50), "time"), "no time; it holds interval_s, label, value"),
    "few rows": (series(1, 12), "12 times and 12 values, expected as many of both, 20"),
    "one instant": (series(1, 50) | {"time": np.zeros(50)}, "the first 15% of its rows span 0"),
    "milliseconds": (series(1, 50) | {"time": 1000 * np.arange(50)}, "60 s apart, but they span 49000"),
    "time NaN": (series(1, 50) | {"time": np.full(50, np.nan)}, "a time is not a finite number"),
    "objects": ({"test": np.array([None])}, "cannot be read: Object arrays"),
}


@pytest.mark.parametrize(("arrays", "said"), WRONG.values(), ids=list(WRONG))
def test_what_is_wrong_with_a_file_is_said_with_its_name(tmp_path, arrays, said):
    entry = one(tmp_path, arrays)
    with pytest.raises(SourceError, match=said) as raised:
        load(entry)
    assert raised.value.message.startswith(f"{entry.path}: ")
    assert "docs/bench-data.md" in raised.value.hint


def test_the_interval_may_be_in_the_manifest(tmp_path):
    folder = write_folder(tmp_path, {"web/web-1": without(server(1), "interval_s")})
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps([manifest[0] | {"interval_s": 300}]))
    assert load(read_manifest(folder)[0])[0].interval_s == 300.0
    np.savez(read_manifest(folder)[0].path, **(server(1) | {"interval_s": np.array(60)}))
    assert load(read_manifest(folder)[0])[0].interval_s == 60.0, "what the file says itself counts"


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04 and no more", b"\x93NUMPY"], ids=["empty", "cut", "npy"]
)
def test_a_file_that_is_no_npz_is_named(tmp_path, content):
    entry = one(tmp_path, server(1))
    entry.path.write_bytes(content)
    with pytest.raises(SourceError, match=re.escape(f"{entry.path}: cannot be read")):
        load(entry)


@pytest.mark.parametrize(
    ("at", "byte"), [(6, 0x20), (6, 0x01), (8, 0x63)], ids=["patched", "encrypted", "an odd compression"]
)
def test_a_zip_that_python_cannot_open_is_named(tmp_path, at, byte):
    entry = one(tmp_path, server(1))
    content = bytearray(entry.path.read_bytes())
    for header, field in ((b"PK\x01\x02", at + 2), (b"PK\x03\x04", at)):
        content[content.index(header) + field] = byte
    entry.path.write_bytes(content)
    with pytest.raises(SourceError, match=re.escape(f"{entry.path}: cannot be read")):
        load(entry)


def test_a_compressed_file_with_other_bytes_is_named(tmp_path):
    entry = one(tmp_path, server(1))
    np.savez_compressed(entry.path, **server(1))
    content = bytearray(entry.path.read_bytes())
    content[200:260] = b"\xff" * 60
    entry.path.write_bytes(content)
    with pytest.raises(SourceError, match=re.escape(f"{entry.path}: cannot be read")):
        load(entry)


def test_a_file_that_memory_does_not_suffice_for_is_not_told_to_be_written_otherwise(tmp_path):
    """As much as its header asks for, whether it holds that or is damaged."""
    entry = one(tmp_path, server(1))
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": "<f8", "fortran_order": False, "shape": (1 << 50, 1)}
    )
    with zipfile.ZipFile(entry.path, "w") as file:
        file.writestr("test.npy", head.getvalue())
    with pytest.raises(SourceError, match=r"suffice to read it: Unable to allocate") as raised:
        load(entry)
    assert raised.value.message.startswith(f"{entry.path}: ")
    assert raised.value.hint.startswith("free memory")


def test_memory_that_runs_out_while_a_file_is_laid_out_is_said_with_its_name(tmp_path, monkeypatch):
    entry = one(tmp_path, series(1, 50))

    def refuse(*_):
        raise MemoryError

    monkeypatch.setattr("node_anomaly_trainer.bench.data._univariate", refuse)
    with pytest.raises(SourceError, match=re.escape(f"{entry.path}: memory does not suffice to read it")):
        load(entry)


def unlabelled(seed):
    return {name: array for name, array in server(seed).items() if name != "label"}


def test_all_files_that_cannot_be_used_are_told_at_once(tmp_path):
    folder = write_folder(
        tmp_path, {"web/one": unlabelled(1), "web/two": server(2), "web/three": server(3, train=1)}
    )
    with pytest.raises(SourceError) as caught:
        check(read_manifest(folder), "check data", SilentProgress())
    assert caught.value.message.splitlines() == [
        "2 of 3 files cannot be used:",
        f"{folder}/web/0.npz: no label; it holds columns, interval_s, test, train",
        f"{folder}/web/2.npz: train has 1 rows and test 400",
    ]
    assert caught.value.hint.startswith("correct them, or leave them out of manifest.json; ")


def test_of_many_files_that_cannot_be_used_a_few_are_told_and_the_others_counted(tmp_path):
    folder = write_folder(
        tmp_path, {f"web/{number}": unlabelled(number) for number in range(MOST_ERRORS + 2)}
    )
    with pytest.raises(SourceError) as caught:
        check(read_manifest(folder), "check data", SilentProgress())
    first, *told, last = caught.value.message.splitlines()
    assert (first, last) == (f"{MOST_ERRORS + 2} of {MOST_ERRORS + 2} files cannot be used:", "and 2 more")
    assert [line.split(": ")[0] for line in told] == [
        f"{folder}/web/{number}.npz" for number in range(MOST_ERRORS)
    ]


def test_the_only_file_that_cannot_be_used_is_told_as_it_is(tmp_path):
    folder = write_folder(tmp_path, {"web/one": unlabelled(1), "web/two": server(2)})
    with pytest.raises(SourceError, match=re.escape(f"{folder}/web/0.npz: no label; ")):
        check(read_manifest(folder), "check data", SilentProgress())


def test_a_file_with_one_array_is_missing_the_others(tmp_path):
    entry = one(tmp_path, server(1))
    with entry.path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(SourceError, match="no time and no value and no label; it holds nothing"):
        load(entry)


def test_a_missing_file_is_named_with_the_entity_that_needs_it(folder):
    entry, *_ = read_manifest(folder)
    entry.path.unlink()
    with pytest.raises(SourceError, match=re.escape(f"{entry.path}: No such file")) as raised:
        load(entry)
    assert "web/web-1" in raised.value.hint


def test_a_folder_without_a_manifest_is_refused(tmp_path):
    with pytest.raises(SourceError, match=r"manifest\.json: No such file") as raised:
        read_manifest(tmp_path)
    assert "docs/bench-data.md" in raised.value.hint


GOOD = {"dataset": "web", "entity": "a", "path": "a.npz"}


@pytest.mark.parametrize(
    ("document", "said"),
    [
        pytest.param("{", "not JSON", id="no JSON"),
        pytest.param("[" * 100_000, "not JSON", id="very deep"),
        pytest.param("[]", "expected a list of entities", id="nothing in it"),
        pytest.param([1], "entry 1 is no object", id="a number"),
        pytest.param([GOOD | {"entity": None}], "entry 1: entity is None", id="no entity"),
        pytest.param([GOOD, GOOD | {"entity": "../../b"}], "entry 2: entity is '../../b'", id="leads out"),
        pytest.param([GOOD | {"entity": "/b"}], "entity is '/b'", id="absolute"),
        pytest.param([GOOD | {"path": "../a.npz"}], "path is '../a.npz'", id="path leads out"),
        pytest.param([GOOD | {"dataset": ".labels"}], "dataset is '.labels'", id="hidden"),
        pytest.param([GOOD | {"dataset": "a/b"}], "dataset is 'a/b'", id="nested data set"),
        pytest.param([GOOD | {"interval_s": "1m"}], "interval_s is '1m'", id="interval in words"),
        pytest.param([GOOD | {"interval_s": 10**400}], "interval_s is 1000", id="no float"),
        pytest.param([GOOD | {"interval_s": -(10**400)}], "interval_s is -1000", id="none below either"),
        pytest.param([GOOD | {"entity": f"a/{'é' * 101}"}], "entity is a name of 204 bytes", id="no file"),
        pytest.param([GOOD, GOOD], "web/a appears twice", id="twice"),
    ],
)
def test_what_is_wrong_with_a_manifest_is_said(tmp_path, document, said):
    text = document if isinstance(document, str) else json.dumps(document)
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(SourceError, match=re.escape(said)):
        read_manifest(tmp_path)


def test_all_that_is_wrong_with_a_manifest_is_said_at_once(tmp_path):
    entries = [7, GOOD | {"entity": "/b", "path": ""}, GOOD, GOOD, GOOD | {"entity": "c", "interval_s": "1m"}]
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(entries))
    with pytest.raises(SourceError) as caught:
        read_manifest(tmp_path)
    assert caught.value.message.splitlines() == [
        f"{path}: 5 mistakes:",
        f"{path}: entry 1 is no object",
        f"{path}: entry 2: entity is '/b'",
        f"{path}: entry 2: path is ''",
        f"{path}: web/a appears twice",
        f"{path}: entry 5: interval_s is '1m'",
    ]
    assert caught.value.hint.startswith("correct them; ")


def test_of_many_mistakes_in_a_manifest_a_few_are_told_and_the_others_counted(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps([7] * (MOST_ERRORS + 2)))
    with pytest.raises(SourceError) as caught:
        read_manifest(tmp_path)
    told = caught.value.message.splitlines()
    assert len(told) == MOST_ERRORS + 2
    assert told[-1] == "and 2 more"


def test_the_example_of_the_document_makes_a_folder(repository, tmp_path, monkeypatch):
    """Run as it stands there, with arrays of ours."""
    text = (repository / "docs" / "bench-data.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "DATA" / "web").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    arrays = {key: server(1)[key] for key in ("train", "test", "label")}
    exec(example, {**arrays, "train": arrays["train"][:, :2], "test": arrays["test"][:, :2]})
    (entry,) = read_manifest(tmp_path / "DATA")
    found, label = load(entry)
    assert (entry.name, found.columns, len(label)) == ("web/web-1", ("load", "iowait"), TEST)


def test_entities_are_chosen_by_data_set_and_by_pattern(folder):
    entries = read_manifest(folder)
    assert len(choose(entries)) == 3
    assert names_of(choose(entries, ("web",))) == ["web/web-1", "web/web-2"]
    assert names_of(choose(entries, (), "*-2")) == ["web/web-2"]
    assert names_of(choose(entries, (), "cloud/*")) == ["cloud/eu/requests"]


def test_an_unknown_data_set_is_answered_with_the_nearest(folder):
    with pytest.raises(ConfigError, match=r"there is no wep; did you mean web\?"):
        choose(read_manifest(folder), ("web", "wep"))


def test_a_pattern_that_fits_nothing_is_answered_with_an_example(folder):
    with pytest.raises(ConfigError, match="fits no entity") as raised:
        choose(read_manifest(folder), ("cloud",), "web-*")
    assert raised.value.hint == "one of them is eu/requests"
