"""The loop from history to a message and back, with the real parts: used by a test and by bench/loop.py."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import loop_world
import mlflow_server
import rig
from loop_world import Pace, Receiver, Textfile

ALARM = "NodeAnomalous"
MEMBERS = ["autoregression"]
"""The member that is trained fastest and forgets fastest: the loop is tried here, not the models."""


@dataclass
class Story:
    """What was seen, and how many seconds each phase took."""

    seconds: dict[str, float] = field(default_factory=dict)
    starter: str = ""
    trained: str = ""
    in_use: str = ""
    champion: str = ""
    """Version of the bundle behind MLflow's alias."""
    outcomes: dict[str, float] = field(default_factory=dict)
    """Of the training run, as Prometheus has them from the Pushgateway."""
    trainer_said: str = ""
    fired: tuple[str, dict[str, Any]] = ("", {})
    resolved: tuple[str, dict[str, Any]] = ("", {})
    told: set[str] = field(default_factory=set)
    lost_ticks: float = -1.0
    tell: Callable[[str], object] = field(default=str, repr=False)
    """Hears of each phase when it ends."""

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure the block."""
        begun = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - begun
        self.tell(f"{name}: {self.seconds[name]:.1f} s")


@dataclass(frozen=True)
class Parts:
    """What runs."""

    exporter: rig.Service
    prometheus: rig.Service
    gateway: rig.Service
    mlflow: rig.Service
    agent: rig.Service
    receiver: Receiver
    mails: Textfile


def run(folder: Path, pace: Pace, patience_s: float, tell: Callable[[str], object] = str) -> Story:
    """All of it below `folder`; TimeoutError names what did not come within `patience_s`."""
    story = Story(tell=tell)
    with running(folder, pace, story) as parts:
        story.starter = bundle_of(parts.agent)
        with story.phase("train, register, publish"):
            story.trained = train(folder, parts, story)
        with story.phase("publish to reload"):
            story.in_use = until_reloaded(parts.agent, story.trained, patience_s)
        story.champion = champion(parts.mlflow)
        found = rig.wait_for_query(parts.prometheus, "anomaly_trainer_run_outcome", patience_s)
        story.outcomes = {one["metric"]["outcome"]: float(one["value"][1]) for one in found}  # type: ignore[index]
        with story.phase("reload to a quiet score"):
            rig.wait_for_query(parts.prometheus, "anomaly_score < 1", patience_s)
            rig.wait_for_query(parts.prometheus, "instance:anomaly_alarm:bool == 0", patience_s)
        begun = time.monotonic()
        parts.mails.fail()
        with story.phase("fault to score"):
            rig.wait_for_query(parts.prometheus, "anomaly_score >= 1", patience_s)
        with story.phase("score to message"):
            story.fired = parts.receiver.wait_for(ALARM, "firing", patience_s)
        story.seconds["fault to message"] = time.monotonic() - begun
        parts.mails.recover()
        with story.phase("end of fault to resolved"):
            story.resolved = parts.receiver.wait_for(ALARM, "resolved", patience_s)
        story.told = parts.receiver.alerts()
        story.lost_ticks = sum(
            float(value)
            for value in re.findall(
                r"^anomaly_agent_evaluations?_(?:skipped|failures)_total\{.*\} (\S+)$",
                rig.fetch(f"{parts.agent.url}/metrics")[1],
                re.MULTILINE,
            )
        )
    return story


@contextlib.contextmanager
def running(folder: Path, pace: Pace, story: Story) -> Iterator[Parts]:
    """Start everything but the trainer; MLflow, which takes longest, beside the others."""
    (folder / "textfile").mkdir()
    (folder / "bundles").mkdir()
    mails = Textfile(folder / "textfile" / "mail.prom", pace.tick_s)
    agent_port, tick = rig.free_port(), f"{pace.tick_s}s"
    with contextlib.ExitStack() as stack, story.phase("start of all parts"):
        begin = stack.enter_context
        pool = begin(ThreadPoolExecutor(1))
        recorder = pool.submit(begin, mlflow_server.mlflow(folder / "mlflow", guarded=False))
        begin(mails.running())
        receiver = begin(Receiver().running())
        routes = loop_world.alerting(folder / "alertmanager.yml", receiver.url, pace)
        pager = begin(rig.alertmanager(folder / "alertmanager", routes))
        gateway = begin(rig.pushgateway(folder / "pushgateway"))
        only_textfile = (
            "--collector.disable-defaults",
            "--collector.textfile",
            f"--collector.textfile.directory={folder / 'textfile'}",
        )
        exporter = begin(rig.node_exporter(folder / "node_exporter", only_textfile))
        node = f"127.0.0.1:{exporter.port}"
        with story.phase("history put into Prometheus"):
            past = loop_world.history(node, int(time.time()))
            rig.backfill(folder / "prometheus", past)
        jobs = {"node": [exporter.port], "anomaly-agent": [agent_port], "pushgateway": [gateway.port]}
        alertmanagers = [{"static_configs": [{"targets": [f"127.0.0.1:{pager.port}"]}]}]
        server = begin(
            rig.prometheus(
                folder / "prometheus",
                jobs,
                tick,
                access={"honor_labels": True},
                rules=loop_world.rules(folder / "rules", pace),
                more={"alerting": {"alertmanagers": alertmanagers}},
            )
        )
        command: list[str | Path] = [
            *(sys.executable, "-m", "node_anomaly_agent"),
            f"--interval={tick}",
            f"--node.name={node}",
            f"--web.listen-address=127.0.0.1:{agent_port}",
            f"--state.directory={folder / 'state'}",
            f"--bundle.directory={folder / 'bundles'}",
            f"--node-exporter.url={exporter.url}/metrics",
            f"--features.file={loop_world.own_features(folder / 'features.yml')}",
        ]
        agent = begin(rig.service("agent", command, agent_port, "/-/ready", folder))
        parts = Parts(exporter, server, gateway, recorder.result(), agent, receiver, mails)
        started = stack.pop_all()
    with started:
        yield parts


def bundle_of(agent: rig.Service) -> str:
    """Version of the bundle that the agent scores with."""
    found = re.search(
        r'^anomaly_model_info\{.*version="(\w+)"', rig.fetch(f"{agent.url}/metrics")[1], re.MULTILINE
    )
    return found[1] if found else ""


def champion(server: rig.Service) -> str:
    """Version of the bundle that MLflow's alias leads to."""
    where = "api/2.0/mlflow/registered-models/alias?name=node-anomaly&alias=champion"
    tags = json.loads(rig.fetch(f"{server.url}/{where}")[1])["model_version"]["tags"]
    return {tag["key"]: str(tag["value"]) for tag in tags}["bundle_version"]


