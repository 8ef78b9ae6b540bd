"""A whole bench: what is done, what is not done again, what is said, and how the command exits."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from bench_data import SMALL, TEST, read_scores, series, server, small_config, write_folder
from node_anomaly_core.errors import ConfigError, SourceError
from node_anomaly_trainer.bench.data import read_manifest
from node_anomaly_trainer.bench.metrics import judge
from node_anomaly_trainer.bench.record import finished, read_record, write_record
from node_anomaly_trainer.bench.run import Options, run
from node_anomaly_trainer.bench.table import as_json, lines, print_outcome
from node_anomaly_trainer.progress import SilentProgress

CONFIG = small_config()


def bench(folder, out, **options):
    return run(Options(folder, out, **{"jobs": 1, **options}), CONFIG, SilentProgress())


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Two servers that teach each other and a series that is too short, benched once; nobody changes it."""
    root = tmp_path_factory.mktemp("bench")
    folder = write_folder(
        root / "data", {"web/one": server(1), "web/two": server(2), "cloud/eu/rate": series(3, 100)}
    )
    return folder, root / "out", bench(folder, root / "out", labels_from=folder, jobs=2)


@pytest.fixture
def copied(done, tmp_path):
    """The same folders, to be changed."""
    subprocess.run(["cp", "-a", done[0].parent, tmp_path / "copy"], check=True)
    return tmp_path / "copy" / "data", tmp_path / "copy" / "out"


def shown(outcome):
    stream = StringIO()
    print_outcome(outcome, Console(file=stream, width=80))
    return stream.getvalue()


def test_every_entity_is_done_with_figures_of_every_detector(done):
    _, out, outcome = done
    assert [entity.entry.name for entity in outcome.entities] == ["web/one", "web/two", "cloud/eu/rate"]
    assert outcome.failed == {}
    assert outcome.done_before == 0
    for entity in outcome.entities:
        assert set(entity.figures) == {"ours", "pca", "kmeans", "isolation_forest", "max|z|", "random"}
    assert outcome.entities[0].figures["ours"].caught == 2
    assert read_scores(out / "web" / "one.csv").shape == (TEST,)
    assert (out / "cloud" / "eu" / "rate.csv").is_file()
    assert (out / ".labels" / "web" / "two.npz").is_file()
    assert not (out / ".labels" / "cloud").exists()


def test_the_table_says_all_of_it_within_80_characters(done):
    text = shown(done[-1])
    assert "web, 2 entities; false alarms asked for: 1 per node-day, labels of others" in text
    assert "cloud, 1 entity; " in text
    row = re.search(r"^node-anomaly .*$", text, re.MULTILINE)
    assert row
    assert float(row[0].split()[3]) == 1.0
    assert re.search(r"^max\|z\| ", text, re.MULTILINE)
    assert "no scores for 1 of 3 entities, the trainer refuses them:" in text
    assert "cloud/eu/rate: its train part has 15 ticks, 50 are needed" in text
    assert "largest bundle 0." in text
    table = text[: text.index("no scores for")]
    assert max(map(len, table.splitlines())) <= 80
    assert "…" not in table


def test_json_has_the_same_with_every_entity(done):
    document = json.loads(as_json(done[-1]))
    web = document["datasets"]["web"]["ours"]
    assert web["mean"]["entities"] == 2
    assert web["mean"]["recall"] == 1.0
    assert [one["entity"] for one in web["entities"]] == ["one", "two"]
    assert web["entities"][0]["vus_pr"] == done[-1].entities[0].figures["ours"].vus_pr
    assert document["datasets"]["cloud"]["ours"]["mean_of_scored"]["entities"] == 0
    assert document["entities"]["cloud/eu/rate"]["refused"].startswith("its train part has 15 ticks")
    assert document["totals"]["largest_bundle_bytes"] > 1000
    assert document["labels_of_others"] is True


