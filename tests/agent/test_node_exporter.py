"""The host read from a local node_exporter instead of /proc: the same readings; a failure is a status."""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import rig
from node_anomaly_agent.assembly import build_sampler, collector_switches, uses_exporter
from node_anomaly_agent.collectors import Paths, build_collectors, http_get
from node_anomaly_agent.collectors.exporter import ExporterCollector
from node_anomaly_agent.collectors.http_get import HttpGet
from node_anomaly_agent.collectors.node_exporter import CpuFold, node_exporter_wants
from node_anomaly_agent.config import AgentConfig, load_config
from node_anomaly_agent.own_features import LONGEST_WAIT_S
from node_anomaly_agent.sampler import Sampler
from node_anomaly_core.errors import ConfigError, SourceError
from node_anomaly_core.expressions import Reading
from node_anomaly_core.features import CATALOGUE, FEATURES_BY_NAME

CPU = "node_cpu_seconds_total"


def config(**settings: object) -> AgentConfig:
    overrides = {name.replace("__", ".").replace("_", "-"): value for name, value in settings.items()}
    return load_config(None, overrides, collector_switches())


def read(text: str) -> Reading:
    """What the whole catalogue takes of an exposition."""
    return ExporterCollector("x", text.encode, node_exporter_wants(CATALOGUE), CpuFold()).read()


