"""The manifests: built by kustomize, valid for several Kubernetes, and as safe as the documents say."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

import cluster
from node_anomaly_agent.assembly import collector_switches
from node_anomaly_agent.cli import build_parser
from node_anomaly_agent.config import USUAL_FILE, file_of, load_config
from node_anomaly_agent.state import state_directories
from node_anomaly_agent.web_config import parse_web_settings
from node_anomaly_core.errors import ConfigError
from node_anomaly_trainer.config import load_config as load_trainer_config

KUBERNETES = ("1.27", "1.30", "1.33", "1.35", "1.37")
CUSTOM = {"PodMonitor", "PrometheusRule"}
"""Of the Prometheus operator; no schema of theirs is at hand, so what they say is held below."""


@pytest.fixture(params=cluster.OVERLAYS)
def objects(request: pytest.FixtureRequest) -> tuple[dict[str, Any], ...]:
    return cluster.overlay(request.param)


def agent_pod(objects: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    return cluster.pod_spec(cluster.one(objects, "DaemonSet"))


@pytest.mark.parametrize("version", KUBERNETES)
def test_every_object_is_valid_without_an_unknown_field(version, objects):
    checked = [item for item in objects if item["kind"] not in CUSTOM]
    assert len(checked) >= 5
    for item in checked:
        assert kubernetes_validate.validate(item, version, strict=True).startswith(version)


def test_a_wrong_field_would_be_found(objects):
    daemonset = {**cluster.one(objects, "DaemonSet"), "spec": {"tolerance": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(daemonset, KUBERNETES[0], strict=True)


def test_no_container_may_more_than_it_needs(objects):
    for item in objects:
        if item["kind"] not in {"DaemonSet", "CronJob"}:
            continue
        pod = cluster.pod_spec(item)
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not pod.get("hostPID")
        assert not pod.get("hostIPC")
        for container in pod["containers"]:
            allowed = container["securityContext"]
            assert allowed["capabilities"] == {"drop": ["ALL"]}
            assert allowed["readOnlyRootFilesystem"] is True
            assert allowed["allowPrivilegeEscalation"] is False
            assert container["resources"]["limits"]["memory"]
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        for container in pod.get("initContainers", []):
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["CHOWN"]}
            assert [mount["name"] for mount in container["volumeMounts"]] == ["state"]


def test_the_host_is_mounted_read_only_but_for_the_state(objects):
    pod = agent_pod(objects)
    of_host = {volume["name"] for volume in pod["volumes"] if "hostPath" in volume}
    writable = {
        mount["name"]
        for mount in pod["containers"][0]["volumeMounts"]
        if mount["name"] in of_host and not mount.get("readOnly")
    }
    assert writable == {"state"}


def test_the_namespace_says_which_level_of_pod_security_it_takes(objects):
    """hostPath and hostNetwork are forbidden by baseline already."""
    labels = cluster.one(objects, "Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "privileged"


def test_every_linux_node_gets_an_agent_and_keeps_it(objects):
    daemonset = cluster.one(objects, "DaemonSet")
    pod = cluster.pod_spec(daemonset)
    assert pod["tolerations"] == [{"operator": "Exists"}]
    assert pod["priorityClassName"] == cluster.one(objects, "PriorityClass")["metadata"]["name"]
    assert daemonset["spec"]["updateStrategy"]["rollingUpdate"] == {"maxUnavailable": "10%"}
    labels = daemonset["spec"]["template"]["metadata"]["labels"]
    assert daemonset["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_the_memory_limit_leaves_room_above_what_was_measured(objects):
    resources = agent_pod(objects)["containers"][0]["resources"]
    request, limit = (int(resources[kind]["memory"].removesuffix("Mi")) for kind in ("requests", "limits"))
    assert 72 <= request < limit <= 256


def test_the_arguments_and_the_settings_are_ones_that_the_agent_takes(objects, tmp_path):
    pod = agent_pod(objects)
    name = next(v["configMap"]["name"] for v in pod["volumes"] if v["name"] == "config")
    settings = tmp_path / "agent.yml"
    settings.write_text(cluster.one(objects, "ConfigMap", name)["data"]["agent.yml"])
    arguments = pod["containers"][0]["args"]
    parsed = vars(build_parser().parse_args(arguments))
    overrides = {key.removeprefix("override:"): v for key, v in parsed.items() if key.startswith("override:")}
    mounts = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    environ = environment_of(pod)
    config = load_config(settings, overrides, collector_switches(), environ)
    assert parsed["config_file"] == str(USUAL_FILE)
    for path, volume in ((config.procfs, "proc"), (config.sysfs, "sys"), (config.rootfs, "root")):
        assert mounts[str(path)] == volume
    assert mounts[str(state_directories(config.state_directory, environ)[0])] == "state"
    assert pod["containers"][0]["ports"][0]["containerPort"] == config.listen_address.port


def test_what_exec_starts_in_a_pod_has_the_settings_of_the_agent_there(objects, tmp_path):
    """But for those that a container's arguments say, which is how its log is written."""
    pod = agent_pod(objects)
    arguments = vars(build_parser().parse_args(pod["containers"][0]["args"]))
    said = {key for key in arguments if key.startswith("override:")}
    assert said <= {"override:log.format", "override:bundle.directory", "override:web.config.file"}
    settings = tmp_path / "agent.yml"
    settings.write_text("interval: 30s\n")
    bare = load_config(file_of(None, settings), {}, collector_switches(), environment_of(pod))
    assert (str(bare.procfs), str(bare.sysfs), str(bare.rootfs)) == ("/host/proc", "/host/sys", "/host/root")
    assert bare.interval_s == 30.0


