"""The real parts that tests run against, and how each one starts and stops.

Prometheus, promtool, node_exporter and VictoriaMetrics are the programs of the distribution's packages,
looked up on PATH and then where `make test` unpacks them (scripts/real_parts.py). Everything listens on
loopback, on a free port, below a folder of the test. A part that is not there skips the test with its name
and the install line; under CI=true it fails instead, so that a green CI run has skipped nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PARTS = REPOSITORY / ".parts"
UNPACKED = PARTS / "usr" / "bin"


@dataclass(frozen=True)
class Part:
    """A program we test against: what it may be called, and which Debian package brings it.

    Where `version` is given the program must say that it is of it, or of a later one; it may also lie in a
    folder of its own below .parts/, beside another version.
    """

    name: str
    programs: tuple[str, ...]
    package: str
    version: int = 0
    folder: str = ""

    @property
    def installed_by(self) -> str:
        """What to do where it is missing."""
        if self.folder:
            return f"python scripts/real_parts.py, or unpack one into .parts/{self.folder}/usr/bin"
        return f"apt-get install --no-install-recommends {self.package}"


PROMETHEUS = Part("Prometheus", ("prometheus",), "prometheus")
PROMETHEUS_3 = Part("Prometheus 3", ("prometheus",), "prometheus", 3, "prometheus3")
PROMETHEUSES = (PROMETHEUS, PROMETHEUS_3)
"""The distribution's and the current major version, which count a range's left end differently."""
PROMTOOL = Part("promtool", ("promtool",), "prometheus")
NODE_EXPORTER = Part(
    "node_exporter", ("prometheus-node-exporter", "node_exporter"), "prometheus-node-exporter"
)
VICTORIA_METRICS = Part("VictoriaMetrics", ("victoria-metrics",), "victoria-metrics")
ALERTMANAGER = Part("Alertmanager", ("prometheus-alertmanager", "alertmanager"), "prometheus-alertmanager")
AMTOOL = Part("amtool", ("amtool",), "prometheus-alertmanager")
COMPOSE = Part("Docker Compose 2", ("docker-compose",), "docker-compose", 2, "compose")
PUSHGATEWAY = Part("Pushgateway", ("prometheus-pushgateway", "pushgateway"), "prometheus-pushgateway")


def find(part: Part) -> Path | None:
    """Where the part's program is, or None."""
    own = str(PARTS / part.folder / "usr" / "bin")
    for program in part.programs:
        places = [shutil.which(program), shutil.which(program, path=str(UNPACKED))]
        if part.folder:
            places.insert(0, shutil.which(program, path=own))
        for found in filter(None, places):
            if not part.version or major_version(found) >= part.version:
                return Path(found)
    return None


def major_version(program: str) -> int:
    """What a program of Prometheus says that it is, 0 if it does not tell."""
    done = subprocess.run([program, "--version"], check=False, capture_output=True, text=True, timeout=10)
    found = re.search(r"version (\d+)\.", done.stdout + done.stderr)
    return int(found[1]) if found else 0


def need(part: Part) -> Path:
    """The part's program; without it the test is skipped by name, and fails under CI=true."""
    found = find(part)
    if found is None:
        message = f"{part.name} is missing: {part.installed_by}"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return found


def free_port() -> int:
    """A TCP port that nothing listens on at 127.0.0.1 now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def fetch(url: str, timeout: float = 5.0, headers: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Status and body of a GET; an HTTP error status is an answer, a refused connection is an OSError."""
    request = urllib.request.Request(url, headers=dict(headers or {}))
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(errors="replace")


def wait_for(url: str, seconds: float = 20.0, status: int = 200) -> str:
    """Poll `url` until it answers with `status`; the body. Raises TimeoutError with the last answer."""
    deadline = time.monotonic() + seconds
    last = "no answer"
    while time.monotonic() < deadline:
        try:
            code, body = fetch(url, timeout=2.0)
        except OSError as error:
            last = str(error)
        else:
            if code == status:
                return body
            last = f"{code} {body[:200]}"
        time.sleep(0.05)
    message = f"{url} did not answer {status} within {seconds:.0f} s: {last}"
    raise TimeoutError(message)


@dataclass
class Service:
    """A started program: its address, its process and the file that holds what it printed."""

    name: str
    url: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def port(self) -> int:
        """The port of `url`."""
        port = urllib.parse.urlsplit(self.url).port
        assert port is not None
        return port

    def output(self) -> str:
        """What the program printed so far."""
        return self.log.read_text(errors="replace")

    def stop(self, seconds: float = 5.0) -> float:
        """Ask with SIGTERM, insist with SIGKILL after `seconds`; how long it took, in seconds."""
        start = time.monotonic()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return time.monotonic() - start