def test_where_some_are_refused_the_others_have_a_table_of_their_own(done):
    outcome = done[-1]
    text = shown(outcome)
    assert "only the" not in text
    mixed = tuple(replace(entity, entry=replace(entity.entry, dataset="web")) for entity in outcome.entities)
    assert "web, only the 2 with scores" in shown(replace(outcome, entities=mixed))
    assert [entity.has_train_part for entity in outcome.entities] == [True, True, False]


def test_a_random_score_is_drawn_as_one_stream_over_the_servers(done):
    """So does an outside evaluator; single series have a stream of their own."""
    _, _, outcome = done
    stream = np.random.default_rng(0)
    for entity in outcome.entities[:2]:
        label = server(1)["label"]
        assert entity.figures["random"] == judge(label, stream.random(TEST), 60, 0.9999)


@pytest.mark.alone
def test_what_is_done_is_not_done_again(copied):
    folder, out = copied
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    begun = time.monotonic()
    outcome = bench(folder, out, labels_from=folder)
    assert time.monotonic() - begun < 2.0
    assert outcome.done_before == 3
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert outcome.entities[0].figures["ours"].caught == 2


def rewrite(path, change):
    path.write_text(change(path.read_text()))


DAMAGES = {
    "a cut record": lambda out: rewrite(out / "web" / "one.json", lambda text: text[:-40]),
    "another figure": lambda out: rewrite(
        out / "web" / "one.json", lambda text: text.replace('"caught": 2', '"caught": 1')
    ),
    "a record of nothing": lambda out: (out / "web" / "one.json").write_text("[]"),
    "other scores": lambda out: rewrite(out / "web" / "one.csv", lambda text: text.replace("1", "2", 1)),
    "no scores": lambda out: (out / "web" / "one.csv").unlink(),
    "no scores of a baseline": lambda out: (out / ".baselines" / "pca" / "web" / "one.csv").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=list(DAMAGES))
def test_a_record_that_cannot_be_believed_is_none(copied, damage):
    _, out = copied
    record = read_record(out, "web", "one")
    assert record is not None
    assert finished(out, "web", "one", record.fingerprint) == record
    damage(out)
    assert finished(out, "web", "one", record.fingerprint) is None


def test_an_entity_that_changed_is_done_again_and_only_that(copied):
    folder, out = copied
    two = (out / "web" / "two.csv").stat().st_mtime_ns
    entry = read_manifest(folder)[0]
    np.savez(entry.path, **server(9))
    (out / ".baselines" / "old" / "web").mkdir(parents=True)
    (out / ".baselines" / "old" / "web" / "one.csv").write_text("score\n")
    (out / "web" / "gone.csv").write_text("score\n")
    outcome = bench(folder, out, datasets=("web",), entities="one")
    assert outcome.done_before == 0
    assert [entity.entry.entity for entity in outcome.entities] == ["one"]
    assert (out / "web" / "two.csv").stat().st_mtime_ns == two
    (said,) = outcome.notes
    assert said.startswith(f"{out} also holds scores that were not asked for now")
    assert said.endswith(": cloud/eu/rate, web/gone, web/two")
    assert not (out / ".baselines" / "old" / "web" / "one.csv").exists()


def test_a_run_that_is_stopped_leaves_no_scores_of_other_settings(copied):
    """Whoever judges the folder would take them for those of this run."""
    folder, out = copied

    class Stopped(SilentProgress):
        def __init__(self) -> None:
            self.notes: list[str] = []

        @contextmanager
        def phase(self, name):
            if name == "entities":
                raise KeyboardInterrupt
            with super().phase(name) as report:
                yield report

        def note(self, line):
            self.notes.append(line)

    progress = Stopped()
    with pytest.raises(KeyboardInterrupt):
        run(Options(folder, out, jobs=1, false_alarms_per_day=0.1), CONFIG, progress)
    assert progress.notes == [
        "removed scores of other settings, data or code: web/one, web/two, cloud/eu/rate"
    ]
    assert not [path for path in out.rglob("*.csv") if path.is_file()]