def environment_of(pod):
    """What a manifest's first container has in its environment, as far as it is not asked of the API."""
    return {one["name"]: one["value"] for one in pod["containers"][0]["env"] if "value" in one}


def test_the_trainers_settings_are_ones_that_it_takes(tmp_path):
    objects = cluster.overlay("prometheus-operator")
    pod = cluster.pod_spec(cluster.one(objects, "CronJob", "node-anomaly-trainer"))
    name = next(v["configMap"]["name"] for v in pod["volumes"] if v["name"] == "config")
    settings = tmp_path / "trainer.yml"
    settings.write_text(cluster.one(objects, "ConfigMap", name)["data"]["trainer.yml"])
    config = load_trainer_config(settings)
    claim = next(v for v in pod["volumes"] if "persistentVolumeClaim" in v)
    place = next(m["mountPath"] for m in pod["containers"][0]["volumeMounts"] if m["name"] == claim["name"])
    assert str(config.publish.directory).startswith(place)


@pytest.mark.parametrize("job", ["node-anomaly-trainer", "node-anomaly-drift"])
@pytest.mark.parametrize(("code", "ends"), [(0, 0), (3, 0), (1, 1), (2, 2)])
def test_a_run_that_the_gate_refused_and_drift_are_no_failed_jobs(job, code, ends, tmp_path):
    pod = cluster.pod_spec(cluster.one(cluster.overlay("prometheus-operator"), "CronJob", job))
    trainer = tmp_path / "anomaly-trainer"
    trainer.write_text(f"#!/bin/sh\nexit {code}\n")
    trainer.chmod(0o755)
    container = pod["containers"][0]
    command = [*container["command"], *container["args"]]
    done = subprocess.run(command, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, check=False)
    assert done.returncode == ends


def test_the_operator_finds_the_agents_and_names_them_as_the_rules_do(repository):
    objects = cluster.overlay("prometheus-operator")
    monitor = cluster.one(objects, "PodMonitor")
    daemonset = cluster.one(objects, "DaemonSet")
    labels = daemonset["spec"]["template"]["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert monitor["metadata"]["namespace"] == daemonset["metadata"]["namespace"]
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] in {port["name"] for port in agent_pod(objects)["containers"][0]["ports"]}
    relabelled = {r["targetLabel"]: r for r in endpoint["relabelings"] if "targetLabel" in r}
    assert relabelled["instance"]["sourceLabels"] == ["__meta_kubernetes_pod_node_name"]
    settings = yaml.safe_load((repository / "rules" / "settings.yml").read_text())
    assert relabelled["job"]["replacement"] == settings["job"]