def until_reloaded(agent: rig.Service, version: str, patience_s: float) -> str:
    """Wait until the agent scores with that bundle; the one it scores with."""
    deadline = time.monotonic() + patience_s
    while (in_use := bundle_of(agent)) != version and time.monotonic() < deadline:
        time.sleep(0.05)
    return in_use


def train(folder: Path, parts: Parts, story: Story) -> str:
    """One run of anomaly-trainer on what Prometheus holds; the version that it published."""
    configuration = {
        "own_features": str(folder / "features.yml"),
        "features": [metric.feature for metric in loop_world.METRICS],
        "source": {
            "type": "prometheus",
            "prometheus": {
                "url": parts.prometheus.url,
                "matchers": 'job="node"',
                "range": f"{loop_world.PAST_S}s",
            },
        },
        "models": {"enabled": MEMBERS},
        "training": {"faults_per_node_day": 100},
        "gate": {"min_recall": 0.05, "beat_baselines": False, "tick_cpu": "1s"},
        "publish": {"directory": str(folder / "bundles")},
        "report": {"directory": str(folder / "runs")},
        "mlflow": {"tracking_uri": parts.mlflow.url, "required": True},
        "metrics": {"pushgateway": parts.gateway.url},
    }
    (folder / "trainer.yml").write_text(json.dumps(configuration))
    command = [sys.executable, "-m", "node_anomaly_trainer", "train", "--config", str(folder / "trainer.yml")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)
    story.trainer_said = done.stdout + done.stderr
    if done.returncode != 0:
        raise AssertionError(f"the trainer ended with {done.returncode}:\n{story.trainer_said}")
    return (folder / "bundles" / "current").resolve().name