def test_an_entity_that_fails_is_named_and_the_others_go_on(copied):
    folder, out = copied
    record = read_record(out, "web", "one")
    (out / "web" / "one.csv").unlink()
    (out / "web" / "one.csv").mkdir()  # its scores cannot be written
    outcome = bench(folder, out, labels_from=folder)
    assert list(outcome.failed) == ["web/one"]
    assert "one.csv" in outcome.failed["web/one"]
    assert outcome.failed["web/one"].endswith(". Try: check the path, its permissions and free space")
    assert [entity.entry.name for entity in outcome.entities] == ["web/two", "cloud/eu/rate"]
    assert any(line.startswith("failed, left out of the tables: web/one: ") for line in lines(outcome))
    assert finished(out, "web", "one", record.fingerprint) is None


def test_a_lender_that_cannot_lend_is_said_and_the_others_teach(tmp_path):
    folder = write_folder(tmp_path / "data", {"web/one": server(1), "web/short": server(2, train=49)})
    outcome = bench(folder, tmp_path / "out", labels_from=folder, entities="one")
    assert outcome.notes == ("web/short lends no labels: its train part has 49 ticks, 50 are needed",)
    assert outcome.entities[0].record.refused == ""


@pytest.mark.parametrize("place", ["a file", "below a file"])
def test_scores_that_could_not_be_written_are_refused_before_anything_is_done(tmp_path, place):
    folder = write_folder(tmp_path / "data", {"web/one": server(1)})
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" if place == "a file" else tmp_path / "file" / "out"
    with pytest.raises(ConfigError, match=re.escape(f"--scores {out}: ")):
        bench(folder, out)


def test_scores_do_not_go_over_the_files_of_the_data(tmp_path):
    folder = write_folder(tmp_path / "data", {"web/one": server(1)})
    before = sorted(folder.rglob("*"))
    with pytest.raises(ConfigError, match="is the folder of the data"):
        bench(folder, tmp_path / "data" / ".." / "data")
    assert sorted(folder.rglob("*")) == before


def test_a_file_that_cannot_be_used_ends_it_before_anything_is_done(tmp_path):
    folder = write_folder(tmp_path / "data", {"web/one": server(1), "web/two": {"test": np.zeros((3, 1))}})
    with pytest.raises(SourceError, match="no train and no label and no columns"):
        bench(folder, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_a_record_survives_being_written_and_read(done, tmp_path):
    record = done[-1].entities[0].record
    write_record(tmp_path, "web", "one", record)
    assert read_record(tmp_path, "web", "one") == record


# -- the command


@pytest.fixture
def command(tmp_path):
    """Start the command in an empty directory."""
    (tmp_path / "small.yml").write_text(SMALL)
    folder = write_folder(tmp_path / "data", {"web/one": server(1), "web/two": server(2, test=2000)})
    (tmp_path / "tmp").mkdir()

    def start(*arguments):
        return subprocess.Popen(
            [sys.executable, "-m", "node_anomaly_trainer", "bench", *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "TMPDIR": str(tmp_path / "tmp")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )

    def finish(*arguments):
        process = start(*arguments)
        out, err = process.communicate(timeout=100)
        return process.returncode, out, err

    start.finish = finish
    start.folder = folder
    return start


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["data"], 2, "Missing option '--scores'"),
        (["nowhere", "--scores", "out"], 1, "Error: nowhere/manifest.json: No such file or directory"),
        (["data", "--scores", "out", "--datasets", "wbe"], 2, "there is no wbe; did you mean web?"),
        (["data", "--scores", "out", "--entities", "x*"], 2, "Try: one of them is one"),
        (["data", "--scores", "small.yml"], 2, "Error: --scores small.yml: "),
        (["data", "--scores", "out", "--false-alarms-per-day", "0"], 2, "false-alarms-per-day"),
        (["data", "--scores", "out", "--config", "gone.yml"], 2, "gone.yml: No such file"),
        (["data", "--scores", "out", "--labels-from", "gone"], 1, "gone/manifest.json: No such file"),
    ],
)
def test_what_cannot_be_done_is_said_at_once(command, arguments, code, said):
    returned, _, err = command.finish(*arguments)
    assert returned == code
    assert said in err
    assert "Traceback" not in err


