"""What the agent costs on a node, beside node_exporter in the same run.

    python bench/footprint.py [--ticks 2000] [--scrapes 200] [--json]

Builds the wheel and installs it without extras from requirements/agent.txt into .run/footprint, so that what
is measured is what a node gets. Memory is VmRSS after all ticks and scrapes; CPU is user + system time of
the whole process; scrapes ask as Prometheus does (keep-alive, gzip, OpenMetrics).
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import rig  # noqa: E402 -- the rig of the tests starts node_exporter

HOME = ROOT / ".run" / "footprint"
BIN = HOME / "bin"
COLD_STARTS = 7
SPACED_TICKS = 30
HEADERS = {
    "Accept": "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
    "Accept-Encoding": "gzip",
}
NOT_THE_AGENT = ("pip", "setuptools", "_distutils_hack", "pkg_resources", "distutils-precedence.pth")


@dataclass(frozen=True)
class Process:
    """Memory and CPU of one program; None where it does not apply."""

    rss_mib: float
    peak_rss_mib: float
    scrape_cpu_ms: float
    scrape_wall_ms: float
    scrape_bytes: int
    tick_cpu_ms: float | None = None
    median_tick_cpu_ms: float | None = None
    spaced_tick_cpu_ms: float | None = None
    median_spaced_tick_cpu_ms: float | None = None
    sample_ms: float | None = None
    score_ms: float | None = None


@dataclass(frozen=True)
class Footprint:
    """The whole result."""

    machine: str
    python: str
    ticks: int
    scrapes: int
    agent: Process
    node_exporter: Process | None
    cold_start_healthy_s: float
    cold_start_evaluated_s: float
    stop_s: float
    installed_mib: float
    largest_mib: dict[str, float]


def install() -> None:
    """The wheel and its locked requirements, in an environment that is kept until the requirements change."""
    locked = ROOT / "requirements" / "agent.txt"
    stamp = HOME / "installed.txt"
    pip = [str(BIN / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    if not stamp.exists() or stamp.read_bytes() != locked.read_bytes():
        shutil.rmtree(HOME, ignore_errors=True)
        venv.create(HOME, with_pip=True)
        subprocess.run([*pip, "--require-hashes", "--only-binary=:all:", "-r", str(locked)], check=True)
        stamp.write_bytes(locked.read_bytes())
    with tempfile.TemporaryDirectory() as dist:
        build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", dist, str(ROOT)]
        subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
        (wheel,) = Path(dist).glob("*.whl")
        subprocess.run([*pip, "--no-deps", "--force-reinstall", str(wheel)], check=True)


def installed_sizes() -> dict[str, float]:
    """MiB per entry of site-packages, pip and setuptools left out."""
    (site,) = HOME.glob("lib/python*/site-packages")
    sizes = {}
    for entry in site.iterdir():
        if entry.name.split("-")[0] not in NOT_THE_AGENT:
            files = [entry] if entry.is_file() else [path for path in entry.rglob("*") if path.is_file()]
            sizes[entry.name] = sum(path.stat().st_size for path in files) / 2**20
    return sizes


def memory_mib(pid: int) -> tuple[float, float]:
    """VmRSS and VmHWM (the highest it ever was)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    values = dict(line.split(":", 1) for line in lines)
    return int(values["VmRSS"].split()[0]) / 1024, int(values["VmHWM"].split()[0]) / 1024


def cpu_s(pid: int) -> float:
    """User + system time of the process with all its threads, in seconds (resolution 10 ms)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def scrape(pid: int, port: int, count: int) -> Process:
    """Scrape `count` times as Prometheus does and measure the program meanwhile."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    walls, size = [], 0
    before = cpu_s(pid)
    for _ in range(count):
        started = time.perf_counter()
        connection.request("GET", "/metrics", headers=HEADERS)
        answer = connection.getresponse()
        size = len(answer.read())
        walls.append(time.perf_counter() - started)
        if answer.status != http.HTTPStatus.OK:
            message = f"a scrape answered {answer.status}"
            raise RuntimeError(message)
    cpu = cpu_s(pid) - before
    connection.close()
    rss, peak = memory_mib(pid)
    return Process(rss, peak, 1e3 * cpu / count, 1e3 * statistics.median(walls), size)


def measure_agent(ticks: int, scrapes: int, folder: Path) -> Process:
    """All ticks, then all scrapes, then memory."""
    port = rig.free_port()
    program = [str(BIN / "python"), str(ROOT / "bench" / "fast_agent.py")]
    arguments = [str(ticks), str(SPACED_TICKS), str(port), str(folder)]
    with subprocess.Popen([*program, *arguments], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None  # noqa: S101 -- PIPE was asked for
            ticked = json.loads(process.stdout.readline())
            measured = scrape(process.pid, port, scrapes)
            phases = {f"{phase}_ms": mean_duration_ms(port, phase) for phase in ("sample", "score")}
        finally:
            process.terminate()
    return Process(**{**asdict(measured), **ticked, **phases})


def mean_duration_ms(port: int, phase: str) -> float:
    """Mean wall time of one phase of an evaluation, from the agent's own histogram."""
    _, text = rig.fetch(f"http://127.0.0.1:{port}/metrics")
    name = "anomaly_agent_evaluation_duration_seconds"
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith(name))
    return (
        1e3
        * float(lines[f'{name}_sum{{phase="{phase}"}}'])
        / float(lines[f'{name}_count{{phase="{phase}"}}'])
    )


