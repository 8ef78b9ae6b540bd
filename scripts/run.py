"""The whole loop on this machine, as `make run` shows it.

Starts the agent with the starter bundle, trains on the synthetic fleet meanwhile (on your own history if
PROMETHEUS_URL is set), lets the running agent reload what was published, waits until it is warm, prints why
the score is what it is, and stays until Ctrl-C. RUN_SECONDS=30 ends it after that many seconds of staying.
Everything it writes is below .run/, or below the directory given as argument.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
RUN = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / ".run"
BIN = Path(sys.executable).parent
INTERVAL = "5s"  # three times as often as the default, so that the demonstration is warm sooner
PORT = 9917
STARTED = time.monotonic()
PASSING_S = 5.0  # in a log, a line of progress at most this often
PROGRESS = re.compile(r"^[a-z_ ]+(\.\.\.$|\s\d{1,2}%(\s|$))")  # what the trainer prints amid a step
ACCEPTED, REJECTED = 0, 3  # exit codes of `anomaly-trainer train`


class Stopped(Exception):  # noqa: N818 -- not an error: the user has seen enough
    """Ctrl-C or SIGTERM."""


class Patience:
    """Waiting that a signal ends; its handler only sets a flag, for raising there could lose a new child."""

    def __init__(self) -> None:
        self._over = False

    def end(self, _number: int, _frame: FrameType | None) -> None:
        """Signal handler."""
        self._over = True

    def pause(self, seconds: float) -> None:
        """Sleep; raises Stopped once a signal has come."""
        until = time.monotonic() + seconds
        while not self._over and time.monotonic() < until:
            time.sleep(max(0.0, min(0.1, until - time.monotonic())))
        if self._over:
            raise Stopped


class Screen:
    """Lines with the time since the start; passing ones are overwritten on a terminal, rare in a log."""

    def __init__(self) -> None:
        self._passing = False
        self._told = 0.0

    def say(self, text: str, *, passing: bool = False) -> None:
        """Print a line; a `passing` one makes room for the next."""
        now = time.monotonic()
        if passing and not sys.stdout.isatty() and now - self._told < PASSING_S:
            return
        self._told = now
        back = "\r\x1b[K" if self._passing else ""
        self._passing = passing and sys.stdout.isatty()
        print(f"{back}[{now - STARTED:6.1f}s] {text}", end="" if self._passing else "\n", flush=True)


PATIENCE = Patience()
pause = PATIENCE.pause
say = Screen().say


def fail(message: str, hint: str) -> NoReturn:
    """End with what is wrong and what to do about it."""
    sys.exit(f"Error: {message}\nTry: {hint}")


@dataclass(frozen=True)
class Agent:
    """The running agent: its process, where it listens and what its flags were."""

    process: subprocess.Popen[bytes]
    url: str
    flags: tuple[str, ...]
    log: Path

    def metrics(self) -> dict[str, float]:
        """Value by series, as in the text of one scrape; empty while it does not answer."""
        try:
            with urllib.request.urlopen(f"{self.url}/metrics", timeout=5) as answer:
                text = answer.read().decode()
        except OSError:
            return {}
        lines = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
        return {series: float(value) for series, _, value in lines}

    def check(self) -> None:
        """End with the log's last lines if the agent has died."""
        if self.process.poll() is not None:
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
            fail(f"the agent ended with {self.process.returncode}:\n{tail}", f"read {self.log}")


def bundle_in_use(metrics: Mapping[str, float]) -> str:
    """Version and origin of the models, e.g. `starter 0123456789abcdef`; empty if there are none."""
    for key in metrics:
        if key.startswith("anomaly_model_info{"):
            labels = dict(part.split("=", 1) for part in key[key.index("{") + 1 : -1].split(","))
            return f"{labels['origin']} {labels['version']}".replace('"', "")
    return ""