@pytest.mark.timeout(400)
def test_after_an_interruption_the_same_command_goes_on(command, tmp_path):
    arguments = ("data", "--scores", "out", "--config", "small.yml", "--jobs", 1, "--output", "json")
    process = command(*arguments)
    first = tmp_path / "out" / "web" / "one.json"
    deadline = time.monotonic() + 180  # a minute was too short on a busy machine
    while not first.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all processes of the group
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; what is done is in out, the same command goes on" in err
    assert "Traceback" not in err
    assert not list((tmp_path / "tmp").iterdir())
    done_at = first.stat().st_mtime_ns
    assert not (tmp_path / "out" / "web" / "two.json").exists()
    code, out, err = command.finish(*arguments)
    assert code == 0, err
    assert first.stat().st_mtime_ns == done_at
    assert [one["entity"] for one in json.loads(out)["datasets"]["web"]["ours"]["entities"]] == ["one", "two"]


def anybody(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.timeout(200)
@pytest.mark.parametrize("send", [os.kill, os.killpg], ids=["to it", "to all of its group, twice to it"])
def test_sigterm_ends_it_as_an_interruption_does(command, tmp_path, send):
    """Kubernetes sends it to the process alone, systemd to the unit, timeout(1) to it and to its group."""
    process = command("data", "--scores", "out", "--config", "small.yml", "--jobs", 2)
    deadline = time.monotonic() + 100
    while not list((tmp_path / "tmp").glob("anomaly-bench-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.0)  # its processes are about to work
    send(process.pid, signal.SIGTERM)
    if send is os.killpg:
        os.kill(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "terminated; what is done is in out, the same command goes on" in err
    assert "Traceback" not in err
    assert not list((tmp_path / "tmp").iterdir())
    deadline = time.monotonic() + 5  # multiprocessing's own helper goes when it sees that it is alone
    while anybody(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not anybody(process.pid)


def test_a_failed_entity_makes_the_command_exit_with_1(command, tmp_path):
    (tmp_path / "out" / "web" / "one.csv").mkdir(parents=True)
    code, out, err = command.finish(
        "data", "--scores", "out", "--config", "small.yml", "--entities", "one", "--jobs", 1
    )
    assert code == 1, err
    assert "failed, left out of the tables: web/one: " in out
    assert "Traceback" not in err


@pytest.mark.timeout(200)
def test_a_refused_entity_makes_the_command_exit_with_3_every_time(command, tmp_path):
    write_folder(tmp_path / "short", {"web/fine": server(1), "web/none": server(2, train=49)})
    arguments = ("short", "--scores", "out", "--config", "small.yml", "--jobs", 1)
    said = "Error: 1 of 2 entities without scores, the trainer refuses web/none\nTry: "
    code, out, err = command.finish(*arguments)
    assert code == 3, err
    assert "web, 2 entities; " in out
    assert "web/none: its train part has 49 ticks, 50 are needed" in out
    assert said in err
    done_at = (tmp_path / "out" / "web" / "fine.csv").stat().st_mtime_ns
    code, out, err = command.finish(*arguments, "--output", "json")
    assert code == 3, err
    assert json.loads(out)["entities"]["web/none"]["refused"].startswith("its train part has 49 ticks")
    assert said in err
    assert (tmp_path / "out" / "web" / "fine.csv").stat().st_mtime_ns == done_at


def test_a_failed_entity_counts_for_more_than_a_refused_one(command, tmp_path):
    write_folder(tmp_path / "short", {"web/fine": server(1), "web/none": server(2, train=49)})
    (tmp_path / "out" / "web" / "fine.csv").mkdir(parents=True)
    code, _, err = command.finish("short", "--scores", "out", "--config", "small.yml", "--jobs", 1)
    assert code == 1, err
    assert "web/fine failed: " in err
    assert "without scores, the trainer refuses web/none" in err
