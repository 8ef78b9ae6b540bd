"""What the Helm chart lets be set: the defaults, taken from the manifests, and where each one goes."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import yaml

import rules

ROOT = Path(__file__).resolve().parent.parent
BASE = ROOT / "daemonset" / "base"
TRAINER = ROOT / "daemonset" / "components" / "trainer"
OPERATOR = ROOT / "daemonset" / "components" / "prometheus-operator"

Path_ = tuple[str | int, ...]
Place = tuple[Path_, tuple[str, str]]
"""Where in an object, and what is put there: how (helm_chart.py) and Helm's expression."""

_AGENT_POD: Path_ = ("spec", "template", "spec")
_JOB_POD: Path_ = ("spec", "jobTemplate", "spec", "template", "spec")


def _image(component: str) -> tuple[str, str]:
    return "text", f'printf "%s:%s" .Values.{component}.image.repository .Values.{component}.image.tag'


def _digest(component: str) -> Place:
    """A change of the settings makes other pods, as kustomize's names with a digest do."""
    path: Path_ = ("spec", "template", "metadata", "annotations", "node-anomaly/settings")
    return path, ("text", f".Values.{component}.config | sha256sum")


def _job(values: str) -> tuple[Place, ...]:
    container = (*_JOB_POD, "containers", 0)
    return (
        (("spec", "schedule"), ("text", f".Values.trainer.{values}.schedule")),
        ((*_JOB_POD, "nodeSelector"), ("block", ".Values.trainer.nodeSelector")),
        ((*_JOB_POD, "tolerations"), ("optional", ".Values.trainer.tolerations")),
        ((*container, "image"), _image("trainer")),
        ((*container, "env"), ("more", ".Values.trainer.extraEnv")),
        ((*container, "volumeMounts"), ("more", ".Values.trainer.extraVolumeMounts")),
        ((*_JOB_POD, "volumes"), ("more", ".Values.trainer.extraVolumes")),
        ((*container, "resources"), ("block", f".Values.trainer.{values}.resources")),
    )


PLACES: dict[tuple[str, str], tuple[Place, ...]] = {
    ("DaemonSet", "node-anomaly-agent"): (
        _digest("agent"),
        (("spec", "template", "metadata", "annotations"), ("more-keys", ".Values.agent.podAnnotations")),
        ((*_AGENT_POD, "nodeSelector"), ("block", ".Values.agent.nodeSelector")),
        ((*_AGENT_POD, "tolerations"), ("block", ".Values.agent.tolerations")),
        ((*_AGENT_POD, "initContainers", 0, "image"), _image("agent")),
        ((*_AGENT_POD, "containers", 0, "image"), _image("agent")),
        ((*_AGENT_POD, "containers", 0, "args"), ("more", ".Values.agent.extraArgs")),
        ((*_AGENT_POD, "containers", 0, "env"), ("more", ".Values.agent.extraEnv")),
        ((*_AGENT_POD, "containers", 0, "resources"), ("block", ".Values.agent.resources")),
        ((*_AGENT_POD, "containers", 0, "volumeMounts"), ("more", ".Values.agent.extraVolumeMounts")),
        ((*_AGENT_POD, "volumes"), ("more", ".Values.agent.extraVolumes")),
    ),
    ("CronJob", "node-anomaly-trainer"): _job("train"),
    ("CronJob", "node-anomaly-drift"): _job("drift"),
    ("PersistentVolumeClaim", "node-anomaly-trainer"): (
        (("spec", "accessModes"), ("block", ".Values.trainer.storage.accessModes")),
        (("spec", "storageClassName"), ("optional", ".Values.trainer.storage.className")),
        (("spec", "resources", "requests", "storage"), ("text", ".Values.trainer.storage.size")),
    ),
}
FREE = {"nodeSelector", "resources", "podAnnotations", "monitoringLabels", "extraLabels"}
"""Maps whose keys are Kubernetes' or yours, so that none is unknown."""
COMMENTS = {
    "agent": "The agents: one pod on every node that nodeSelector and tolerations let it on.",
    "agent.image": "The registry and tag that you push images/agent.Dockerfile to.",
    "agent.config": "Settings of every agent, the whole file (agent/anomaly-agent.example.yml has them all).",
    "agent.extraArgs": "More flags, such as --bundle.directory=/data/bundles; flags win over config.",
    "agent.extraVolumes": "With extraVolumeMounts: the trainer's volume, a bundle key, a web.yml.",
    "agent.podAnnotations": 'Such as prometheus.io/scrape: "true", where Prometheus goes by them.',
    "trainer": "Trains every week, looks for drift every day, publishes into a volume of its own.",
    "trainer.image": "The registry and tag that you push images/trainer.Dockerfile to.",
    "trainer.config": "The trainer's settings, the whole file (see trainer/anomaly-trainer.example.yml).",
    "trainer.extraEnv": "Such as {name: MLFLOW_TRACKING_URI, value: ...}.",
    "trainer.extraVolumes": "With extraVolumeMounts: a key to sign with, a password of Prometheus, a CA.",
    "trainer.storage": '[ReadWriteMany] where agents watch it; className "" is the default one.',
    "podMonitor": "Both take the Prometheus operator.",
    "prometheusRule.runbooks": "Where you serve docs/runbooks/; a placeholder.",
    "monitoringLabels": "What your Prometheus selects monitors and rules by.",
    "extraLabels": "On every object and pod.",
}


