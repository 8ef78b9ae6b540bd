"""The Helm chart: generated, and in every shape the same objects that kustomize builds."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

import chart
import cluster
import rig
from node_anomaly_agent.cli import build_parser

OPERATED = {
    "trainer": {"enabled": True},
    "podMonitor": {"enabled": True},
    "prometheusRule": {"enabled": True},
}
OF_HELM = {"helm.sh/chart", "app.kubernetes.io/instance", "app.kubernetes.io/managed-by", "release"}
ANNOTATION = "node-anomaly/settings"

KEPT = {"helm.sh/resource-policy": "keep"}
"""Of the trainer's claim: what was published outlives the release."""


def comparable(objects: Any) -> dict[tuple[str, str], dict[str, Any]]:
    """Objects by kind and name, without what is Helm's or kustomize's own way to the same end.

    That is labels of the chart, the label that a cluster's Prometheus selects by, and what makes new pods
    when settings change: a digest in a ConfigMap's name, or one in an annotation of the pod. The namespace
    is not among a chart's objects, because Helm keeps its own records in it.
    """
    found = {}
    plain = re.sub(r"\b(node-anomaly-(?:agent|trainer))-[a-z0-9]{10}\b", r"\1", yaml.safe_dump(list(objects)))
    for item in yaml.safe_load(plain):
        if item["kind"] == "Namespace":
            continue
        metadata = item["metadata"]
        metadata["labels"] = {k: v for k, v in metadata.get("labels", {}).items() if k not in OF_HELM}
        if item["kind"] == "PersistentVolumeClaim" and metadata.get("annotations") == KEPT:
            del metadata["annotations"]
        if item["kind"] == "DaemonSet":
            item["spec"]["template"]["metadata"]["annotations"].pop(ANNOTATION, None)
        found[item["kind"], metadata["name"]] = item
    return found


