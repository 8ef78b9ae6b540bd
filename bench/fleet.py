"""Ten thousand fetchers against one static server: how many requests a second, and when.

    python bench/fleet.py [--nodes 10000] [--interval 300] [--json]

First the schedule, simulated second by second with the fetcher's own `next_wait`: a quiet hour, then an
hour in which the server is down for twenty minutes and says Retry-After: 120. Then real looks by real
fetchers, eight at a time, at a server in a process of its own (tests/bundle_server.py: Python's
http.server, one thread a connection, so a slow one): every node's first look, with one node in a hundred in
the rollout and so downloading the archive, and every node's next one, which is answered with 304.
"""

from __future__ import annotations

import argparse
import heapq
import json
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import cast

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import agent_bundle  # noqa: E402 -- the bundles of the tests
from agent_fakes import FakeLog  # noqa: E402
from bundle_server import BundleServer  # noqa: E402
from node_anomaly_agent.bundle_depot import Depot  # noqa: E402
from node_anomaly_agent.fetch import FIRST_LOOK_S, Fetcher  # noqa: E402
from node_anomaly_agent.fetch_errors import FetchError  # noqa: E402
from node_anomaly_agent.fetch_http import Access, Client  # noqa: E402
from node_anomaly_agent.fetch_sources import Announcement, ChannelSource, Source  # noqa: E402
from node_anomaly_agent.ledger import Ledger  # noqa: E402
from node_anomaly_agent.log_setup import Log  # noqa: E402
from node_anomaly_core.bundle import verify_bundle  # noqa: E402
from node_anomaly_core.features import CATALOGUE  # noqa: E402

HOUR = 3600
TRAINED_AT = 1_700_000_000.0
ROLLOUT_PERCENT = 1.0
AT_ONCE = 8
DOWN = range(HOUR + 1200, HOUR + 2400)
RETRY_AFTER_S = 120.0


class Scripted:
    """A source that is down at set times."""

    name = "scripted"

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock

    def look(self) -> Announcement | None:
        """Nothing new, or 503."""
        if int(self._clock()) in DOWN:
            raise FetchError("server", "down", retry_after_s=RETRY_AFTER_S)
        return None

    def done(self) -> None:
        """Nothing was announced."""


def fetcher(source: Source, client: Client, root: Path, node: str, interval_s: float) -> Fetcher:
    """One node's."""
    return Fetcher(
        "bundle",
        source,
        client,
        Depot(root, verify_bundle),
        Ledger(None),
        node,
        interval_s=interval_s,
        log=cast("Log", FakeLog()),
        now=time.time,
    )


def simulate(nodes: int, interval_s: float) -> dict[str, float]:
    """Requests in each second of two hours."""
    now = 0.0
    client = Client(Access())
    source = Scripted(lambda: now)
    fleet = [fetcher(source, client, Path("none"), f"node-{number}", interval_s) for number in range(nodes)]
    due = [(number * FIRST_LOOK_S / nodes, number) for number in range(nodes)]
    heapq.heapify(due)
    seconds: Counter[int] = Counter()
    while due and due[0][0] < 2 * HOUR:
        now, number = heapq.heappop(due)
        seconds[int(now)] += 1
        fleet[number].look()
        heapq.heappush(due, (now + fleet[number].next_wait(), number))
    quiet = [seconds[second] for second in range(HOUR // 2, HOUR)]
    down = [seconds[second] for second in DOWN]
    after = [seconds[second] for second in range(DOWN.stop, 2 * HOUR)]
    quiet.sort()
    return {
        "quiet, requests/s (mean)": round(sum(quiet) / len(quiet), 1),
        "quiet, requests/s (99 % of seconds below)": quiet[int(len(quiet) * 0.99)],
        "all started within ten seconds, requests/s (largest)": max(seconds[second] for second in range(60)),
        "down, last five minutes, requests/s (mean)": round(sum(down[-300:]) / 300, 1),
        "back again, requests/s (largest)": max(after),
    }


def serve(pipe: Connection, path: Path) -> None:
    """A server with the bundle in its channel, until told to stop."""
    server = BundleServer().start()
    server.publish(path, TRAINED_AT, percent=ROLLOUT_PERCENT, salt="bench")
    pipe.send(server.url)
    pipe.recv()
    times = time.process_time()
    pipe.send((times, len(server.seen)))


def measure(nodes: int, interval_s: float) -> dict[str, float]:
    """Real looks of a whole fleet at a real server."""
    with tempfile.TemporaryDirectory() as home:
        path = agent_bundle.make_bundle(Path(home) / "made", trained_at=TRAINED_AT, features=CATALOGUE[:8])
        near, far = multiprocessing.Pipe()
        process = multiprocessing.get_context("fork").Process(target=serve, args=(far, path))
        process.start()
        url = near.recv()
        fleet = []
        for number in range(nodes):
            client = Client(Access())
            source = ChannelSource(client, url, "stable", ())
            root = Path(home) / f"node-{number}"
            fleet.append(fetcher(source, client, root, f"node-{number}", interval_s))
        results: list[Counter[str]] = []
        rates = []
        for _ in range(2):
            started = time.monotonic()
            with ThreadPoolExecutor(AT_ONCE) as pool:
                results.append(Counter(pool.map(lambda one: one.look(), fleet)))
            rates.append(nodes / (time.monotonic() - started))
        near.send("stop")
        server_cpu, requests = near.recv()
        process.join()
    return {
        "first looks/s": round(rates[0]),
        "  of which in the rollout": results[0]["fetched"],
        "  of which not": results[0]["not_in_rollout"],
        "next looks/s": round(rates[1]),
        "  of which 304": results[1]["not_modified"],
        "failed": results[0]["failed"] + results[1]["failed"],
        "server CPU per request, ms": round(server_cpu / requests * 1e3, 2),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--interval", type=float, default=300.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = simulate(options.nodes, options.interval) | measure(options.nodes, options.interval)
    if options.json:
        print(json.dumps(found, indent=1))
        return
    print(f"| {options.nodes} nodes, every {options.interval:g} s | |\n|---|---:|")
    for name, value in found.items():
        print(f"| {name} | {value} |")


if __name__ == "__main__":
    main()
