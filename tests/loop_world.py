"""What lies between a fault on this host and a message to somebody, and the pace at which it all looks.

Everything is real: node_exporter, Prometheus with the shipped rules, Alertmanager with the shipped example,
Pushgateway, MLflow, anomaly-trainer and anomaly-agent. Invented is only the past (loop_host.py).
A `Pace` says how often all of them look; SHIPPED is what a user gets without a setting.
"""

from __future__ import annotations

import contextlib
import json
import math
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

import rig


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


@dataclass(frozen=True)
class Message:
    """About one alert: to whom, what Alertmanager said, and when it came (unix seconds)."""

    receiver: str
    alert: dict[str, Any]
    at: float

    @property
    def name(self) -> str:
        """Of the alert."""
        return str(self.alert["labels"]["alertname"])

    @property
    def began(self) -> float:
        """Unix seconds at which the alert began to fire."""
        return datetime.fromisoformat(self.alert["startsAt"]).timestamp()


class Receiver:
    """A webhook: the alerts that Alertmanager sends, in order, with the receiver's name from the path."""

    def __init__(self) -> None:
        self._arrived: list[Message] = []
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

    def wait_for(self, alert: str, status: str, seconds: float, since: float = 0.0) -> Message:
        """The first message about `alert` in that status (firing or resolved) that came after `since`."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for one in list(self._arrived):
                if one.name == alert and one.alert["status"] == status and one.at >= since:
                    return one
            time.sleep(0.05)
        seen = [(one.receiver, one.name, one.alert["status"]) for one in self._arrived]
        message = f"no message that {alert} is {status} within {seconds:.0f} s; there were {seen}"
        raise TimeoutError(message)

    def alerts(self, since: float = 0.0, until: float = math.inf) -> set[str]:
        """Names of all that were told in that time, unix seconds."""
        return {one.name for one in list(self._arrived) if since <= one.at <= until}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        arrived = self._arrived

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                arrived.extend(Message(self.path.strip("/"), one, time.time()) for one in body["alerts"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        return Handler


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