@contextlib.contextmanager
def service(
    name: str,
    command: Sequence[str | Path],
    port: int,
    ready: str,
    folder: Path,
    *,
    seconds: float = 20.0,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Service]:
    """Run `command` until the block ends; yields once `http://127.0.0.1:port` + `ready` answers 200."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{name}.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=sink,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(environment or {})},
        )
    running = Service(name, f"http://127.0.0.1:{port}", process, log)
    try:
        try:
            wait_for(running.url + ready, seconds)
        except TimeoutError as error:
            message = f"{name} did not start ({error}); it printed:\n{running.output()[-4000:]}"
            raise RuntimeError(message) from error
        yield running
    finally:
        running.stop()


@contextlib.contextmanager
def node_exporter(folder: Path, arguments: Sequence[str] = ()) -> Iterator[Service]:
    """A real node_exporter of this host on a free port."""
    program, port = need(NODE_EXPORTER), free_port()
    command: list[str | Path] = [program, f"--web.listen-address=127.0.0.1:{port}", *arguments]
    with service("node_exporter", command, port, "/", folder) as running:
        yield running


@contextlib.contextmanager
def prometheus(
    folder: Path,
    jobs: Mapping[str, Sequence[int]],
    interval: str = "1s",
    part: Part = PROMETHEUS,
    access: Mapping[str, object] | None = None,
    rules: Sequence[Path] = (),
    more: Mapping[str, object] | None = None,
) -> Iterator[Service]:
    """A real Prometheus that scrapes loopback ports: job name -> ports, every `interval`; with rule files.

    `access` is what else each scrape config has, such as its credentials, `more` what else the whole one has.
    """
    program, port = need(part), free_port()
    folder.mkdir(parents=True, exist_ok=True)
    scrapes = [
        {
            "job_name": job,
            "static_configs": [{"targets": [f"127.0.0.1:{target}" for target in targets]}],
            **(access or {}),
        }
        for job, targets in jobs.items()
    ]
    configuration = folder / "prometheus.yml"
    configuration.write_text(  # JSON is YAML
        json.dumps(
            {
                "global": {"scrape_interval": interval, "scrape_timeout": interval},
                "scrape_configs": scrapes,
                "rule_files": [str(path) for path in rules],
                **(more or {}),
            }
        )
    )
    command: list[str | Path] = [
        program,
        f"--config.file={configuration}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--web.enable-lifecycle",
        "--web.enable-remote-write-receiver",
        "--storage.tsdb.retention.time=5y",
    ]
    with service("prometheus", command, port, "/-/ready", folder) as running:
        yield running


def backfill(folder: Path, openmetrics: str) -> None:
    """Put samples with timestamps into the data of a Prometheus that is started on `folder` afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    history = folder / "history.txt"
    history.write_text(openmetrics)
    blocks = ["tsdb", "create-blocks-from", "--max-block-duration=48h", "-q", "openmetrics"]
    command: list[str | Path] = [need(PROMTOOL), *blocks, history, folder / "tsdb"]
    subprocess.run(command, check=True, timeout=60)


@contextlib.contextmanager
def victoria_metrics(folder: Path) -> Iterator[Service]:
    """A real single-node VictoriaMetrics on a free port."""
    program, port = need(VICTORIA_METRICS), free_port()
    command: list[str | Path] = [
        program,
        f"-httpListenAddr=127.0.0.1:{port}",
        f"-storageDataPath={folder / 'data'}",
        "-retentionPeriod=100y",
        "-search.latencyOffset=0s",
    ]
    with service("victoria-metrics", command, port, "/health", folder) as running:
        yield running


@contextlib.contextmanager
def pushgateway(folder: Path) -> Iterator[Service]:
    """A real Pushgateway on a free port."""
    program, port = need(PUSHGATEWAY), free_port()
    command: list[str | Path] = [program, f"--web.listen-address=127.0.0.1:{port}"]
    with service("pushgateway", command, port, "/-/ready", folder) as running:
        yield running


@contextlib.contextmanager
def alertmanager(folder: Path, configuration: Path) -> Iterator[Service]:
    """A real Alertmanager without peers on a free port.

    Debian's reads its templates below /usr/share. Where the package is only unpacked, they are put there in
    a mount namespace of its own, which nobody else sees.
    """
    program, port = need(ALERTMANAGER), free_port()
    command: list[str | Path] = [
        program,
        f"--config.file={configuration}",
        f"--storage.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    share = PARTS / "usr" / "share" / "prometheus"
    if program.is_relative_to(PARTS) and not Path("/usr/share/prometheus/alertmanager").exists():
        place = f"mount -t tmpfs none /usr/share && cp -r {shlex.quote(str(share))} /usr/share/"
        command = [
            "unshare",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            f'{place} && exec "$@"',
            "sh",
            *command,
        ]
    with service("alertmanager", command, port, "/-/ready", folder) as running:
        yield running


def query(server: Service, promql: str, at: float | None = None) -> list[dict[str, object]]:
    """An instant query's result vector, as the HTTP API gives it."""
    parameters = {"query": promql} | ({} if at is None else {"time": f"{at:.3f}"})
    status, body = fetch(f"{server.url}/api/v1/query?{urllib.parse.urlencode(parameters)}")
    answer = json.loads(body)
    assert status == 200, answer
    assert answer["status"] == "success", answer
    result: list[dict[str, object]] = answer["data"]["result"]
    return result


def wait_for_query(
    server: Service, promql: str, seconds: float = 20.0, at_least: int = 1
) -> list[dict[str, object]]:
    """Repeat an instant query until it yields `at_least` series (a fresh Prometheus scrapes after ~5 s)."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        result = query(server, promql)
        if len(result) >= at_least:
            return result
        time.sleep(0.2)
    message = f"{promql} has fewer than {at_least} series after {seconds:.0f} s"
    raise TimeoutError(message)


def check_web_config(file: Path) -> str:
    """What `promtool check web-config` has against a web config file; empty when it has nothing."""
    done = subprocess.run(
        [str(need(PROMTOOL)), "check", "web-config", str(file)], capture_output=True, check=False, timeout=30
    )
    return (done.stdout + done.stderr).decode().strip() if done.returncode else ""


def lint_metrics(exposition: str) -> str:
    """What `promtool check metrics` has against a text exposition; empty when it has nothing."""
    command = [str(need(PROMTOOL)), "check", "metrics"]
    done = subprocess.run(command, input=exposition.encode(), capture_output=True, check=False, timeout=30)
    complaints = (done.stdout + done.stderr).decode().strip()
    return complaints if done.returncode or complaints else ""
