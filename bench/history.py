"""Reading history: both routes of the prometheus source beside plain prometheus-api-client.

    python bench/history.py [--nodes 20] [--days 2] [--metrics agent|exporter] [--full] [--json]

A real Prometheus, backfilled by promtool with 40 series per node at 15 s, read by each way in a process of
its own: seconds for a million samples and peak memory, over all days and over the first one, because memory
must not grow with the range. Ours end in the Parquet cache; plain prometheus-api-client ends in bare arrays,
the least that can be done with what it returns. --full is the size of a fleet: 50 nodes, 14 days, 161
million samples; it takes some 30 minutes and 3 GB of disk.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.features import CATALOGUE, Feature
from node_anomaly_trainer.config import PrometheusConfig
from node_anomaly_trainer.progress import ignore_report

START, STEP, SERIES, DAY_TICKS = 1_767_571_200, 15, 40, 5760
WAYS = ("plain", "api", "remote_read")
MODES = ("idle", "user", "system", "iowait", "irq", "softirq", "nice", "steal")
POOL = 64  # different days of values; more would only cost time to write


def program(name: str) -> str:
    """Where Prometheus or promtool is; the tests' rig knows, and only the parent process needs it."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
    import rig

    found = rig.find({"prometheus": rig.PROMETHEUS, "promtool": rig.PROMTOOL}[name])
    if found is None:
        raise SystemExit(f"{name} is missing: apt-get install --no-install-recommends prometheus")
    return str(found)


def families(metrics: str) -> list[tuple[str, str, list[str]]]:
    """Metric, OpenMetrics type and the labels of its series on a node; 40 series in all."""
    if metrics == "agent":
        return [("anomaly_feature_value", "gauge", [f'feature="{f.name}"' for f in CATALOGUE[:SERIES]])]
    found = [("node_cpu_seconds_total", "counter", [f'cpu="{c}",mode="{m}"' for c in (0, 1) for m in MODES])]
    names = {leaf.metric: f.kind for f in CATALOGUE if f.expression for leaf in f.expression.leaves()}
    for name, kind in names.items():
        if name.startswith("node_cpu") or name.endswith(":count"):
            continue
        device = 'device="sda"' if name.startswith("node_disk") else ""
        device = 'device="eth0"' if name.startswith("node_network") else device
        counter = kind == "rate" and name.endswith("_total")
        found.append((name, "counter" if counter else "gauge", [device]))
    return found[: 1 + SERIES - 16]


def wanted(metrics: str) -> tuple[Feature, ...]:
    """The features that these series can give."""
    if metrics == "agent":
        return CATALOGUE[:SERIES]
    have = {name for name, _, _ in families(metrics)}
    return tuple(
        f
        for f in CATALOGUE
        if f.expression and {leaf.metric.removesuffix(":count") for leaf in f.expression.leaves()} <= have
    )