def test_the_operators_rules_are_those_of_the_rules_folder(repository):
    """`python scripts/kubernetes_rules.py` writes them anew."""
    command = [sys.executable, str(repository / "scripts" / "kubernetes_rules.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    built = cluster.one(cluster.overlay("prometheus-operator"), "PrometheusRule")["spec"]["groups"]
    files = [
        yaml.safe_load((repository / "rules" / name).read_text()) for name in ("recording.yml", "alerts.yml")
    ]
    assert built == [group for file in files for group in file["groups"]]
    assert len(built) > 3


def with_components(repository: Path, folder: Path, *components: str) -> list[dict[str, Any]]:
    """An overlay of one's own, with the public key that bundles-https asks for."""
    copy = folder / "daemonset"
    shutil.copytree(repository / "daemonset", copy)
    (copy / "components" / "bundles-https" / "bundle.pub").write_text("the key\n")
    mine = copy / "overlays" / "mine"
    mine.mkdir()
    document = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["../../base"],
        "components": [f"../../components/{name}" for name in components],
    }
    (mine / "kustomization.yaml").write_text(yaml.safe_dump(document))
    return cluster.build(mine)


def test_agents_can_watch_the_volume_that_the_trainer_publishes_to(repository, tmp_path):
    objects = with_components(repository, tmp_path, "trainer", "bundles-pvc")
    assert cluster.one(objects, "PersistentVolumeClaim")["spec"]["accessModes"] == ["ReadWriteMany"]
    pod = cluster.pod_spec(cluster.one(objects, "DaemonSet"))
    container = pod["containers"][0]
    assert {"name": "data", "mountPath": "/data", "readOnly": True} in container["volumeMounts"]
    trainer = cluster.pod_spec(cluster.one(objects, "CronJob", "node-anomaly-trainer"))
    assert (
        cluster.pod_spec(cluster.one(objects, "CronJob", "node-anomaly-drift"))["volumes"]
        == trainer["volumes"]
    )
    name = trainer["volumes"][0]["configMap"]["name"]
    published = yaml.safe_load(cluster.one(objects, "ConfigMap", name)["data"]["trainer.yml"])
    assert f"--bundle.directory={published['publish']['directory']}" in container["args"]
    for item in objects:
        kubernetes_validate.validate(item, KUBERNETES[-1], strict=True)


def test_agents_that_fetch_accept_only_what_the_key_has_signed(repository, tmp_path):
    objects = with_components(repository, tmp_path, "bundles-https")
    pod = cluster.pod_spec(cluster.one(objects, "DaemonSet"))
    key = next(v for v in pod["volumes"] if v["name"] == "keys")["configMap"]["name"]
    assert cluster.one(objects, "ConfigMap", key)["data"] == {"bundle.pub": "the key\n"}
    arguments = pod["containers"][0]["args"]
    assert "--bundle.trusted-keys=/etc/node-anomaly-keys/bundle.pub" in arguments
    assert any(argument.startswith("--bundle.url=https://") for argument in arguments)
    build_parser().parse_args(arguments)


@pytest.fixture
def deploy(repository: Path, tmp_path: Path):
    """deploy.sh against a kubectl that builds truly and notes what else it was asked; $DENY fails a verb."""
    real = cluster.rig.need(cluster.KUBECTL)
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "kubectl"
    fake.write_text(
        f'#!/bin/sh\n[ "$1" = kustomize ] && exec {real} "$@"\necho "$@" >> {tmp_path}/asked\n'
        f'case "$*" in *"${{DENY:-nothing}}"*) exit 1 ;; esac\n'
        f'case "$*" in *apply*) cp "$(echo "$*" | sed "s/.*--filename //")" {tmp_path}/applied.yaml ;; esac\n'
    )
    fake.chmod(0o755)

    def run(*arguments: str, deny: str = "nothing") -> tuple[int, str, str]:
        done = subprocess.run(
            [str(repository / "daemonset" / "deploy.sh"), *arguments],
            env={"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "DENY": deny},
            capture_output=True,
            text=True,
            check=False,
        )
        asked = tmp_path / "asked"
        return done.returncode, done.stdout + done.stderr, asked.read_text() if asked.exists() else ""

    return run


def test_deploy_applies_the_overlay_with_your_images_and_waits(deploy, tmp_path):
    code, said, asked = deploy(
        "--registry", "ghcr.io/me/na", "--tag", "7", "--context", "prod", deny="get daemonset"
    )
    assert code == 0, said
    applied = list(yaml.safe_load_all((tmp_path / "applied.yaml").read_text()))
    pod = cluster.pod_spec(cluster.one(applied, "DaemonSet"))
    images = {c["image"] for c in [*pod["containers"], *pod["initContainers"]]}
    assert images == {"ghcr.io/me/na/agent:7"}
    assert "--context prod rollout status daemonset/node-anomaly-agent" in asked
    assert "port-forward" in said


@pytest.mark.parametrize(
    ("arguments", "deny", "says"),
    [
        ((), "nothing", "whose images?"),
        (("--registry", "r", "--overlay", "x"), "nothing", "no overlay x"),
        (("--registry", "r; rm"), "nothing", "letters"),
        (("--registry",), "nothing", "usage:"),
        (("--registry", "r"), "nothing", "installed already: by which overlay?"),
        (("--registry", "r", "--overlay", "plain"), "version", "no cluster answers"),
        (("--registry", "r", "--overlay", "plain"), "create daemonsets", "may not create daemonsets"),
        (("--registry", "r", "--overlay", "prometheus-operator"), "podmonitors", "no Prometheus operator"),
    ],
)
def test_deploy_says_what_is_missing_before_it_changes_anything(arguments, deny, says, deploy):
    code, said, asked = deploy(*arguments, deny=deny)
    assert code != 0
    assert says in said
    assert "apply" not in asked


def test_deploy_shows_why_when_a_node_gets_no_agent(deploy):
    code, said, asked = deploy("--registry", "r", "--overlay", "plain", deny="rollout")
    assert code == 1
    assert "after 30m not every node has its agent yet" in said
    assert "get events" in asked


def test_a_dry_run_changes_nothing(deploy):
    code, said, asked = deploy("--registry", "r", "--overlay", "plain", "--dry-run")
    assert code == 0, said
    assert "apply --dry-run=server" in asked
    assert "rollout" not in asked


def test_with_tls_the_operator_asks_as_the_agents_want_to_be_asked(repository):
    objects = cluster.overlay("tls-auth")
    pod = agent_pod(objects)
    [container] = pod["containers"]
    secret = next(volume["secret"] for volume in pod["volumes"] if volume["name"] == "web")
    place = next(mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "web")
    assert f"--web.config.file={place}/web.yml" in container["args"]
    # Mode 0440 of the secret's files is for a group that the agent is in.
    assert secret["defaultMode"] == 0o440
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"]
    for probe in ("livenessProbe", "readinessProbe"):
        assert "httpGet" not in container[probe], "kubelet has no password"
    [endpoint] = cluster.one(objects, "PodMonitor")["spec"]["podMetricsEndpoints"]
    assert endpoint["scheme"] == "https"
    asked_with = {endpoint["tlsConfig"]["ca"]["secret"]["name"], endpoint["basicAuth"]["password"]["name"]}
    assert asked_with == {"node-anomaly-scrape"}
    settings = yaml.safe_load((repository / "daemonset/components/tls-auth/web.yml").read_text())
    assert settings["tls_server_config"]["cert_file"] == "tls.crt"
    [user] = settings["basic_auth_users"]
    settings["basic_auth_users"] = {user: "$2y$10$" + "a" * 53}
    parsed = parse_web_settings(settings, Path(place) / "web.yml")
    assert parsed.tls is not None
    assert user in parsed.users


def test_an_example_password_is_no_password(repository):
    """Whoever forgets to make a hash gets an error, not a door with a known key."""
    settings = yaml.safe_load((repository / "daemonset/components/tls-auth/web.yml").read_text())
    with pytest.raises(ConfigError, match="basic_auth_users"):
        parse_web_settings(settings, Path("/web.yml"))