@contextlib.contextmanager
def answering(handle: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server whose every connection is left to `handle`; the URL of its metrics."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection, contextlib.suppress(OSError):
                        connection.recv(4096)
                        handle(connection)

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/metrics"


def saying(answer: bytes) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(answer)


class TestReduction:
    def test_cpus_are_summed_to_modes_and_counted(self) -> None:
        """Guest time is part of user time already, and is another metric."""
        reading = read(
            'node_cpu_seconds_total{cpu="0",mode="idle"} 10\nnode_cpu_seconds_total{cpu="1",mode="idle"} 20\n'
            'node_cpu_seconds_total{cpu="0",mode="user"} 1\n'
            'node_cpu_guest_seconds_total{cpu="0",mode="user"} 5\n'
        )
        assert reading == {(CPU, "idle"): 30.0, (CPU, "user"): 1.0, (f"{CPU}:count", ""): 2.0}

    def test_a_cpu_that_comes_or_goes_or_goes_back_changes_no_rate(self) -> None:
        """PromQL takes the rate of each CPU before it sums them."""
        fold = CpuFold()

        def total(**cpus: float) -> float:
            reading: Reading = {(CPU, f"user\0{cpu}"): value for cpu, value in cpus.items()}
            fold(reading)
            return reading[CPU, "user"]

        assert total(a=100.0, b=1000.0) == 1100.0
        assert total(a=101.0, b=1001.0) == 1102.0
        assert total(a=102.0) == 1103.0
        assert total(a=103.0, b=5000.0) == 1104.0
        assert total(a=104.0, b=5001.0) == 1106.0
        assert total(a=90.0, b=5002.0) == 1107.0
        assert total(a=91.0, b=5003.0) == 1109.0
        reading: Reading = {("node_load1", ""): 1.0}
        fold(reading)
        assert reading == {("node_load1", ""): 1.0}

    def test_a_restart_changes_no_rate_of_cpus_that_came_and_went(self) -> None:
        """The counters that are saved with it are the sums."""
        collector = ExporterCollector("x", lambda: b"", node_exporter_wants(CATALOGUE), CpuFold())
        fold = CpuFold()

        def total(of: CpuFold, **cpus: float) -> float:
            reading: Reading = {(CPU, f"user\0{cpu}"): value for cpu, value in cpus.items()}
            of(reading)
            return reading[CPU, "user"]

        total(fold, a=100.0, b=1000.0)
        assert total(fold, a=101.0) == 1101.0
        other = CpuFold()
        assert other.restore(json.loads(json.dumps(fold.state())))
        assert total(other, a=102.5, b=9000.0) == 1102.5
        assert collector.restore(fold.state())
        assert collector.state() == fold.state()
        assert not other.restore({"last": {"a": float("inf")}, "totals": {}})

    def test_devices_and_mounts_are_chosen_as_the_catalogue_says(self) -> None:
        """By labels that are kept and by those that are not."""
        reading = read(
            'node_filesystem_avail_bytes{device="/dev/vda",fstype="ext4",mountpoint="/"} 1\n'
            'node_filesystem_avail_bytes{device="x",fstype="nfs4",mountpoint="/data"} 2\n'
            'node_filesystem_avail_bytes{device="tmpfs",fstype="tmpfs",mountpoint="/run"} 3\n'
            'node_disk_read_bytes_total{device="sda"} 4\nnode_disk_read_bytes_total{device="sda1"} 5\n'
            'node_network_receive_bytes_total{device="veth1"} 6\n'
            'node_thermal_zone_temp{type="x86_pkg_temp",zone="2"} 7\n'
            'node_hwmon_temp_celsius{chip="a",sensor="temp1"} 40\n'
            'node_hwmon_temp_celsius{chip="a",sensor="temp2"} 50\n'
            "node_load5 8\n"
        )
        assert reading == {
            ("node_filesystem_avail_bytes", "/"): 1.0,
            ("node_disk_read_bytes_total", "sda"): 4.0,
            ("node_thermal_zone_temp", "2"): 7.0,
            ("node_hwmon_temp_celsius", "a/temp1"): 40.0,
            ("node_hwmon_temp_celsius", "a/temp2"): 50.0,
        }

    def test_only_what_the_features_need_is_wanted(self) -> None:
        """The load for each CPU needs their number, which is a count of one of their modes."""
        assert set(node_exporter_wants([FEATURES_BY_NAME["load1_per_cpu_ratio"]])) == {"node_load1", CPU}


class TestFailures:
    @pytest.mark.parametrize(
        ("answer", "message"),
        [
            (b"HTTP/1.1 404 Not Found\r\n\r\n", "404 Not Found"),
            (b"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n", "302 Found"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nnode_load1 1\n", "broke off 86 bytes"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nnode", "cannot be read"),
            (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\nx", "in gzip, which was not asked for"),
            (b"HTTP/1.1 200 OK\r\n\r\nnode_load1 1", "ends within a line"),
            (b"HTTP/1.1 200 OK\r\n\r\n<html></html>\n", "no sample of any"),
            (b"HTTP/1.1 200 OK\r\n\r\nnode_load1 one\n", "not a sample"),
            (b"SSH-2.0-OpenSSH\r\n", "cannot be read"),
            (b"", "cannot be read"),
        ],
    )
    def test_an_answer_that_is_none_is_a_status_and_the_features_are_missing(
        self, answer: bytes, message: str
    ) -> None:
        """The sampler goes on; nothing is 0."""
        with answering(saying(answer)) as url:
            sampler = build_sampler(config(source="node_exporter", node_exporter__url=url))
            sample = sampler.sample(time.time())
        (status,) = sample.collectors.values()
        assert list(sample.collectors) == ["node_exporter"]
        assert not status.success
        assert not status.missing
        assert message in status.error
        assert sum(value == value for value in sample.values) == 0  # noqa: PLR0124  # NaN everywhere

    def test_nobody_there_says_where_and_what_to_do(self) -> None:
        """A refused connection."""
        with pytest.raises(SourceError, match=r"127\.0\.0\.1") as caught:
            HttpGet(f"http://127.0.0.1:{rig.free_port()}/metrics", 1.0)()
        assert "running" in caught.value.hint

    @pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\n\r\nnode_load1 1\n"])
    @pytest.mark.alone
    def test_a_server_that_says_nothing_or_dribbles_is_left_at_the_deadline(self, head: bytes) -> None:
        """A byte now and then does not prolong it."""

        def dribble(connection: socket.socket) -> None:
            connection.sendall(head)
            for _ in range(40):
                time.sleep(0.05)
                connection.sendall(b"#" if head else b"H")

        with answering(dribble) as url:
            start = time.monotonic()
            with pytest.raises(SourceError, match=r"did not answer within 0\.3 s"):
                HttpGet(url, 0.3)()
            assert time.monotonic() - start < 1.0

    def test_an_endless_answer_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Memory is bounded whatever is sent."""
        monkeypatch.setattr(http_get, "MAX_BYTES", 1 << 20)
        with (
            answering(saying(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (4 << 20))) as url,
            pytest.raises(SourceError, match="more than 1 MiB"),
        ):
            HttpGet(url, 5.0)()

    def test_a_request_is_as_plain_as_the_text_format_allows(self) -> None:
        """The path and query are those of the URL."""
        seen: list[bytes] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                seen.append(
                    f"{self.path} {self.headers['Accept']} {self.headers['Accept-Encoding']}".encode()
                )
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"a 1\n")

            def log_message(self, *_: object) -> None:
                pass

        with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.handle_request, daemon=True).start()
            url = f"http://localhost:{server.server_port}/m?collect[]=cpu"
            assert HttpGet(url, 5.0)() == b"a 1\n"
        assert seen == [b"/m?collect[]=cpu text/plain;version=0.0.4 identity"]


def test_an_agent_without_exporters_does_not_carry_their_code() -> None:
    """Imports cost memory on every host: an HTTP client and a parser are for those who need them."""
    code = (
        "import sys; from node_anomaly_agent.cli import main; main(['check-config']);"
        "from node_anomaly_agent.assembly import *; from node_anomaly_agent.config import load_config;"
        "build_sampler(load_config(None, {}, collector_switches()));"
        "print([m for m in sys.modules if 'own_features' in m or 'prom_text' in m or m == 'http.client'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


class TestSettings:
    def test_the_source_is_chosen_by_flag_and_file(self, tmp_path: Path) -> None:
        """The exporter's section may be spelt with an underscore."""
        file = tmp_path / "agent.yml"
        file.write_text("source: node_exporter\nnode_exporter: {url: 'http://10.0.0.1:9100/metrics'}\n")
        found = load_config(file, {}, collector_switches())
        assert (found.source, found.node_exporter_url) == ("node_exporter", "http://10.0.0.1:9100/metrics")
        assert uses_exporter(found)
        assert not uses_exporter(config())

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"source": "node-exporter"}, "source: must be one of proc, node_exporter"),
            ({"node_exporter__url": "127.0.0.1:9100"}, r"node-exporter\.url: expected http://HOST"),
            ({"node_exporter__url": 5}, r"node-exporter\.url: expected http://HOST"),
            ({"source": "node_exporter", "collector__thermal": False}, r"collector\.thermal: has no effect"),
        ],
    )
    def test_what_cannot_work_is_refused(self, settings: dict[str, object], message: str) -> None:
        """A collector that is switched off where nothing uses it was meant to do something."""
        with pytest.raises(ConfigError, match=message):
            config(**settings)

    def test_a_tick_is_never_late_for_an_exporter(self) -> None:
        """The timeout is a third of the interval at most."""
        for interval, longest in (("1s", 1 / 3), ("15s", LONGEST_WAIT_S), ("60s", LONGEST_WAIT_S)):
            sampler = build_sampler(config(source="node_exporter", interval=interval))
            (collector,) = sampler._collectors
            assert isinstance(collector, ExporterCollector)
            assert isinstance(collector._fetch, HttpGet)
            assert collector._fetch._timeout_s == pytest.approx(longest)