def measure_node_exporter(scrapes: int, folder: Path) -> Process | None:
    """The same scrapes, of node_exporter with its defaults; None where there is none."""
    if rig.find(rig.NODE_EXPORTER) is None:
        return None
    with rig.node_exporter(folder) as running:
        return scrape(running.process.pid, running.port, scrapes)


@contextmanager
def fresh_agent(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The agent as it ships, without any state."""
    port = rig.free_port()
    directories = [f"--state.directory={folder / 'state'}", f"--bundle.directory={folder / 'bundles'}"]
    command = [str(BIN / "anomaly-agent"), f"--web.listen-address=127.0.0.1:{port}", *directories]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            yield process, f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def seconds_until(url: str, started: float, patience: float = 30.0) -> float:
    """From `started` until the URL answers 200."""
    while time.perf_counter() - started < patience:
        try:
            if rig.fetch(url, timeout=1)[0] == http.HTTPStatus.OK:
                return time.perf_counter() - started
        except OSError:
            pass
        time.sleep(0.005)
    message = f"{url} did not answer within {patience:.0f} s"
    raise TimeoutError(message)


def cold_start(folder: Path) -> tuple[float, float, float]:
    """Seconds from the start of the process to /-/healthy and to the first evaluation, and of a stop."""
    started = time.perf_counter()
    with fresh_agent(folder) as (process, url):
        healthy = seconds_until(f"{url}/-/healthy", started)
        evaluated = seconds_until(f"{url}/-/ready", started)
        time.sleep(0.5)
        asked = time.perf_counter()
        process.terminate()
        process.wait(10)
        return healthy, evaluated, time.perf_counter() - asked


def measure(ticks: int, scrapes: int) -> Footprint:
    """Everything, one after the other."""
    install()
    sizes = installed_sizes()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        exporter = measure_node_exporter(scrapes, home / "node_exporter")
        agent = measure_agent(ticks, scrapes, home / "agent")
        starts = [cold_start(home / f"start{number}") for number in range(COLD_STARTS)]
    healthy, evaluated, stop = (statistics.median(column) for column in zip(*starts, strict=True))
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:6]
    return Footprint(
        machine=f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release().split('-')[0]}",
        python=platform.python_version(),
        ticks=ticks,
        scrapes=scrapes,
        agent=agent,
        node_exporter=exporter,
        cold_start_healthy_s=healthy,
        cold_start_evaluated_s=evaluated,
        stop_s=stop,
        installed_mib=sum(sizes.values()),
        largest_mib={name: round(size, 1) for name, size in largest},
    )


def show(result: Footprint) -> None:
    """The table of bench/results/footprint.md."""

    def row(name: str, agent: str, exporter: str = "") -> None:
        print(f"| {name:<52} | {agent:>14} | {exporter:>13} |")

    mine, other = result.agent, result.node_exporter
    print(f"{result.machine}, Python {result.python}; {result.ticks} ticks, {result.scrapes} scrapes\n")
    row("", "anomaly-agent", "node_exporter")
    print(f"|{'-' * 54}|{'-' * 15}:|{'-' * 14}:|")
    for name, key, form in (
        ("RSS at the end, MiB", "rss_mib", "{:.1f}"),
        ("RSS at its highest, MiB", "peak_rss_mib", "{:.1f}"),
        ("CPU per scrape, ms", "scrape_cpu_ms", "{:.2f}"),
        ("wall time per scrape (median), ms", "scrape_wall_ms", "{:.2f}"),
        ("size of a scrape (gzip), bytes", "scrape_bytes", "{}"),
    ):
        row(name, form.format(getattr(mine, key)), form.format(getattr(other, key)) if other else "")
    row("CPU per tick back to back, learning incl., ms", f"{mine.tick_cpu_ms:.2f}")
    row("  of that sampling the host (wall), ms", f"{mine.sample_ms:.2f}")
    row("  of that scoring (wall), ms", f"{mine.score_ms:.2f}")
    row("  the median tick, nothing learnt, ms", f"{mine.median_tick_cpu_ms:.2f}")
    row("CPU per tick, a second of sleep before each, ms", f"{mine.spaced_tick_cpu_ms:.2f}")
    row("  the median tick, ms", f"{mine.median_spaced_tick_cpu_ms:.2f}")
    row("process start -> /-/healthy, s", f"{result.cold_start_healthy_s:.2f}")
    row("process start -> first evaluation, s", f"{result.cold_start_evaluated_s:.2f}")
    row("SIGTERM -> end, s", f"{result.stop_s:.2f}")
    row("installed size without pip and setuptools, MiB", f"{result.installed_mib:.0f}")
    print("\nlargest, MiB: " + ", ".join(f"{name} {size}" for name, size in result.largest_mib.items()))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--ticks", type=int, default=2000)
    parser.add_argument("--scrapes", type=int, default=200)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()
    result = measure(options.ticks, options.scrapes)
    if options.json:
        print(json.dumps(asdict(result), indent=2))
    else:
        show(result)


if __name__ == "__main__":
    main()