def choose_port() -> int:
    """The usual port if it is free on loopback, else one the system gives."""
    for port in (PORT, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                chosen = int(probe.getsockname()[1])
                if port == 0:
                    say(f"port {PORT} is taken, using {chosen} instead")
                return chosen
    fail("no free port on 127.0.0.1", "end some listening programs")


@contextlib.contextmanager
def child(command: list[str], **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """A process of its own group that ends with the block, whatever happens in it."""
    process = subprocess.Popen(command, start_new_session=True, stdin=subprocess.DEVNULL, **options)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        for number, patience in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(patience)


@contextlib.contextmanager
def running_agent() -> Iterator[Agent]:
    """The agent on this host, with the starter bundle until something is published to .run/bundles."""
    port = choose_port()
    flags = (
        f"--interval={INTERVAL}",
        f"--state.directory={RUN / 'state'}",
        f"--bundle.directory={RUN / 'bundles'}",
        f"--web.listen-address=127.0.0.1:{port}",
    )
    log = RUN / "agent.log"
    with (
        log.open("wb") as sink,
        child([str(BIN / "anomaly-agent"), *flags], stdout=sink, stderr=sink) as process,
    ):
        agent = Agent(process, f"http://127.0.0.1:{port}", flags, log)
        deadline = time.monotonic() + 30
        while not (models := bundle_in_use(agent.metrics())):
            agent.check()
            if time.monotonic() > deadline:
                fail("the agent has loaded no bundle within 30 s", f"read {log}")
            pause(0.1)
        say(f"the agent scores this host with the {models} models (log: {os.path.relpath(log)})")
        yield agent


def train(agent: Agent) -> int:
    """Run the trainer and relay its lines, with a word on the agent in between; its exit code."""
    source = os.environ.get("PROMETHEUS_URL")
    say(f"training on {source or 'the synthetic fleet'}; the agent goes on scoring meanwhile")
    command = [str(BIN / "anomaly-trainer"), "train", "--config", str(ROOT / "scripts" / "run-trainer.yml")]
    command += ["--interval", INTERVAL, "--publish", str(RUN / "bundles")]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    # Its report goes where it works, as everything that this makes: into .run/.
    with child(
        command, cwd=RUN, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
    ) as process:
        lines = relay(process)
        told = time.monotonic()
        while True:
            pause(0)
            with contextlib.suppress(queue.Empty):
                line = lines.get(timeout=0.5)
                if line is None:
                    return process.wait()
                say(f"  train | {line}", passing=bool(PROGRESS.search(line)))
            if time.monotonic() - told > 20:
                told = time.monotonic()
                agent.check()
                say(f"  agent | {describe(agent.metrics())}")


def relay(process: subprocess.Popen[bytes]) -> queue.Queue[str | None]:
    """The lines that a process prints, then None."""
    lines: queue.Queue[str | None] = queue.Queue(maxsize=10_000)

    def read() -> None:
        assert process.stdout is not None  # noqa: S101 -- the caller asked for a pipe
        for line in process.stdout:
            lines.put(line.decode(errors="replace").rstrip())
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    return lines


def describe(metrics: Mapping[str, float]) -> str:
    """The agent in one line."""
    ticks = metrics.get("anomaly_agent_evaluations_total", 0.0)
    score = metrics.get("anomaly_score")
    if score is None:
        return f"warming up, {ticks:.0f} evaluations of this host so far"
    verdict = "above the alarm threshold of 1" if score >= 1 else "normal, the alarm threshold is 1"
    return f"{ticks:.0f} evaluations, anomaly_score {score:.2f} ({verdict})"


def wait_for_reload(agent: Agent, before: Mapping[str, float]) -> None:
    """Until the agent scores with what was published; says from what to what and how many ticks it lost."""
    deadline = time.monotonic() + 45  # the poll alone finds it within 30 s
    while time.monotonic() < deadline:
        agent.check()
        now = agent.metrics()
        if now.get("anomaly_agent_bundle_reloads_total", 0) > before.get(
            "anomaly_agent_bundle_reloads_total", 0
        ):
            say(f"hot reload: {bundle_in_use(before)} -> {bundle_in_use(now)}")
            lost = sum(value for key, value in now.items() if "_skipped_total{" in key)
            say(f"the agent went on: {describe(now)}; ticks lost: {lost:.0f}")
            return
        refused = [
            key
            for key, value in now.items()
            if "bundle_reload_failures_total{" in key and value > before.get(key, 0)
        ]
        if refused:
            fail(f"the agent refused the bundle: {', '.join(refused)}", f"read {agent.log}")
        pause(0.2)
    fail("the agent has not noticed the published bundle within 45 s", f"read {agent.log}")


def wait_until_warm(agent: Agent) -> None:
    """Until there is a score; a line every few seconds."""
    deadline, told = time.monotonic() + 300, 0.0
    while "anomaly_score" not in (metrics := agent.metrics()):
        agent.check()
        if time.monotonic() > deadline:
            fail("the agent is not warm after 5 minutes", f"read {agent.log}")
        if time.monotonic() - told > 10:
            told = time.monotonic()
            say(describe(metrics))
        pause(0.5)
    say(f"warm: {describe(metrics)}")


def wait_for_saved_state(since: float) -> None:
    """Until the agent has saved its history after `since` (unix seconds): `--once` continues from it."""
    deadline, told = time.monotonic() + 75, False
    saved = RUN / "state" / "agent.state"
    while not saved.exists() or saved.stat().st_mtime < since:
        if time.monotonic() > deadline:
            return
        if not told:
            told = True
            say("waiting for the agent to save its history, which --once continues from")
        pause(0.5)


def show_reasons(agent: Agent) -> None:
    """The table of `anomaly-agent --once`."""
    say("anomaly-agent --once:")
    done = subprocess.run([str(BIN / "anomaly-agent"), *agent.flags, "--once"], check=False, timeout=120)
    if done.returncode == 1:
        fail("anomaly-agent --once failed (see above)", f"read {agent.log}")


def stay(agent: Agent, seconds: float) -> None:
    """For so many seconds, or until Ctrl-C."""
    deadline = time.monotonic() + seconds
    print(f"\n  status page  {agent.url}/\n  metrics      {agent.url}/metrics\n", flush=True)
    say("staying until Ctrl-C" if math.isinf(seconds) else f"staying for {seconds:.0f} s")
    told = time.monotonic()
    while time.monotonic() < deadline:
        agent.check()
        if time.monotonic() - told > 30:
            told = time.monotonic()
            say(describe(agent.metrics()))
        pause(min(1.0, max(0.0, deadline - time.monotonic())))


def seconds_to_stay() -> float:
    """RUN_SECONDS, or forever."""
    text = os.environ.get("RUN_SECONDS", "")
    try:
        return float(text) if text else float("inf")
    except ValueError:
        fail(f"RUN_SECONDS is {text!r}, not a number of seconds", "RUN_SECONDS=30 make run")


def lock_directory() -> object:
    """Hold .run/ for this run alone; the lock goes with the process."""
    RUN.mkdir(parents=True, exist_ok=True)
    lock = (RUN / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        fail("another `make run` uses .run/ now", "end that one first")
    for name in ("state", "bundles"):  # begin as a fresh host does
        shutil.rmtree(RUN / name, ignore_errors=True)
        (RUN / name).mkdir()
    return lock


def main() -> None:
    """The story, in order."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, PATIENCE.end)
    seconds = seconds_to_stay()
    lock = lock_directory()
    try:
        say("starting the agent on this host")
        with running_agent() as agent:
            before = agent.metrics()
            outcome = train(agent)
            trained = time.time()
            if outcome == ACCEPTED:
                wait_for_reload(agent, before)
            elif outcome == REJECTED:
                say("the gate refused the new models (reasons above): the agent keeps those it has")
            else:
                fail(
                    f"training ended with exit code {outcome} (see above)", "correct what it names, run again"
                )
            wait_until_warm(agent)
            wait_for_saved_state(trained)
            show_reasons(agent)
            stay(agent, seconds)
            say("stopping the agent")
    except Stopped:
        say("stopped")
    del lock


if __name__ == "__main__":
    main()