LEVELS = {
    "load1_per_cpu_ratio": 0.5,
    "memory_available_ratio": 0.05,
    "memory_slab_ratio": 0.05,
    "filesystem_fullest_ratio": 0.01,
    "filesystem_inodes_fullest_ratio": 0.01,
    "filesystem_readonly_count": 0.0,
    "file_descriptors_used_ratio": 0.01,
    "conntrack_used_ratio": 0.01,
    "swap_used_ratio": 0.05,
}


def test_a_real_node_exporter_says_what_proc_says(tmp_path: Path) -> None:
    """Every series that both ends have is keyed alike; levels agree, and counters that hardly move."""
    with rig.node_exporter(tmp_path, ("--collector.processes",)) as exporter:
        url = f"{exporter.url}/metrics"
        theirs = ExporterCollector("x", HttpGet(url, 5.0), node_exporter_wants(CATALOGUE), CpuFold())
        # Its own first scrape starts what it reads only once.
        theirs.read()
        from_exporter, from_proc = theirs.read(), {}
        for collector in build_collectors(Paths()):
            with contextlib.suppress(Exception):
                from_proc |= collector.read()
            collector.close()
        both_metrics = {metric for metric, _ in from_exporter} & {metric for metric, _ in from_proc}
        assert {
            CPU,
            f"{CPU}:count",
            "node_load1",
            "node_memory_MemTotal_bytes",
            "node_intr_total",
        } <= both_metrics

        def keys(reading: Reading) -> set[tuple[str, str]]:
            return {key for key in reading if key[0] in both_metrics}

        assert keys(from_exporter) == keys(from_proc)
        for key in ("node_memory_MemTotal_bytes", ""), (f"{CPU}:count", ""), ("node_filefd_maximum", ""):
            assert from_exporter[key] == from_proc[key]
        for mode in ("user", "system", "idle"):
            assert from_exporter[CPU, mode] == pytest.approx(from_proc[CPU, mode], rel=0.01, abs=2.0)

        with contextlib.ExitStack() as stack:
            rows = []
            for sampler in (
                build_sampler(config(source="node_exporter", node_exporter__url=url)),
                Sampler(build_collectors(Paths()), CATALOGUE, 60.0),
            ):
                stack.callback(sampler.close)
                sampler.sample(0.0)
                rows.append(
                    dict(zip((f.name for f in CATALOGUE), sampler.sample(15.0).values.tolist(), strict=True))
                )
        for name, far in LEVELS.items():
            assert rows[0][name] == pytest.approx(rows[1][name], abs=far, nan_ok=True), name