def _read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def runbooks() -> str:
    """The address that the shipped rules have."""
    return rules.settings()["runbooks"]


def _image_of(folder: Path) -> dict[str, str]:
    [image] = _read(folder / "kustomization.yaml")["images"]
    return {"repository": image["newName"], "tag": image["newTag"]}


def _job_of(file: str) -> dict[str, Any]:
    job = _read(TRAINER / file)["spec"]
    [container] = job["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    return {"schedule": job["schedule"], "resources": container["resources"]}


def values() -> dict[str, Any]:
    """The defaults."""
    pod = _read(BASE / "daemonset.yaml")["spec"]["template"]["spec"]
    [container] = pod["containers"]
    claim = _read(TRAINER / "pvc.yaml")["spec"]
    job = _read(TRAINER / "cronjob.yaml")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return {
        "agent": {
            "image": _image_of(BASE),
            "config": (BASE / "agent.yml").read_text(encoding="utf-8"),
            "extraArgs": [],
            "extraEnv": [],
            "extraVolumes": [],
            "extraVolumeMounts": [],
            "podAnnotations": {},
            "nodeSelector": pod["nodeSelector"],
            "tolerations": pod["tolerations"],
            "resources": container["resources"],
        },
        "trainer": {
            "enabled": False,
            "image": _image_of(TRAINER),
            "config": (TRAINER / "trainer.yml").read_text(encoding="utf-8"),
            "extraEnv": [],
            "extraVolumes": [],
            "extraVolumeMounts": [],
            "train": _job_of("cronjob.yaml"),
            "drift": _job_of("drift.yaml"),
            "nodeSelector": job["nodeSelector"],
            "tolerations": [],
            "storage": {
                "accessModes": claim["accessModes"],
                "className": "",
                "size": claim["resources"]["requests"]["storage"],
            },
        },
        "podMonitor": {"enabled": False},
        "prometheusRule": {"enabled": False, "runbooks": runbooks()},
        "monitoringLabels": _read(OPERATOR / "kustomization.yaml")["labels"][0]["pairs"],
        "imagePullSecrets": [],
        "extraLabels": {},
    }


def values_text() -> str:
    """values.yaml, each setting under what there is to say of it."""
    return "".join(_lines("", values(), 0))


def _lines(path: str, found: dict[str, Any], depth: int) -> list[str]:
    pad, lines = "  " * depth, []
    for name, value in found.items():
        here = f"{path}.{name}".lstrip(".")
        if here in COMMENTS:
            lines.append(f"{pad}# {COMMENTS[here]}\n")
        if isinstance(value, dict) and value and name not in FREE:
            lines += [f"{pad}{name}:\n", *_lines(here, value, depth + 1)]
        elif isinstance(value, str) and "\n" in value:
            lines += [f"{pad}{name}: |\n", textwrap.indent(value, pad + "  ")]
        else:
            lines.append(textwrap.indent(yaml.safe_dump({name: value}, sort_keys=False, width=100), pad))
    return lines


def schema_text() -> str:
    """values.schema.json: a key that no template asks for is refused, as in our own settings."""
    schema = {"$schema": "http://json-schema.org/draft-07/schema#", **_schema("", values())}
    schema["properties"]["global"] = {"type": "object"}  # what Helm hands to a chart below another one
    return json.dumps(schema, indent=2) + "\n"


def _schema(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        if name in FREE - {"resources"}:  # labels, annotations and what nodes are chosen by: text alone
            return {"type": "object", "additionalProperties": {"type": "string"}}
        if name in FREE:
            return {"type": "object"}
        properties = {key: _schema(key, one) for key, one in value.items()}
        return {"type": "object", "additionalProperties": False, "properties": properties}
    if isinstance(value, list):
        if name == "extraArgs":
            return {"type": "array", "items": {"type": "string"}}
        return {"type": "array", "minItems": 1} if name == "accessModes" else {"type": "array"}
    if name in {"repository", "tag"}:
        return {"type": "string", "minLength": 1}
    return {"type": "boolean" if isinstance(value, bool) else "string"}
