"""Logs of containers: what wraps the lines is taken off, pieces are joined, pods come and go."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from log_world import EVERY_LOOK, Reader, read_all
from node_anomaly_agent.logs.containers import ContainerSource
from node_anomaly_agent.logs.cri import CriFormat
from node_anomaly_agent.logs.docker_json import DockerFormat
from node_anomaly_agent.logs.follow import Limits
from node_anomaly_agent.logs.pieces import Pieces, Shelf
from node_anomaly_agent.logs.source import MAX_LINE_BYTES, Budget

TIME = b"2026-11-25T10:15:00.123456789Z"
OUTPUTS = st.sampled_from([b"stdout", b"stderr"])
MESSAGES = st.binary(max_size=30).map(lambda data: data.replace(b"\n", b"n"))


def cri(message: bytes, output: bytes = b"stdout", tag: bytes = b"F") -> bytes:
    return b" ".join((TIME, output, tag, message)) + b"\n"


def docker(message: str, output: str = "stdout") -> bytes:
    record = {"log": message, "stream": output, "time": TIME.decode()}
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


def decode(make, raw: bytes) -> bytes:
    lines, data = make(Pieces(Shelf())).decode(raw, raw.count(b"\n"))
    assert lines == data.count(b"\n")
    return data


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        pytest.param(cri(b"hello"), b"hello\n", id="a line"),
        pytest.param(cri(b""), b"\n", id="an empty line"),
        pytest.param(TIME + b" stderr F\n", b"\n", id="an empty line without its space"),
        pytest.param(cri(b"hello", tag=b"F:more:tags"), b"hello\n", id="further tags"),
        pytest.param(cri(b" two  spaces "), b" two  spaces \n", id="spaces are the message's"),
        pytest.param(cri(b"\xff\x00"), b"\xff\x00\n", id="any bytes"),
        pytest.param(cri(b"12 stdout P x"), b"12 stdout P x\n", id="a message that looks like a piece"),
        pytest.param(b"not of this form\n", b"not of this form\n", id="another form"),
        pytest.param(cri(b"he", tag=b"P") + cri(b"llo"), b"hello\n", id="two pieces"),
        pytest.param(
            cri(b"a", tag=b"P") + cri(b"x", b"stderr") + cri(b"b"), b"x\nab\n", id="outputs do not mix"
        ),
        pytest.param(b"2026-11-25T10:15:00+01:00 stdout F hello\n", b"hello\n", id="a time zone"),
    ],
)
def test_a_cri_record_is_its_message(raw, message):
    assert decode(CriFormat, raw) == message


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        pytest.param(docker("hello\n"), b"hello\n", id="a line"),
        pytest.param(docker("\n"), b"\n", id="an empty line"),
        pytest.param(docker('say "hi" \u00fc\n'), 'say "hi" ü\n'.encode(), id="escapes"),
        pytest.param(
            docker("a\n") + docker('"b"\n') + docker("c\n"), b'a\n"b"\nc\n', id="with and without escapes"
        ),
        pytest.param(
            b'{"log":"x\\n","stream":"stderr","attrs":{"a":"b"},"time":"t"}\n', b"x\n", id="attributes"
        ),
        pytest.param(b'{"time":"t", "stream":"stdout", "log":"x\\n"}\n', b"x\n", id="another order"),
        pytest.param(docker("he") + docker("llo\n"), b"hello\n", id="two pieces"),
        pytest.param(docker("ends in \\n"), b"", id="an escaped backslash ends no line"),
        pytest.param(docker("a\nb\n"), b"a b\n", id="one record is one line"),
        pytest.param(b'{"log": 3}\n', b'{"log": 3}\n', id="another form"),
        pytest.param(b'{"log": "cut o\n', b'{"log": "cut o\n', id="damaged"),
        pytest.param(b"[" * 5000 + b"\n", b"[" * 5000 + b"\n", id="nested without end"),
        pytest.param(b'{"log":"\\ud800\\n","stream":"x"}\n', b"\xed\xa0\x80\n", id="half a surrogate pair"),
    ],
)
def test_a_docker_record_is_its_message(raw, message):
    assert decode(DockerFormat, raw) == message


@given(st.lists(st.tuples(OUTPUTS, st.lists(MESSAGES, min_size=1, max_size=4)), max_size=8), st.data())
def test_pieces_are_joined_wherever_reading_is_cut_and_counting_agrees(written, data):
    """Also for the two outputs of a container, and however many of its lines are read at a time."""
    records = [
        cri(piece, output, b"F" if piece is pieces[-1] and index == len(pieces) - 1 else b"P")
        for output, pieces in written
        for index, piece in enumerate(pieces)
    ]
    expected = b"".join(b"".join(pieces) + b"\n" for _, pieces in written)
    looking, counting = CriFormat(Pieces(Shelf())), CriFormat(Pieces(Shelf()))
    got, lines, counted = b"", 0, 0
    while records:
        taken = data.draw(st.integers(1, len(records)))
        raw = b"".join(records[:taken])
        del records[:taken]
        more, text = looking.decode(raw, taken)
        got, lines, counted = got + text, lines + more, counted + counting.count(raw, taken)
    assert got == expected
    assert lines == counted == len(written)


@given(
    st.lists(
        st.tuples(st.sampled_from(["stdout", "stderr"]), st.text(max_size=20), st.booleans()), max_size=10
    )
)
def test_docker_counts_as_many_lines_as_it_shows(records):
    raw = b"".join(docker(text.replace("\n", "") + "\n" * ends, output) for output, text, ends in records)
    lines = raw.count(b"\n")
    assert (
        DockerFormat(Pieces(Shelf())).count(raw, lines) == DockerFormat(Pieces(Shelf())).decode(raw, lines)[0]
    )


def test_a_line_in_endless_pieces_holds_no_more_than_is_looked_at():
    shelf = Shelf()
    pieces = Pieces(shelf)
    for _ in range(100):
        pieces.add(b"stdout", b"x" * 5000)
    assert shelf.held == MAX_LINE_BYTES
    assert pieces.finish(b"stdout", b"end") == b"x" * MAX_LINE_BYTES
    assert shelf.held == 0


def test_a_thousand_containers_with_unfinished_lines_share_one_bound():
    shelf = Shelf(limit=100_000)
    everyone = [Pieces(shelf) for _ in range(1000)]
    for pieces in everyone:
        pieces.add(b"stdout", b"x" * 5000)
    assert shelf.held == 100_000
    for pieces in everyone:
        pieces.reset()
    assert shelf.held == 0


class Node:
    """/var/log of a Kubernetes node."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def start(self, pod: str, namespace: str = "default") -> Path:
        directory = self.root / "pods" / f"{namespace}_{pod}_0000-{pod}" / "main"
        directory.mkdir(parents=True)
        path = directory / "0.log"
        path.touch()
        links = self.root / "containers"
        links.mkdir(exist_ok=True)
        (links / f"{pod}_{namespace}_main-{'0' * 8}.log").symlink_to(path)
        return path

    @staticmethod
    def write(path: Path, data: bytes) -> None:
        with path.open("ab") as file:
            file.write(data)


