"""What reading logs costs: `python bench/logs.py`.

Lines of eight forms (syslog, klog, JSON, logfmt, Java, nginx, plain; about 110 bytes) are counted and judged,
with and without looking for patterns, then followed in a real file by the agent's meter at steady rates.
CPU time of this process is what counts. Other files of lines may be named instead; nothing of them is kept.
"""

from __future__ import annotations

import argparse
import gzip
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from node_anomaly_agent.config_logs import LogsConfig
from node_anomaly_agent.logs.assembly import build_logs
from node_anomaly_core.log_severity import count_severities, line_severities
from node_anomaly_core.log_templates import TemplateMiner

PIECE = 32 << 10
FORMS = (
    "Nov 25 10:{m:02}:{s:02} web-{h} sshd[{p}]: Failed password for user{h} from 10.0.{h}.{s} port {p} ssh2",
    "Nov 25 10:{m:02}:{s:02} web-{h} systemd[1]: Started session-{p}.scope - Session {p} of user app{h}.",
    "I1125 10:{m:02}:{s:02}.{p:06} 1 reflector.go:{h}] watch of *v1.Pod ended with {p} items after {s} s",
    '{{"ts":"2026-11-25T10:{m:02}:{s:02}Z","level":"info","msg":"done","path":"/api/v1/item/{p}","ms":{s}}}',
    'time=2026-11-25T10:{m:02}:{s:02}Z level=warn msg="slow query" duration={p}ms rows={s} user=app{h}',
    "2026-11-25 10:{m:02}:{s:02},{p:03} ERROR [worker-{h}] o.e.shop.OrderService - order {p} failed: {s}",
    '10.0.{h}.{s} - - [25/Nov/2026:10:{m:02}:{s:02} +0000] "GET /static/{p}.js HTTP/1.1" 200 {p} "-" "Moz/5"',
    "worker {h} took {p} jobs from the queue, {s} are left, all is well and nothing needs to be done",
)


def invented(count: int) -> bytes:
    """Lines of every form, in no order."""
    rng = random.Random(5)  # noqa: S311 -- not for secrets
    numbers = {"m": 60, "s": 60, "h": 9, "p": 99999}
    return b"".join(
        rng.choice(FORMS).format(**{name: rng.randrange(top) for name, top in numbers.items()}).encode()
        + b"\n"
        for _ in range(count)
    )


def pieces(data: bytes) -> list[bytes]:
    """Whole lines, as the agent takes them."""
    found, start = [], 0
    while start < len(data):
        end = data.find(b"\n", start + PIECE) + 1 or len(data)
        found.append(data[start:end])
        start = end
    return found


def cpu(work: Callable[[], object], repeat: int = 5) -> float:
    """Seconds of CPU, the least of a few runs."""
    best = float("inf")
    for _ in range(repeat):
        before = time.process_time()
        work()
        best = min(best, time.process_time() - before)
    return best


def followed(rate: int, seconds: int) -> tuple[float, float]:
    """Share of a core that ticks of one second cost at `rate` lines/s, and the error of the count."""
    lines = invented(rate * seconds).splitlines(keepends=True)
    with tempfile.TemporaryDirectory() as home:
        file = Path(home) / "app.log"
        file.touch()
        settings = LogsConfig(files=(str(file),), journald=False, containers=False)
        meter = build_logs(settings, Path("/"))
        if meter is None:
            raise SystemExit("no meter")
        meter.read()
        used = 0.0
        with file.open("ab") as out:
            for second in range(seconds):
                out.writelines(lines[second * rate : (second + 1) * rate])
                out.flush()
                before = time.process_time()
                meter.read()
                used += time.process_time() - before
        counted = meter.status().counted["files"].lines
        meter.close()
    return used / seconds, counted / (rate * seconds) - 1.0


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--lines", nargs="*", type=Path, default=[], help="files of lines, plain or gzip")
    named: list[Path] = options.parse_args().lines
    texts = {"invented": invented(20_000)}
    for path in named:
        raw = path.read_bytes()
        texts[path.name] = (gzip.decompress(raw) if path.suffix == ".gz" else raw).replace(b"\r\n", b"\n")
    print("| lines | bytes each | severity, lines/s | and patterns, lines/s | patterns |")
    print("|---|---|---|---|---|")
    for name, data in texts.items():
        parts, count = pieces(data), data.count(b"\n")
        judge = cpu(lambda parts=parts: [count_severities(line_severities(part)) for part in parts])  # type: ignore[misc]
        miner = TemplateMiner()
        both = judge + cpu(lambda parts=parts, miner=miner: [miner.mine(part) for part in parts])  # type: ignore[misc]
        figures = f"{count / judge:,.0f} | {count / both:,.0f} | {miner.created}"
        print(f"| {name} | {len(data) // count} | {figures} |")
    print("\n| lines/s into one file | share of a core | count is off by |")
    print("|---|---|---|")
    for rate, seconds in ((1, 60), (100, 60), (10_000, 20), (50_000, 10)):
        share, off = followed(rate, seconds)
        print(f"| {rate:,} | {share:.3%} | {off:+.3%} |")


if __name__ == "__main__":
    main()
