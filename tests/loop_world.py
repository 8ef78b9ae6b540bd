"""A mail server on this host, its past, and what lies between its trouble and a message to somebody.

Real: node_exporter with its textfile collector, Prometheus with the shipped rules, Alertmanager with the
shipped example, Pushgateway, MLflow, anomaly-trainer and anomaly-agent. Invented: the numbers of the mail
server, which a thread writes into a textfile, and the past, which is put into Prometheus' data.
A `Pace` says how often all of them look; SHIPPED is what a user gets without a setting.
"""

from __future__ import annotations

import contextlib
import json
import math
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

import rig

OTHERS = 3
"""Mail servers with a past beside the one on this host."""
PAST_S, STEP_S = 86_400, 15
"""A day as a Prometheus has it: what the models are trained on, whatever the pace."""
AFTER_STEP = 0.7
"""How much of a deviation from the usual is left after STEP_S."""
QUEUE, WAIT = "mail_queue_count", "mail_wait_seconds"


@dataclass(frozen=True)
class Metric:
    """One number of a mail server: how it is when all is well, and when its spool stands still."""

    name: str
    feature: str
    unit: str
    usual: float
    spread: float
    failing: float
    floor: float


METRICS = (
    Metric("mail_queue", QUEUE, "count", 40.0, 6.0, 250.0, 5.0),
    Metric("mail_wait_seconds", WAIT, "seconds", 2.0, 0.3, 15.0, 0.5),
    Metric("mail_clients", "mail_clients_count", "count", 120.0, 10.0, 120.0, 5.0),
    Metric("mail_workers_busy_ratio", "mail_workers_busy_ratio", "ratio", 0.4, 0.05, 0.4, 0.05),
    Metric("mail_received_bytes", "mail_received_bytes", "bytes", 60_000.0, 5_000.0, 60_000.0, 1_000.0),
    Metric("mail_attachments", "mail_attachments_count", "count", 30.0, 4.0, 30.0, 2.0),
)


@dataclass(frozen=True)
class Pace:
    """How often everything looks, and what differs in rules and Alertmanager."""

    tick_s: int
    settings: dict[str, str] = field(default_factory=dict)
    """Of rules/settings.yml."""
    grouping: dict[str, str] = field(default_factory=dict)
    """Of every route of the Alertmanager example."""


SHIPPED = Pace(tick_s=15)
HURRIED = Pace(
    tick_s=1,
    settings={"evaluate": "1s", "hold": "3s", "hold_for": "2s", "keep": "5s"},
    grouping={"group_wait": "0s", "group_interval": "1s"},
)


class MailServer:
    """Numbers that wander around what is usual, or around what they are in trouble; a step every `step_s`.

    Looked at more often they are the same numbers, not livelier ones: windows of the models are in seconds.
    """

    def __init__(self, seed: int, step_s: float) -> None:
        self._chance = random.Random(seed)
        self._left = AFTER_STEP ** (step_s / STEP_S)
        self._new = math.sqrt(1.0 - self._left**2)
        self._away = dict.fromkeys(METRICS, 0.0)

    def step(self, *, failing: bool = False) -> dict[str, float]:
        """The next value of each metric by name."""
        values = {}
        for metric in METRICS:
            self._away[metric] = self._left * self._away[metric] + self._new * self._chance.gauss(0.0, 1.0)
            centre = metric.failing if failing else metric.usual
            values[metric.name] = max(centre + metric.spread * self._away[metric], 0.0)
        return values


class Textfile:
    """The mail server of this host: writes its numbers once a tick, whole, until the block ends."""

    def __init__(self, path: Path, interval_s: float) -> None:
        self._path, self._interval_s = path, interval_s
        self._server, self._failing, self._over = (
            MailServer(0, interval_s),
            threading.Event(),
            threading.Event(),
        )
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._write()

    def fail(self) -> None:
        """From the next tick on mails pile up."""
        self._failing.set()

    def recover(self) -> None:
        """From the next tick on all is as before."""
        self._failing.clear()

    @contextlib.contextmanager
    def running(self) -> Iterator[Textfile]:
        """Write until the block ends."""
        self._thread.start()
        try:
            yield self
        finally:
            self._over.set()
            self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(self._interval_s):
            self._write()

    def _write(self) -> None:
        values = self._server.step(failing=self._failing.is_set())
        text = "".join(f"# TYPE {name} gauge\n{name} {value}\n" for name, value in values.items())
        beside = self._path.with_suffix(".new")
        beside.write_text(text)
        beside.replace(self._path)


