"""What Helm makes of the chart: its own code, as the library that scripts/real_parts.py installs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
import yaml

import rig

CHART = rig.REPOSITORY / "daemonset" / "chart"
HELM = rig.PARTS / "helm"
RENDER = """
import json, sys
import helm_python
asked = json.load(sys.stdin)
with helm_python.Chart.load(asked["chart"]) as chart:
    try:
        chart.validate_schema(asked["values"])
    except helm_python.HelmValuesError as error:
        sys.exit(str(error))
    made = chart.render(asked["values"], name="demo", namespace=asked["namespace"])
lint = helm_python.lint(asked["chart"])
json.dump({"made": made, "lint": lint, "version": helm_python.helm_sdk_version()}, sys.stdout)
"""


class RefusedError(Exception):
    """Helm does not take these values; its message."""


def helm(values: dict[str, Any] | None = None, namespace: str = "node-anomaly") -> dict[str, Any]:
    """`made`: the text of each file; `lint`: what Helm's linter says. RefusedError.

    Not in this process: a runtime of another language stays until its end.
    """
    if not (HELM / "installed.txt").exists():
        message = "Helm is missing: python scripts/real_parts.py"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    done = subprocess.run(
        [sys.executable, "-c", RENDER],
        input=json.dumps({"chart": str(CHART), "values": values or {}, "namespace": namespace}),
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(HELM)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if done.returncode:
        raise RefusedError(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def rendered(values: dict[str, Any] | None = None, namespace: str = "node-anomaly") -> list[dict[str, Any]]:
    """The objects that a release with these values would have."""
    made = helm(values, namespace)["made"]
    return [
        item
        for name, text in sorted(made.items())
        if name.endswith(".yaml")
        for item in yaml.safe_load_all(text)
        if item
    ]
