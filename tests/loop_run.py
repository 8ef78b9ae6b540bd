"""The loop from history to a message and back, with the real parts: used by a test and by bench/loop.py."""

from __future__ import annotations

import contextlib
import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import host_faults
import loop_host
import loop_world
import mlflow_server
import rig
from loop_world import Message, Pace, Receiver

ALARM = "NodeAnomalous"
SMALL = {
    "isolation_forest": {"n_estimators": 20, "max_samples": 256},
    "random_forest": {"n_estimators": 20, "max_depth": 6},
    "lstm": {"units": [8, 8], "sequence_length": 40, "epochs": 2},
    "kmeans": {"centroids": 10, "max_windows": 2_000},
}
"""All members, each trained in seconds: the loop is tried here, not how good the models are."""
CALM_TICKS = 5
"""How long the score is looked at before there is a fault."""


@dataclass
class Story:
    """What was seen, and how many seconds each phase took."""

    seconds: dict[str, float] = field(default_factory=dict)
    past_ends: float = math.nan
    """Unix seconds. What is real begins after it: whatever else this machine does then teaches no model."""
    starter: str = ""
    trained: str = ""
    in_use: str = ""
    members: set[str] = field(default_factory=set)
    """Models that the agent scores with."""
    champion: str = ""
    """Version of the bundle behind MLflow's alias."""
    outcomes: dict[str, float] = field(default_factory=dict)
    """Of the training run, as Prometheus has them from the Pushgateway."""
    trainer_said: str = ""
    before: float = math.nan
    """The highest score of the last ticks before the fault."""
    fired: Message | None = None
    resolved: Message | None = None
    told: set[str] = field(default_factory=set)
    """Alerts about which there was a message since the fault began."""
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


def run(
    folder: Path, pace: Pace, fault: str, patience_s: float, tell: Callable[[str], object] = str
) -> Story:
    """All of it below `folder`; TimeoutError names what did not come within `patience_s`."""
    story = Story(tell=tell)
    with running(folder, pace, story) as parts:
        story.starter = bundle_of(parts.agent)
        with story.phase("train, register, publish"):
            story.trained = train(folder, parts, story)
        with story.phase("publish to reload"):
            story.in_use = until_reloaded(parts.agent, story.trained, patience_s)
        page = rig.fetch(f"{parts.agent.url}/metrics")[1]
        story.members = set(re.findall(r'^anomaly_model_info\{model="(\w+)"', page, re.MULTILINE))
        story.champion = champion(parts.mlflow)
        found = rig.wait_for_query(parts.prometheus, "anomaly_trainer_run_outcome", patience_s)
        story.outcomes = {one["metric"]["outcome"]: float(one["value"][1]) for one in found}  # type: ignore[index]
        with story.phase("reload to a quiet score"):
            calm = f"[{CALM_TICKS * pace.tick_s}s]"
            of_it = f'count_over_time(anomaly_model_info{{version="{story.trained}"}}{calm})'
            quiet = f"max_over_time(anomaly_score{calm}) < 1 and on (instance) {of_it} >= {CALM_TICKS - 1}"
            rig.wait_for_query(parts.prometheus, quiet, patience_s)
            rig.wait_for_query(parts.prometheus, f'absent(ALERTS{{alertname="{ALARM}"}})', patience_s)
        found = rig.query(parts.prometheus, f"max_over_time(anomaly_score{calm})")
        story.before = float(found[0]["value"][1])  # type: ignore[index]
        begun = time.time()
        with host_faults.provoked(fault, folder):
            story.seconds["the fault provoked"] = time.time() - begun
            follow(story, parts, begun, patience_s)
        ended = time.time()
        with story.phase("end of fault to a score below 1"):
            rig.wait_for_query(parts.prometheus, "anomaly_score < 1", patience_s)
        story.resolved = parts.receiver.wait_for(ALARM, "resolved", patience_s, ended)
        story.seconds["end of fault to resolved"] = story.resolved.at - ended
        story.told = parts.receiver.alerts(begun)
        story.lost_ticks = sum(
            float(value)
            for value in re.findall(
                r"^anomaly_agent_evaluations?_(?:skipped|failures)_total\{.*\} (\S+)$",
                rig.fetch(f"{parts.agent.url}/metrics")[1],
                re.MULTILINE,
            )
        )
    return story


def follow(story: Story, parts: Parts, begun: float, patience_s: float) -> None:
    """From the fault to the message, as those in between saw it."""
    with story.phase("fault to score"):
        rig.wait_for_query(parts.prometheus, "anomaly_score >= 1", patience_s)
    fired = story.fired = parts.receiver.wait_for(ALARM, "firing", patience_s, begun)
    found = rig.query(parts.prometheus, f'ALERTS_FOR_STATE{{alertname="{ALARM}"}}')
    pending = float(found[0]["value"][1])  # type: ignore[index]
    story.seconds["fault to pending"] = pending - begun
    story.seconds["pending to firing"] = fired.began - pending
    story.seconds["firing to message"] = fired.at - fired.began
    story.seconds["fault to message"] = fired.at - begun


@contextlib.contextmanager
def running(folder: Path, pace: Pace, story: Story) -> Iterator[Parts]:
    """Start everything but the trainer; MLflow, which takes longest, beside the others."""
    (folder / "bundles").mkdir()
    agent_port, tick = rig.free_port(), f"{pace.tick_s}s"
    with contextlib.ExitStack() as stack, story.phase("start of all parts"):
        begin = stack.enter_context
        pool = begin(ThreadPoolExecutor(1))
        recorder = pool.submit(begin, mlflow_server.mlflow(folder / "mlflow", guarded=False))
        receiver = begin(Receiver().running())
        routes = loop_world.alerting(folder / "alertmanager.yml", receiver.url, pace)
        pager = begin(rig.alertmanager(folder / "alertmanager", routes))
        gateway = begin(rig.pushgateway(folder / "pushgateway"))
        few = ("--collector.disable-defaults", *(f"--collector.{name}" for name in loop_host.COLLECTORS))
        exporter = begin(rig.node_exporter(folder / "node_exporter", few))
        node = f"127.0.0.1:{exporter.port}"
        with story.phase("history put into Prometheus"):
            usually = loop_host.usual(rig.fetch(f"{exporter.url}/metrics")[1])
            now = int(time.time())
            story.past_ends = now - loop_host.GAP_S
            rig.backfill(folder / "prometheus", loop_host.history(node, usually, now))
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
        ]
        agent = begin(rig.service("agent", command, agent_port, "/-/ready", folder))
        parts = Parts(exporter, server, gateway, recorder.result(), agent, receiver)
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
        "features": loop_host.FEATURES,
        "source": {
            "type": "prometheus",
            "prometheus": {
                "url": parts.prometheus.url,
                "matchers": 'job="node"',
                "range": f"{loop_host.PAST_S}s",
                "end": story.past_ends,
            },
        },
        "models": SMALL,
        # Half a day of three nodes tells little about what happens once a week.
        "budget": {"false_alarms_per_node_week": 20},
        "forecast": {"enabled": False},
        "training": {"faults_per_node_day": 100, "fit_fraction": 0.6},
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