@pytest.fixture
def node(tmp_path) -> Node:
    return Node(tmp_path)


def make(node: Node, **options) -> ContainerSource:
    return ContainerSource(str(node.root), limits=options.pop("limits", EVERY_LOOK), **options)


def test_a_pod_that_starts_is_read_from_its_first_line_once_though_two_names_lead_to_it(node):
    source = make(node)
    read_all(source)
    node.write(node.start("web"), cri(b"started"))
    (batch,) = read_all(source)
    assert (batch.lines, batch.data) == (1, b"started\n")
    assert (source.status().success, source.status().streams) == (True, 1)


def test_where_only_the_links_are_there_they_are_followed(node):
    source = make(node)
    read_all(source)
    path = node.root / "elsewhere.log"
    path.write_bytes(docker("hello\n"))
    (node.root / "containers").mkdir()
    (node.root / "containers" / "web_default_main-1.log").symlink_to(path)
    (batch,) = read_all(source)
    assert batch.data == b"hello\n"


def test_pods_have_the_group_of_the_first_glob_that_names_them(node):
    source = make(node, groups=[("kube-system_*", "system")])
    read_all(source)
    node.write(node.start("dns", "kube-system"), cri(b"a"))
    node.write(node.start("web"), cri(b"b"))
    assert sorted((batch.group, batch.data) for batch in read_all(source)) == [
        ("", b"b\n"),
        ("system", b"a\n"),
    ]


def test_rotation_by_the_kubelet_in_the_middle_of_a_long_line_joins_nothing_and_loses_no_line(node):
    reader = Reader(lambda: make(node))
    path = node.start("web")
    reader.tick()
    node.write(path, cri(b"one") + cri(b"begun", tag=b"P"))
    reader.tick()
    path.rename(path.with_name("0.log.20261125-101500"))
    path.write_bytes(cri(b" and ended") + cri(b"two"))
    reader.tick()
    assert reader.lines == 3


def test_pieces_that_were_read_before_a_restart_make_no_line_more_or_less(node):
    reader = Reader(lambda: make(node))
    path = node.start("web")
    reader.tick()
    node.write(path, cri(b"a", tag=b"P"))
    reader.tick()
    reader.die_and_restart(reader.save())
    node.write(path, cri(b"b", tag=b"P") + cri(b"c") + cri(b"d"))
    reader.tick()
    assert reader.lines == 2
    assert reader.size == path.stat().st_size


def test_pods_that_come_and_go_leave_nothing_behind(node):
    now = [0.0]
    source = make(node, limits=Limits(survey_s=0.0, deleted_s=20.0), clock=lambda: now[0])

    def tick() -> int:
        now[0] += 15.0
        return sum(batch.lines for batch in source.read(Budget(now[0] + 1, 1 << 20)))

    tick()
    total = 0
    for number in range(30):
        path = node.start(f"job-{number}")
        node.write(path, cri(b"done"))
        total += tick()
        for link in (node.root / "containers").iterdir():
            link.unlink()
        path.unlink()
        path.parent.rmdir()
    for _ in range(4):
        tick()
    assert total == 30
    assert source.status().streams == 0
    assert source.state()["files"] == []


def test_more_containers_than_may_be_open_are_counted_right_and_evictions_are_counted(node):
    reader = Reader(lambda: make(node, limits=Limits(open_files=4, survey_s=0.0)))
    reader.tick()
    paths = [node.start(f"pod-{number}") for number in range(12)]
    for path in paths:
        node.write(path, cri(b"x"))
    for _ in range(8):
        reader.tick()
    assert reader.lines == 12
    assert reader.source.evictions >= 8
    assert reader.source.status().streams <= 4


def test_beyond_the_budget_pieces_are_counted_as_the_lines_they_are(node):
    source = make(node)
    path = node.start("web")
    read_all(source)
    node.write(path, (cri(b"y" * 200, tag=b"P") * 3 + cri(b"end")) * 2000)
    batches = read_all(source, size=0)
    assert sum(batch.lines for batch in batches) == 2000
    assert all(not batch.data for batch in batches)


def test_a_host_without_containers_is_missing(node):
    source = make(node)
    read_all(source)
    assert source.status().missing
    assert re.search("pods", source.status().error)