class Receiver:
    """A webhook: the alerts that Alertmanager sends, in order, with the receiver's name from the path."""

    def __init__(self) -> None:
        self._arrived: list[tuple[str, dict[str, Any]]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    @contextlib.contextmanager
    def running(self) -> Iterator[Receiver]:
        """Answer until the block ends."""
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def wait_for(self, alert: str, status: str, seconds: float) -> tuple[str, dict[str, Any]]:
        """The first message about `alert` in that status (firing or resolved), and who received it."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for receiver, one in list(self._arrived):
                if one["labels"]["alertname"] == alert and one["status"] == status:
                    return receiver, one
            time.sleep(0.05)
        seen = [(receiver, one["labels"]["alertname"], one["status"]) for receiver, one in self._arrived]
        message = f"no message that {alert} is {status} within {seconds:.0f} s; there were {seen}"
        raise TimeoutError(message)

    def alerts(self) -> set[str]:
        """Names of all that were told so far."""
        return {one["labels"]["alertname"] for _, one in list(self._arrived)}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        arrived = self._arrived

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                arrived.extend((self.path.strip("/"), one) for one in body["alerts"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def own_features(path: Path) -> Path:
    """The one description of the mail server's features, for trainer and agent."""
    features = [
        {
            "name": metric.feature,
            "unit": metric.unit,
            "help": f"{metric.name} of the mail server.",
            "kind": "gauge",
            "direction": "high",
            "floor": metric.floor,
            "promql": f"max by (instance) ({metric.name}{{$matchers}})",
            "source": {"exporter": "node_exporter", "metric": metric.name},
        }
        for metric in METRICS
    ]
    path.write_text(json.dumps({"features": features}))  # JSON is YAML
    return path


def history(node: str, end: int) -> str:
    """What node_exporter showed of this host (`node`) and others until unix second `end`, as OpenMetrics."""
    names = [node, *(f"mail-{number}:9100" for number in range(1, OTHERS + 1))]
    times = range(end - PAST_S, end, STEP_S)
    lines: dict[str, list[str]] = {metric.name: [] for metric in METRICS}
    for seed, name in enumerate(names):
        server = MailServer(seed + 1, STEP_S)
        labels = f'{{instance="{name}",job="node"}}'
        for at in times:
            for metric, value in server.step().items():
                lines[metric].append(f"{metric}{labels} {value:.6g} {at}")
    text = "".join(f"# TYPE {name} gauge\n" + "\n".join(series) + "\n" for name, series in lines.items())
    return text + "# EOF\n"


def rules(folder: Path, pace: Pace) -> list[Path]:
    """The shipped rules with the settings of `pace`, written as a user writes them with others."""
    changes = [word for name, value in pace.settings.items() for word in ("--set", f"{name}={value}")]
    script = rig.REPOSITORY / "scripts" / "rules.py"
    command = [sys.executable, str(script), "--output", str(folder), *changes]
    subprocess.run(command, check=True, timeout=30, capture_output=True)
    return [folder / "recording.yml", folder / "alerts.yml"]


def alerting(path: Path, receiver: str, pace: Pace) -> Path:
    """The shipped example of an Alertmanager's configuration, with the addresses of `receiver`."""
    example = (rig.REPOSITORY / "rules" / "alertmanager.example.yml").read_text()
    document = yaml.safe_load(example.replace("http://127.0.0.1:9095", receiver))
    for route in (document["route"], *document["route"]["routes"]):
        route.update(pace.grouping)
    path.write_text(yaml.safe_dump(document))
    return path