def backfill(folder: Path, nodes: int, days: int, metrics: str) -> None:
    """Write `folder`/tsdb, one block a day."""
    rng = np.random.default_rng(7)
    steps = rng.exponential(size=(POOL, DAY_TICKS)).round(4)
    steps[: POOL // 4] = 0.0  # most error counters never move: zeros have their own encoding
    pools = {
        "gauge": [[repr(value) for value in row] for row in steps.tolist()],
        "counter": [[repr(value) for value in row] for row in steps.cumsum(axis=1).round(4).tolist()],
    }
    for day in range(days):
        path = folder / "day.txt"
        with path.open("w") as text:
            for number, (name, kind, labels) in enumerate(families(metrics)):
                text.write(f"# TYPE {name.removesuffix('_total') if kind == 'counter' else name} {kind}\n")
                for node in range(nodes):
                    clock = np.arange(DAY_TICKS) * STEP + START + day * 86400 + (node * 37 % 1500) / 100
                    times = [f"{moment:.2f}" for moment in clock.tolist()]
                    for place, label in enumerate(labels):
                        values = pools[kind][(number * 7 + node * 3 + place + day) % POOL]
                        inside = ",".join(
                            filter(None, (f'instance="node-{node:03d}:9100",job="node"', label))
                        )
                        head = f"{name}{{{inside}}} "
                        text.writelines(f"{head}{v} {t}\n" for v, t in zip(values, times, strict=True))
            text.write("# EOF\n")
        command = [program("promtool"), "tsdb", "create-blocks-from", "--max-block-duration=24h", "-q"]
        subprocess.run([*command, "openmetrics", str(path), str(folder / "tsdb")], check=True)
        path.unlink()


@contextlib.contextmanager
def server(folder: Path) -> Iterator[str]:
    """A Prometheus over `folder`/tsdb; its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "prometheus.yml").write_text("{}")
    process = subprocess.Popen(
        [
            program("prometheus"),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--storage.tsdb.retention.time=50y",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/-/ready"):
                break
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait()


def read_plain(url: str, days: int, metrics: str) -> int:
    """Every series by prometheus-api-client, a day per request; the number of samples."""
    from prometheus_api_client import PrometheusConnect

    client = PrometheusConnect(url=url)
    first = datetime.fromtimestamp(START, UTC)
    kept: list[NDArray[np.float64]] = []
    for name, _, labels in families(metrics):
        for label in labels if metrics == "agent" else [""]:
            config = dict([label.replace('"', "").split("=")]) if label else None
            found = client.get_metric_range_data(
                name, config, first, first + timedelta(days=days), timedelta(days=1)
            )
            kept.extend(np.array(series["values"], dtype=np.float64) for series in found)
    return sum(len(part) for part in kept)


def read_ours(url: str, days: int, metrics: str, route: str) -> int:
    """The features into a cache; how many samples crossed the wire."""
    from node_anomaly_trainer.sources.prometheus import fill_cache

    config = PrometheusConfig(url=url, range=days * 86400, end=START + days * 86400 - STEP, route=route)
    with tempfile.TemporaryDirectory() as cache:
        notes: list[str] = []
        fetched = fill_cache(config, wanted(metrics), STEP, Path(cache), ignore_report, notes.append)
        if fetched.route != route or any("no series" in line for line in notes):
            raise SystemExit(f"not what was to be measured: {notes}")
        return fetched.samples


def child(way: str, url: str, days: int, metrics: str) -> None:
    """Read once and print the figures."""
    begun = time.monotonic()
    samples = read_plain(url, days, metrics) if way == "plain" else read_ours(url, days, metrics, way)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(
        json.dumps(
            {
                "samples_read": samples,
                "wall_s": time.monotonic() - begun,
                "cpu_s": usage.ru_utime + usage.ru_stime,
                "peak_mib": usage.ru_maxrss / 1024,
            }
        )
    )


def measure(nodes: int, days: int, metrics: str, ways: Sequence[str]) -> dict[str, Any]:
    """Backfill, then read each of these ways, over the first day and over all."""
    figures: dict[str, Any] = {"nodes": nodes, "days": days, "metrics": metrics}
    figures["samples"] = nodes * SERIES * days * DAY_TICKS
    with tempfile.TemporaryDirectory() as name:
        begun = time.monotonic()
        backfill(Path(name), nodes, days, metrics)
        figures["backfill_s"] = time.monotonic() - begun
        with server(Path(name)) as url:
            for way in ways:
                for span in sorted({1, days}):
                    command = [sys.executable, __file__, "--child", way, "--url", url]
                    command += ["--days", str(span), "--metrics", metrics]
                    done = subprocess.run(command, check=True, capture_output=True, text=True)
                    figures[f"{way}, {span} d"] = json.loads(done.stdout)
    return figures


def show(figures: dict[str, Any], ways: Sequence[str]) -> None:
    """Print the tables of bench/results/history.md."""
    days, million = figures["days"], figures["samples"] / 1e6
    print(f"{figures['nodes']} nodes x {SERIES} series x {days} days: {million:.0f} M samples", end=" ")
    print(f"({figures['metrics']} metrics; backfilled in {figures['backfill_s']:.0f} s)\n")
    print("| way | s per M samples | client CPU s per M | M samples/s | peak RSS, MiB | over one day, MiB |")
    print("|---|---|---|---|---|---|")
    for way in ways:
        all_days, one = figures[f"{way}, {days} d"], figures[f"{way}, 1 d"]
        wall, cpu = all_days["wall_s"] / million, all_days["cpu_s"] / million
        print(f"| {way} | {wall:.2f} | {cpu:.2f} | {1 / wall:.2f}", end=" ")
        print(f"| {all_days['peak_mib']:.0f} | {one['peak_mib']:.0f} |")
    if "plain" not in ways or "remote_read" not in ways:
        return
    speed = figures[f"plain, {days} d"]["wall_s"] / figures[f"remote_read, {days} d"]["wall_s"]
    print(f"\nremote_read is {speed:.1f} times as fast as plain prometheus-api-client")


def main() -> None:
    """Parse the options and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--nodes", type=int, default=20)
    parser.add_argument("--days", type=int, default=2)
    parser.add_argument("--metrics", choices=("agent", "exporter"), default="agent")
    parser.add_argument("--full", action="store_true", help="50 nodes, 14 days")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.url, options.days, options.metrics)
        return
    nodes, days = (50, 14) if options.full else (options.nodes, options.days)
    figures = measure(nodes, days, options.metrics, options.ways)
    if options.json:
        print(json.dumps(figures, indent=2))
    else:
        show(figures, options.ways)


if __name__ == "__main__":
    main()
