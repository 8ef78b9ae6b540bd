"""Everything the agreement is measured on: a private network, node_exporter, Prometheus, the agent, load.

Two choices make instants comparable without touching a number:

* The agent's ticks fall on node_exporter's scrapes. Prometheus chooses its moment within the interval, so the
  agent is started to fit; `Stage.shift_s` is what remains and is printed, not compensated.
* A query is evaluated half an interval after the scrape it is about. Any moment until the next scrape gives
  the same samples; the middle one keeps jitter at both edges of the window out.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import agent_bundle
import rig
from agreement.load import HERE_ADDRESS, HERE_DEVICE, PEER_DEVICE, set_up

AGENT, NODE = "agent", "node"
MATCHERS = f'job="{NODE}"'
LOAD = Path(__file__).with_name("load.py")
ATTEMPTS = 6
CLOSE_ENOUGH = 0.02
"""Of an interval: an agent that ticks this near to the scrapes may stay; after n attempts, n times it."""

Series = dict[float, float]
"""Value by unix time."""


@dataclass(frozen=True)
class Stage:
    """What runs, at which interval (s), and how far the agent's ticks are from the scrapes (s)."""

    prometheus: rig.Service
    agent: rig.Service
    interval_s: float
    shift_s: float


def private_network() -> list[str] | None:
    """The command that runs another one in a network namespace of its own; None if this user cannot."""
    if not shutil.which("unshare") or not shutil.which("ip"):
        return None
    command = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    probe = "ip link set lo up && ip link add load0 type veth peer name load1"
    done = subprocess.run([*command, "sh", "-c", probe], check=False, capture_output=True, timeout=10)
    return command if done.returncode == 0 else None


@contextlib.contextmanager
def stage(folder: Path, interval_s: float, root: Path | None = None) -> Iterator[Stage]:
    """Everything but the load, in phase; loopback must be up. `root` may hold another proc/ and sys/."""
    port = rig.free_port()
    interval = f"{interval_s:g}s"
    paths = [f"--path.procfs={root / 'proc'}", f"--path.sysfs={root / 'sys'}"] if root else []
    with (
        rig.node_exporter(folder, ["--collector.processes", *paths]) as exporter,
        rig.prometheus(folder, {NODE: [exporter.port], AGENT: [port]}, interval) as server,
    ):
        agent_bundle.publish(folder / "bundles")
        rig.wait_for_query(server, f'up{{job="{NODE}"}} == 1', 30.0 + interval_s)
        lead = 0.6
        for attempt in range(1, ATTEMPTS + 1):
            scrape = max(raw(server, f'up{{job="{NODE}"}}', 60.0, time.time())[0][1])
            late = (time.time() + lead - scrape) % interval_s
            time.sleep(interval_s - late)
            with _agent(folder, port, interval, attempt, paths) as agent:
                shift = _shift(agent, scrape, interval_s)
                if abs(shift) <= CLOSE_ENOUGH * attempt * interval_s or attempt == ATTEMPTS:
                    yield Stage(server, agent, interval_s, shift)
                    return
                lead += shift


@contextlib.contextmanager
def _agent(
    folder: Path, port: int, interval: str, attempt: int, paths: Sequence[str]
) -> Iterator[rig.Service]:
    command: list[str | Path] = [
        *(sys.executable, "-m", "node_anomaly_agent"),
        f"--interval={interval}",
        f"--web.listen-address=127.0.0.1:{port}",
        f"--state.directory={folder / f'state{attempt}'}",
        f"--bundle.directory={folder / 'bundles'}",
        *("--no-collector.logs.journald", "--no-collector.logs.containers", "--collector.logs.files=off"),
        *paths,
    ]
    with rig.service(AGENT, command, port, "/-/ready", folder) as running:
        yield running


def _shift(agent: rig.Service, scrape: float, interval_s: float) -> float:
    """How much later than the nearest scrape the agent's first tick was, -interval/2 to interval/2."""
    name = "anomaly_agent_last_evaluation_timestamp_seconds "
    _, text = rig.fetch(f"{agent.url}/metrics")
    (tick,) = (float(line.split()[1]) for line in text.splitlines() if line.startswith(name))
    return (tick - scrape + interval_s / 2) % interval_s - interval_s / 2


@contextlib.contextmanager
def load(folder: Path, seconds: float, *, network: bool) -> Iterator[None]:
    """Every kind of load for so long; `network` only in a private network namespace."""
    folder.mkdir(parents=True, exist_ok=True)
    kinds = ["cpu", "disk", "memory", "sockets"]
    with contextlib.ExitStack() as stack:
        running = {kind: stack.enter_context(_load(kind, seconds, folder)) for kind in kinds}
        if network:
            peer = stack.enter_context(_load("peer", seconds, folder, ["unshare", "--net"]))
            time.sleep(0.5)  # it is in its own namespace by then, and not before
            pair = ["type", "veth", "peer", "name", PEER_DEVICE]
            subprocess.run(["ip", "link", "add", HERE_DEVICE, *pair], check=True)
            subprocess.run(["ip", "link", "set", PEER_DEVICE, "netns", str(peer.pid)], check=True)
            set_up(HERE_DEVICE, HERE_ADDRESS)
            running |= {"peer": peer, "network": stack.enter_context(_load("network", seconds, folder))}
        yield
        died = [kind for kind, process in running.items() if process.poll() not in (None, 0)]
        if died:
            raise RuntimeError(f"load ended before its time: {', '.join(died)}; see {folder}")


@contextlib.contextmanager
def _load(
    kind: str, seconds: float, folder: Path, wrapper: Sequence[str] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / f"load-{kind}.log").open("wb") as log:
        process = subprocess.Popen(
            [*wrapper, sys.executable, str(LOAD), kind, str(seconds), str(folder)], stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def printed_queries(interval_s: float) -> dict[str, str]:
    """Feature -> PromQL, as `anomaly-agent features --output json` prints it for this interval."""
    command = [sys.executable, "-m", "node_anomaly_agent", "features", "--output=json"]
    settings = [f"--interval={interval_s:g}s", f"--promql.matchers={MATCHERS}"]
    done = subprocess.run([*command, *settings], check=True, capture_output=True, timeout=60)
    return {feature["name"]: feature["promql"] for feature in json.loads(done.stdout)}


def raw(
    server: rig.Service, selector: str, seconds: float, until: float
) -> list[tuple[dict[str, str], Series]]:
    """The samples themselves, with the timestamps of their scrapes."""
    answer = _get(server, "query", {"query": f"{selector}[{seconds:.0f}s]", "time": f"{until:.3f}"})
    return [(series["metric"], {float(t): float(v) for t, v in series["values"]}) for series in answer]


def at_steps(server: rig.Service, promql: str, start: float, end: float, step: float) -> Series:
    """query_range; no sample where the query has no answer. ValueError if it has several series."""
    span = {"query": promql, "start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:g}"}
    answer = _get(server, "query_range", span)
    if len(answer) > 1:
        raise ValueError(f"{len(answer)} series instead of one: {promql}")
    return {float(t): float(v) for t, v in answer[0]["values"]} if answer else {}


def _get(server: rig.Service, endpoint: str, parameters: dict[str, str]) -> list[dict[str, Any]]:
    status, body = rig.fetch(f"{server.url}/api/v1/{endpoint}?{urllib.parse.urlencode(parameters)}", 30.0)
    if status != 200:
        raise RuntimeError(f"Prometheus answers {status}: {body[:300]}")
    result: list[dict[str, Any]] = json.loads(body)["data"]["result"]
    return result
