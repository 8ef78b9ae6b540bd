"""What kustomize makes of the manifests, as Kubernetes would be given it."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

import rig

KUBECTL = rig.Part("kubectl", ("kubectl",), "kubectl (1.27 or later; Debian's kubernetes-client is too old)")
OVERLAYS = sorted(path.name for path in (rig.REPOSITORY / "daemonset" / "overlays").iterdir())


def build(folder: Path) -> list[dict[str, Any]]:
    """The objects of a kustomization, in order."""
    done = subprocess.run(
        [str(rig.need(KUBECTL)), "kustomize", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return [item for item in yaml.safe_load_all(done.stdout) if item]


@cache
def overlay(name: str) -> tuple[dict[str, Any], ...]:
    """The objects of a shipped overlay."""
    return tuple(build(rig.REPOSITORY / "daemonset" / "overlays" / name))


def one(
    objects: tuple[dict[str, Any], ...] | list[dict[str, Any]], kind: str, name: str = ""
) -> dict[str, Any]:
    """The object of that kind, and that name if there are several."""
    found = [item for item in objects if item["kind"] == kind and name in ("", item["metadata"]["name"])]
    assert len(found) == 1, f"{len(found)} objects {kind} {name}"
    return found[0]


def pod_spec(item: dict[str, Any]) -> dict[str, Any]:
    """The pod that a workload makes."""
    spec = item["spec"]
    if item["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    found: dict[str, Any] = spec["template"]["spec"]
    return found
