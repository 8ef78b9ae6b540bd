"""Reading log files: how fast, how right at known rates, and what looking for new files costs.

python bench/log_sources.py [--seconds 60] [--json]

Speed: a file of 64 MiB of lines of 100 bytes, plain, as a container runtime (CRI) and as docker (JSON) wrap
them, in the page cache; CPU time of this process. Rates: another process writes files at known rates, with
bursts and with a rotation by rename every seven seconds; a source is read every second, and Batch.lines is
compared with what was written. Finding: 300 pods that write 20 lines/s each and of which one is replaced a
second, by polling as the agent does (every second, fourteen times its usual cadence) and by watchdog's
inotify on the same directories.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from node_anomaly_agent.logs.containers import ContainerSource
from node_anomaly_agent.logs.discovery import Discovery, Pattern
from node_anomaly_agent.logs.files import FileSource
from node_anomaly_agent.logs.follow import Limits
from node_anomaly_agent.logs.source import Batch, Budget

SIZE = 64 << 20
TIME = "2026-11-25T10:15:00.123456789Z"
ENDLESS = 1 << 40


def message(number: int) -> str:
    """One line of 100 bytes with its end."""
    return f"{TIME} web[4242]: GET /api/v1/things/{number:08d} 200 in 12 ms".ljust(99)


WRAPPED: dict[str, Callable[[str], str]] = {
    "plain": lambda text: f"{text}\n",
    "CRI": lambda text: f"{TIME} stdout F {text}\n",
    "docker JSON": lambda text: f'{{"log":"{text}\\n","stream":"stdout","time":"{TIME}"}}\n',
}


def speed(directory: Path) -> Iterator[dict[str, object]]:
    """Lines and bytes a second of CPU time, looked at and only counted."""
    for name, wrap in WRAPPED.items():
        content = "".join(wrap(message(number)) for number in range(SIZE // 100)).encode()
        for way, size in (("looked at", ENDLESS), ("counted", 0)):
            log_root = directory / f"{name}-{size}"
            path = log_root / "pods" / "default_web_0" / "main" / "0.log"
            path.parent.mkdir(parents=True)
            source: FileSource | ContainerSource = (
                FileSource([Pattern(f"{path.parent}/*.log")])
                if name == "plain"
                else ContainerSource(str(log_root))
            )
            path.touch()
            list(drain(source, 0))
            path.write_bytes(content)
            begun = time.process_time()
            lines = sum(batch.lines for batch in drain(source, size))
            spent = time.process_time() - begun
            source.close()
            path.unlink()
            if lines != SIZE // 100:
                raise SystemExit(f"{lines} lines were counted of {SIZE // 100}")
            yield {
                "format": name,
                "way": way,
                "lines_per_s": lines / spent,
                "mb_per_s": len(content) / spent / 1e6,
            }


def drain(source: FileSource | ContainerSource, size: int) -> Iterator[Batch]:
    """One tick with all the time it wants."""
    return source.read(Budget(time.monotonic() + 600, size))


def write_at(path: Path, rate: int, seconds: float, burst: int, rotate_s: float, written: object) -> None:
    """Write `rate` lines a second, every tenth second `burst` more at once, and rotate."""
    begun = time.monotonic()
    file = path.open("ab", buffering=0)
    done, bursts, rotations = 0, 0, 0
    while (passed := time.monotonic() - begun) < seconds:
        due = int(passed * rate) - done
        if burst and passed // 10 > bursts:
            bursts += 1
            extra = burst
        else:
            extra = 0
        if due + extra:
            file.write("".join(f"{message(done + number)}\n" for number in range(due + extra)).encode())
            done += due
            written.value += due + extra  # type: ignore[attr-defined]  # a multiprocessing.Value
        if rotate_s and passed // rotate_s > rotations:
            rotations += 1
            path.rename(f"{path}.{rotations}")
            file.close()
            file = path.open("ab", buffering=0)
        time.sleep(0.01 if rate > 1 else 0.2)
    file.close()


CASES = {
    "1 line/s": (1, 0, 0.0),
    "100 lines/s": (100, 0, 0.0),
    "100 lines/s, renamed every 7 s": (100, 0, 7.0),
    "50,000 lines/s": (50_000, 0, 0.0),
    "50,000 lines/s, renamed every 7 s": (50_000, 0, 7.0),
    "100 lines/s, 100,000 at once every 10 s": (100, 100_000, 0.0),
}


def rates(directory: Path, seconds: float) -> Iterator[dict[str, object]]:
    """What was counted of what was written, all cases at the same time, each with a source of its own."""
    sources, written, writers = [], [], []
    for number, (rate, burst, rotate_s) in enumerate(CASES.values()):
        folder = directory / f"rates-{number}"
        folder.mkdir()
        sources.append(FileSource([Pattern(f"{folder}/*.log")]))
        list(drain(sources[-1], 0))
        written.append(multiprocessing.Value("q", 0))
        arguments = (folder / "app.log", rate, seconds, burst, rotate_s, written[-1])
        writers.append(multiprocessing.Process(target=write_at, args=arguments))
    for writer in writers:
        writer.start()
    counted, longest, spent = [0] * len(CASES), [0.0] * len(CASES), [0.0] * len(CASES)
    working = True
    while working:
        time.sleep(1.0)
        working = any(writer.is_alive() for writer in writers)  # and one more look once they are done
        if not working:
            time.sleep(Limits().survey_s)
        for number, source in enumerate(sources):
            started, begun = time.monotonic(), time.process_time()
            counted[number] += sum(batch.lines for batch in source.read(Budget(started + 0.1, 256 << 10)))
            spent[number] += time.process_time() - begun
            longest[number] = max(longest[number], time.monotonic() - started)
    for number, name in enumerate(CASES):
        sources[number].close()
        yield {
            "case": name,
            "written": written[number].value,
            "counted": counted[number],
            "error": counted[number] / written[number].value - 1,
            "longest_read_ms": 1e3 * longest[number],
            "cpu_ratio": spent[number] / seconds,
        }


class Counting(FileSystemEventHandler):
    """Takes every event, as following by events would have to."""

    def __init__(self) -> None:
        self.events = 0

    def on_any_event(self, event: FileSystemEvent) -> None:
        """One more."""
        self.events += 1


def churn(root: Path, pods: int, seconds: float) -> None:
    """Pods that write, and one that is replaced every second."""
    paths = [root / "pods" / f"ns_pod-{number}_0" / "main" / "0.log" for number in range(pods)]
    files = {path: path.open("ab", buffering=0) for path in paths}
    for second in range(int(seconds)):
        begun = time.monotonic()
        old = paths.pop(0)
        files.pop(old).close()
        shutil.rmtree(old.parent.parent)
        new = root / "pods" / f"ns_job-{second}_0" / "main" / "0.log"
        new.parent.mkdir(parents=True)
        paths.append(new)
        files[new] = new.open("ab", buffering=0)
        for _ in range(20):
            for file in files.values():
                file.write(b"2026-11-25T10:15:00Z stdout F hello\n")
        time.sleep(max(0.0, 1.0 - (time.monotonic() - begun)))


def finding(directory: Path, pods: int = 300, seconds: float = 15.0) -> Iterator[dict[str, object]]:
    """CPU time that finding files takes a second, and one survey with and without remembered listings."""
    for way in ("polling", "inotify"):
        root = directory / way
        for number in range(pods):
            path = root / "pods" / f"ns_pod-{number}_0" / "main" / "0.log"
            path.parent.mkdir(parents=True)
            path.touch()
        time.sleep(2.5)  # so that the directories are old enough for their listings to be kept
        discovery = Discovery([Pattern(f"{root}/pods/*/*/*.log")])
        handler, observer = Counting(), Observer()
        spent_in_surveys = 0.0
        begun = time.process_time()
        if way == "inotify":
            observer.schedule(handler, str(root), recursive=True)
            observer.start()
        set_up = time.process_time() - begun
        writer = multiprocessing.Process(target=churn, args=(root, pods, seconds))
        writer.start()
        begun = time.process_time()
        while writer.is_alive():
            time.sleep(1.0)
            if way == "polling":
                started = time.process_time()
                found = sum(1 for _ in discovery.survey())
                spent_in_surveys += time.process_time() - started
                if found < pods - 2:
                    raise SystemExit(f"{found} of {pods} files were found")
        spent = time.process_time() - begun
        threads = threading.active_count()
        if way == "inotify":
            observer.stop()
            observer.join()
        yield {
            "way": way,
            "cpu_ms_per_s": 1e3 * spent / seconds,
            "set_up_ms": 1e3 * set_up,
            "events_per_s": handler.events / seconds,
            "threads": threads,
        }


def survey_cost(directory: Path, pods: int = 300) -> dict[str, object]:
    """One survey and one look at open files, in ms of CPU time, on the median of 50."""
    discovery = Discovery([Pattern(f"{directory}/polling/pods/*/*/*.log")])
    source = ContainerSource(str(directory / "polling"), limits=Limits(survey_s=1e9))
    list(drain(source, 0))

    def median(once: Callable[[], object]) -> float:
        spent = []
        for _ in range(50):
            begun = time.process_time()
            once()
            spent.append(time.process_time() - begun)
        return 1e3 * sorted(spent)[25]

    list(discovery.survey())
    time.sleep(2.5)
    list(discovery.survey())
    kept = median(lambda: list(discovery.survey()))
    anew = median(lambda: list(Discovery(discovery.patterns).survey()))
    quiet = median(lambda: list(drain(source, 0)))
    source.close()
    return {"survey_kept_ms": kept, "survey_anew_ms": anew, "quiet_tick_ms": quiet, "files": float(pods)}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", module="watchdog")  # it watches some new directories twice, and says so
    results: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        results["speed"] = table(
            options.json,
            speed(directory),
            "{format:12} {way:10} {lines_per_s:12,.0f} lines/s {mb_per_s:8,.0f} MB/s",
        )
        results["finding"] = table(
            options.json,
            finding(directory),
            "{way:10} {cpu_ms_per_s:6.2f} ms CPU/s, {set_up_ms:6.1f} ms to begin, "
            "{events_per_s:8,.0f} events/s, {threads} threads",
        )
        results["survey"] = table(
            options.json,
            iter([survey_cost(directory)]),
            "{files:.0f} files: survey {survey_kept_ms:.2f} ms, listings anew {survey_anew_ms:.2f} ms, "
            "a tick in which nothing was written {quiet_tick_ms:.2f} ms",
        )
        results["rates"] = table(
            options.json,
            rates(directory, options.seconds),
            "{case:42} {written:10,} written {counted:10,} counted {error:+.3%}, "
            "longest read {longest_read_ms:6.1f} ms, {cpu_ratio:.2%} of a core",
        )
    if options.json:
        print(json.dumps(results, indent=2))


def table(quiet: bool, rows: Iterator[dict[str, object]], row_format: str) -> list[dict[str, object]]:
    """Print rows as they come."""
    kept = []
    for row in rows:
        kept.append(row)
        if not quiet:
            print(row_format.format(**row), flush=True)
    return kept


if __name__ == "__main__":
    main()
