"""Memory of the agent with every source of logs in a storm: `python bench/log_memory.py`.

The wheel, installed without extras in an environment of its own, over a root that is made for it: a journal
that a real systemd-journal-remote writes, a log file, and a container's log as a runtime (CRI) writes it.
Each run starts the agent anew, waits, then writes to all three at once, and reads VmRSS and VmHWM of
/proc/PID/status: the tick is half a second, the storm eight, the agent is scraped every second. It has the
starter bundle, or with --bundle DIR one that a trainer published there: those are larger.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from bench import footprint  # noqa: E402 -- it installs the agent
from bench.logs import invented  # noqa: E402 -- lines of eight forms

import journal  # noqa: E402 -- the tests' writer of journals
import rig  # noqa: E402 -- the rig of the tests

INTERVAL_S = 0.5
SETTLE_S = 10.0
"""After the start: a baseline, a self-test and some ticks."""

PATIENCE_S = 4.0
"""After the storm: the writer of the journal may be behind, and the tick that counts the last line."""

STEP_S = 0.1
BUDGET_MIB = 64.0
BEFORE = 2_000
"""Entries of the journal that are there already."""

CRI = b"2026-11-25T10:15:00.123456789Z stdout F "
MACHINE = "a" * 32
LINES = re.compile(r'^anomaly_agent_log_lines_total\{source="(\w+)"\} (\S+)', re.MULTILINE)


@dataclass(frozen=True)
class Run:
    """MiB before the storm, in it and after it, the highest ever; lines counted and written by source."""

    started: float
    largest: float
    after: float
    peak: float
    counted: dict[str, int]
    written: dict[str, int]
    rate: float


class Writer(threading.Thread):
    """Hands a piece of lines to a sink every tenth of a second until it is told to stop."""

    def __init__(self, rate: int, piece: Callable[[int], bytes], sink: Callable[[bytes], object]) -> None:
        super().__init__(daemon=True)
        self._rate, self._piece, self._sink = rate, piece, sink
        self.written = 0
        self.ended = threading.Event()

    def run(self) -> None:
        """Late pieces are made up for, so that the mean rate holds."""
        begun = time.monotonic()
        while not self.ended.wait(STEP_S):
            due = int((time.monotonic() - begun) * self._rate) - self.written
            self._sink(self._piece(due))
            self.written += due


@contextmanager
def journal_writer(file: Path) -> Iterator[Callable[[bytes], object]]:
    """What is handed over, in export format, is in the journal at once."""
    file.parent.mkdir(parents=True)
    command = [str(journal.program()), "-o", str(file), "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          env=journal.environment()) as writer:  # fmt: skip
        if writer.stdin is None:
            raise SystemExit("no pipe")
        into = writer.stdin

        def sink(data: bytes) -> None:
            into.write(data)
            into.flush()

        yield sink
        into.close()


def measure(folder: Path, rate: int, seconds: float, agent: list[str], bundles: Path | None = None) -> Run:
    """One start of the agent, and one storm."""
    log_root = folder / "root" / "var" / "log"
    file = log_root / "app.log"
    pod = log_root / "pods" / "shop_web-0_1" / "main" / "0.log"
    pod.parent.mkdir(parents=True)
    lines = invented(20_000).splitlines()
    spot = [0]

    def some(count: int) -> list[bytes]:
        begin = spot[0] % (len(lines) - count) if count < len(lines) else 0
        spot[0] += count
        return lines[begin : begin + count]

    def exported(count: int) -> bytes:
        entries: list[dict[str, str | bytes]] = [
            {"MESSAGE": line, "PRIORITY": "6", "_SYSTEMD_UNIT": "web.service"} for line in some(count)
        ]
        return journal.export(entries, time.time_ns() // 1000, 1)

    home, port = folder / "root", rig.free_port()
    config = folder / "agent.yml"
    config.write_text(f"interval: {INTERVAL_S}s\n")
    arguments = [
        f"--config.file={config}", f"--web.listen-address=127.0.0.1:{port}", f"--path.rootfs={home}",
        "--collector.logs.files=/var/log/app.log", "--collector.logs.journald", "--collector.logs.containers",
        f"--state.directory={folder / 'state'}", f"--bundle.directory={bundles or folder / 'bundles'}",
    ]  # fmt: skip
    quarter = rate // 4
    with (
        file.open("ab", buffering=0) as plain,
        pod.open("ab", buffering=0) as wrapped,
        journal_writer(log_root / "journal" / MACHINE / "system.journal") as into_journal,
    ):
        into_journal(exported(BEFORE))
        time.sleep(1.0)
        with subprocess.Popen([*agent, *arguments], stderr=subprocess.DEVNULL) as process:
            try:
                time.sleep(SETTLE_S)
                started, _ = footprint.memory_mib(process.pid)
                writers = [
                    Writer(quarter, lambda n: b"".join(line + b"\n" for line in some(n)), plain.write),
                    Writer(
                        quarter, lambda n: b"".join(CRI + line + b"\n" for line in some(n)), wrapped.write
                    ),
                    Writer(rate - 2 * quarter, exported, into_journal),
                ]
                before = counted(port)
                for writer in writers:
                    writer.start()
                largest, begun = started, time.monotonic()
                while time.monotonic() - begun < seconds:
                    time.sleep(1.0)
                    counted(port)
                    largest = max(largest, footprint.memory_mib(process.pid)[0])
                for writer in writers:
                    writer.ended.set()
                    writer.join()
                spent = time.monotonic() - begun
                time.sleep(PATIENCE_S)
                lines_read = {name: number - before.get(name, 0) for name, number in counted(port).items()}
                after, peak = footprint.memory_mib(process.pid)
            finally:
                process.terminate()
    written = dict(zip(("files", "containers"), (writer.written for writer in writers), strict=False))
    written["journald"] = entries(log_root / "journal" / MACHINE / "system.journal") - BEFORE
    return Run(started, largest, after, peak, lines_read, written, sum(written.values()) / spent)


def entries(file: Path) -> int:
    """How many there are in a journal: on a busy machine its writer is behind what it was handed."""
    command = ["journalctl", "--quiet", f"--file={file}", "--output=cat", "--output-fields=PRIORITY"]
    return subprocess.run(command, check=True, capture_output=True).stdout.count(b"\n")


def counted(port: int) -> dict[str, int]:
    """Lines by source, of a scrape."""
    _, text = rig.fetch(f"http://127.0.0.1:{port}/metrics")
    return {name: int(float(number)) for name, number in LINES.findall(text)}


def main() -> None:
    """Print the table; the exit status says whether the budget held."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument(
        "--rate", type=int, default=40_000, help="lines a second, half of them in the journal"
    )
    parser.add_argument("--seconds", type=float, default=8.0, help="of storm")
    parser.add_argument(
        "--agent", nargs="+", help="a command in place of the wheel's, which is then not built"
    )
    parser.add_argument("--bundle", type=Path, help="a bundle directory, as --bundle.directory of the agent")
    options = parser.parse_args()
    if options.bundle and not (options.bundle / "current").exists():
        parser.error(f"--bundle {options.bundle}: nothing is published there, the starter would be measured")
    if options.agent is None:
        footprint.install()
    agent = options.agent or [str(footprint.BIN / "anomaly-agent")]
    print(
        "| run | after start | largest in storm | after it | highest | lines/s | file | container | journal |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    worst = 0.0
    for number in range(1, options.runs + 1):
        with tempfile.TemporaryDirectory() as folder:
            run = measure(Path(folder), options.rate, options.seconds, agent, options.bundle)
        worst = max(worst, run.peak)
        shown = [f"{run.counted[name]:,} of {run.written[name]:,}" for name in run.written]
        memory = [f"{mib:.1f}" for mib in (run.started, run.largest, run.after, run.peak)]
        print(f"| {' | '.join([str(number), *memory, f'{run.rate:,.0f}', *shown])} |", flush=True)
    sys.exit(worst > BUDGET_MIB)


if __name__ == "__main__":
    main()