def test_it_is_what_the_manifests_give(repository: Path) -> None:
    """`python scripts/helm_chart.py` writes it anew."""
    command = [sys.executable, repository / "scripts" / "helm_chart.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_default_release_is_what_kustomize_makes_of_the_base() -> None:
    base = cluster.build(rig.REPOSITORY / "daemonset" / "base")
    assert comparable(chart.rendered()) == comparable(base)


@pytest.mark.parametrize(
    ("overlay", "values"),
    [
        ("prometheus-operator", OPERATED),
        (
            "plain",
            {
                "agent": {
                    "podAnnotations": {
                        "prometheus.io/scrape": "true",
                        "prometheus.io/port": "9917",
                        "prometheus.io/path": "/metrics",
                    }
                }
            },
        ),
    ],
)
def test_with_values_it_is_the_overlay(overlay: str, values: dict[str, Any]) -> None:
    assert comparable(chart.rendered(values)) == comparable(cluster.overlay(overlay))


def test_what_a_monitor_is_selected_by_is_on_the_monitor_and_the_rules() -> None:
    for item in chart.rendered({**OPERATED, "monitoringLabels": {"team": "sre"}}):
        labelled = item["metadata"]["labels"].get("team") == "sre"
        assert labelled == (item["kind"] in {"PodMonitor", "PrometheusRule"})


@pytest.mark.parametrize("version", ["1.27", "1.37"])
def test_every_object_is_valid_with_everything_set(version: str) -> None:
    values = {**OPERATED, **SET}
    for item in chart.rendered({**values, "trainer": {**SET["trainer"], "enabled": True}}):
        if item["kind"] not in {"PodMonitor", "PrometheusRule"}:
            assert kubernetes_validate.validate(item, version, strict=True).startswith(version)


SET: dict[str, Any] = {
    "agent": {
        "image": {"repository": "ghcr.io/me/agent", "tag": "7"},
        "config": "interval: 30s\n",
        "extraArgs": ["--bundle.directory=/data/bundles"],
        "extraEnv": [{"name": "TZ", "value": "UTC"}],
        "extraVolumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "node-anomaly-trainer"}}],
        "extraVolumeMounts": [{"name": "data", "mountPath": "/data", "readOnly": True}],
        "nodeSelector": {"pool": "web"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "resources": {"limits": {"memory": "200Mi"}, "requests": {"cpu": "20m", "memory": "100Mi"}},
    },
    "trainer": {
        "image": {"tag": "8"},
        "extraEnv": [{"name": "MLFLOW_TRACKING_URI", "value": "http://mlflow.mlflow.svc:5000"}],
        "extraVolumes": [{"name": "key", "secret": {"secretName": "bundle-key"}}],
        "extraVolumeMounts": [{"name": "key", "mountPath": "/key", "readOnly": True}],
        "train": {"schedule": "0 1 * * *"},
        "tolerations": [{"key": "batch", "operator": "Exists"}],
        "storage": {"accessModes": ["ReadWriteMany"], "className": "efs", "size": "50Gi"},
    },
    "imagePullSecrets": [{"name": "registry"}],
    "extraLabels": {"team": "sre", "cost-center": "42"},
}


def test_each_value_arrives_where_it_says() -> None:
    objects = chart.rendered({**SET, "trainer": {**SET["trainer"], "enabled": True}}, namespace="elsewhere")
    daemonset = cluster.one(objects, "DaemonSet")
    pod, settings = cluster.pod_spec(daemonset), SET["agent"]
    [container] = pod["containers"]
    images = {one["image"] for one in [container, *pod["initContainers"]]}
    assert images == {"ghcr.io/me/agent:7"}
    assert cluster.one(objects, "ConfigMap", "node-anomaly-agent")["data"] == {"agent.yml": "interval: 30s\n"}
    build_parser().parse_args(container["args"])
    assert container["args"][-1] == "--bundle.directory=/data/bundles"
    assert container["env"][-1] == {"name": "TZ", "value": "UTC"}
    assert pod["volumes"][-1] == settings["extraVolumes"][0]
    assert container["volumeMounts"][-1] == settings["extraVolumeMounts"][0]
    assert (pod["nodeSelector"]["pool"], pod["tolerations"]) == ("web", settings["tolerations"])
    assert container["resources"] == settings["resources"]
    trainer = cluster.one(objects, "CronJob", "node-anomaly-trainer")
    job = cluster.pod_spec(trainer)
    assert trainer["spec"]["schedule"] == "0 1 * * *"
    assert job["containers"][0]["image"].endswith("/trainer:8")
    assert job["containers"][0]["env"][-1] == SET["trainer"]["extraEnv"][0]
    assert job["volumes"][-1] == SET["trainer"]["extraVolumes"][0]
    assert job["containers"][0]["volumeMounts"][-1] == SET["trainer"]["extraVolumeMounts"][0]
    assert job["tolerations"] == SET["trainer"]["tolerations"]
    claim = cluster.one(objects, "PersistentVolumeClaim")["spec"]
    assert (claim["accessModes"], claim["storageClassName"]) == (["ReadWriteMany"], "efs")
    assert claim["resources"]["requests"]["storage"] == "50Gi"
    for item in objects:
        assert item["metadata"]["labels"]["team"] == "sre"
        assert item["metadata"].get("namespace", "elsewhere") == "elsewhere"
    for one in (daemonset, trainer):
        assert cluster.pod_spec(one)["imagePullSecrets"] == [{"name": "registry"}]
    assert daemonset["spec"]["template"]["metadata"]["labels"]["cost-center"] == "42"


def test_other_settings_make_other_pods_and_the_same_settings_do_not() -> None:
    def digest(values: dict[str, Any]) -> str:
        template = cluster.one(chart.rendered(values), "DaemonSet")["spec"]["template"]
        found: str = template["metadata"]["annotations"][ANNOTATION]
        return found

    assert digest({"agent": {"config": "interval: 30s\n"}}) != digest({})
    assert digest({"trainer": {"enabled": True}}) == digest({})


def test_runbooks_are_elsewhere_by_one_value_and_nothing_else_changes() -> None:
    elsewhere = {"enabled": True, "runbooks": "https://wiki.example.org/rb"}
    groups = [
        cluster.one(chart.rendered({"prometheusRule": values}), "PrometheusRule")["spec"]["groups"]
        for values in ({"enabled": True}, elsewhere)
    ]
    shipped, moved = map(yaml.safe_dump, groups)
    shipped_at = yaml.safe_load((rig.REPOSITORY / "rules" / "settings.yml").read_text())["runbooks"]
    assert groups[0] != groups[1]
    assert yaml.safe_load(shipped.replace(shipped_at, elsewhere["runbooks"])) == yaml.safe_load(moved)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"agent": {"extraArg": []}}, "'extraArg' not allowed"),
        ({"trainer": {"enabled": "yes"}}, "/trainer/enabled"),
        ({"agent": {"image": {"tag": 1.1}}}, "/agent/image/tag"),
    ],
)
def test_a_value_that_nothing_reads_or_of_another_kind_is_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(chart.RefusedError, match=re.escape(says)):
        chart.helm(values)


def test_helms_linter_has_nothing_to_say_but_that_there_is_no_icon() -> None:
    found = chart.helm(OPERATED)
    assert [message["error"] for message in found["lint"]["messages"]] == ["icon is recommended"]
    assert not found["lint"]["errors"]
    notes = next(text for name, text in found["made"].items() if name.endswith("NOTES.txt"))
    assert "rollout status daemonset/node-anomaly-agent" in notes
    assert "first-training" in notes


def test_the_example_of_the_documents_is_taken_and_agents_see_what_is_published(repository: Path) -> None:
    text = (repository / "docs" / "install-kubernetes.md").read_text()
    example = re.search(r"```yaml\n# my-values\.yaml.*?```", text, re.DOTALL)
    assert example is not None
    objects = chart.rendered(yaml.safe_load(example[0].strip("`").removeprefix("yaml")))
    pod = cluster.pod_spec(cluster.one(objects, "DaemonSet"))
    published = yaml.safe_load(
        cluster.one(objects, "ConfigMap", "node-anomaly-trainer")["data"]["trainer.yml"]
    )
    assert f"--bundle.directory={published['publish']['directory']}" in pod["containers"][0]["args"]
    assert cluster.one(objects, "PersistentVolumeClaim")["spec"]["accessModes"] == ["ReadWriteMany"]
    assert {"DaemonSet", "CronJob", "PodMonitor", "PrometheusRule"} <= {item["kind"] for item in objects}
