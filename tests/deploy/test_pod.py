"""The agent as the DaemonSet would run it: its arguments, user, groups, mounts and nothing more, for real.

There is no kubelet here. systemd-nspawn makes a container of what the manifest says: the host's /proc, /sys
and / mounted as there, its user and groups, no capability, no new privileges, the host's network. It lacks an
image, seccomp's RuntimeDefault, and a read-only root (none but root could write there anyway).
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import booted
import cluster
import rig

OVERLAY = "plain"


def command_of_pod(port: int) -> tuple[list[str], dict[str, object]]:
    """The container's program, user and arguments; only port and interval are the test's."""
    pod = cluster.pod_spec(cluster.one(cluster.overlay(OVERLAY), "DaemonSet"))
    rights = pod["securityContext"]
    groups = ",".join(str(group) for group in rights["supplementalGroups"])
    user = [
        *(
            "setpriv",
            f"--reuid={rights['runAsUser']}",
            f"--regid={rights['runAsGroup']}",
            f"--groups={groups}",
        ),
        *("--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"),
    ]
    program = ["/opt/python/bin/python3", "-m", "node_anomaly_agent", *pod["containers"][0]["args"]]
    return [*user, *program, f"--web.listen-address=127.0.0.1:{port}", "--interval=200ms"], pod


@contextlib.contextmanager
def agent_in_pod(folder: Path) -> Iterator[rig.Service]:
    """Its root is a copy-on-write view of this machine's."""
    nspawn = rig.need(booted.NSPAWN)
    if reason := booted.why_not():
        pytest.skip(f"THE POD WAS NOT TRIED: {reason}")
    port = rig.free_port()
    command, pod = command_of_pod(port)
    state, config, place = folder / "state", folder / "config", folder / "machine"
    for path in (state, config, place):
        path.mkdir(parents=True)
    os.chown(state, pod["securityContext"]["runAsUser"], -1)  # what the init container does
    agent_yml = cluster.one(cluster.overlay(OVERLAY), "ConfigMap")["data"]["agent.yml"]
    (config / "agent.yml").write_text(agent_yml)
    sources = {"state": state, "config": config}
    binds = []
    for mount in pod["containers"][0]["volumeMounts"]:
        volume = next(v for v in pod["volumes"] if v["name"] == mount["name"])
        source = sources.get(mount["name"]) or volume["hostPath"]["path"]
        binds.append(f"--bind{'-ro' if mount.get('readOnly') else ''}={source}:{mount['mountPath']}")
    own = {rig.REPOSITORY: "/opt/src", sys.prefix: "/opt/venv", sys.base_prefix: "/opt/python"}
    binds += [f"--bind-ro={source}:{target}" for source, target in own.items()]
    libraries = f"/opt/venv/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    environment = {
        "PYTHONPATH": f"/opt/src/agent:/opt/src/core:{libraries}",
        "LD_LIBRARY_PATH": "/opt/python/lib",
        "PYTHONDONTWRITEBYTECODE": "1",
        "NODE_NAME": "node-7",
        **{one["name"]: one["value"] for one in pod["containers"][0]["env"] if "value" in one},
    }
    container: list[str] = [
        *(str(nspawn), "--quiet", "--register=no", "--keep-unit", "--as-pid2", "--link-journal=no"),
        *(
            f"--directory={place / 'root'}",
            "--machine=node-anomaly-pod",
            "--system-call-filter=adjtimex clock_adjtime",
        ),
        *binds,
        *(f"--setenv={name}={value}" for name, value in environment.items()),
        *("--", *command),
    ]
    with rig.service(
        "pod",
        ["unshare", "-m", "sh", "-c", booted.BOOT, "sh", place, *container],
        port,
        "/-/ready",
        folder,
        seconds=30,
    ) as running:
        yield running


@pytest.fixture(scope="module")
def pod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[rig.Service]:
    with agent_in_pod(tmp_path_factory.mktemp("pod")) as running:
        yield running


@pytest.fixture(scope="module")
def on_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[rig.Service]:
    """The agent as root, without a container."""
    folder, port = tmp_path_factory.mktemp("host"), rig.free_port()
    command = [
        *(sys.executable, "-m", "node_anomaly_agent", f"--web.listen-address=127.0.0.1:{port}"),
        *("--interval=200ms", f"--state.directory={folder}"),
    ]
    with rig.service("agent", command, port, "/-/ready", folder) as running:
        yield running


def series(text: str, name: str) -> dict[str, float]:
    found = re.finditer(rf'^{name}\{{\w+="([^"]+)"\}} (\S+)$', text, re.MULTILINE)
    return {sample[1]: float(sample[2]) for sample in found}


def when_known(agent: rig.Service) -> str:
    """A scrape of when every rate is known: twenty ticks, which is five windows."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        text = rig.fetch(f"{agent.url}/metrics")[1]
        count = re.search(r"^anomaly_agent_evaluations_total (\S+)$", text, re.MULTILINE)
        if count is not None and float(count[1]) >= 20:
            return text
        time.sleep(0.2)
    pytest.fail(f"it did not go on; it printed:\n{agent.output()[-4000:]}")


def pid_of(pod: rig.Service) -> int:
    """The agent's own process, as this machine numbers it."""
    pattern = f"^/opt/python/bin/python3 .*127.0.0.1:{pod.port}"
    return int(subprocess.check_output(["pgrep", "--full", pattern], text=True).split()[0])


def test_in_a_pod_it_sees_what_it_sees_on_the_host(pod, on_host):
    """Every collector works, every feature is known, and what does not change within seconds is the same."""
    inside, outside = (when_known(agent) for agent in (pod, on_host))
    collectors = series(inside, "anomaly_agent_collector_success")
    assert collectors == series(outside, "anomaly_agent_collector_success")
    values, expected = (series(text, "anomaly_feature_value") for text in (inside, outside))
    assert values.keys() == expected.keys()
    assert len(values) > 30
    for feature in ("filesystem_readonly_count", "filesystem_fullest_ratio", "conntrack_used_ratio"):
        if feature in expected:
            assert values[feature] == pytest.approx(expected[feature], abs=1e-3), feature


def test_it_is_nobody_and_may_nothing(pod):
    status = Path(f"/proc/{pid_of(pod)}/status").read_text()
    assert re.search(r"^Uid:\t65534\t65534\t65534\t65534$", status, re.MULTILINE)
    assert re.findall(r"^Cap(?:Inh|Prm|Eff|Bnd|Amb):\t(\w+)$", status, re.MULTILINE) == ["0" * 16] * 5
    assert re.search(r"^NoNewPrivs:\t1$", status, re.MULTILINE)


def test_the_probes_of_the_manifest_answer(pod):
    [container] = cluster.pod_spec(cluster.one(cluster.overlay(OVERLAY), "DaemonSet"))["containers"]
    for probe in ("livenessProbe", "readinessProbe"):
        assert rig.fetch(pod.url + container[probe]["httpGet"]["path"])[0] == 200


def test_its_state_is_kept_on_the_host_when_the_pod_ends(pod):
    file = pod.log.parent / "state" / "agent.state"
    os.kill(pid_of(pod), signal.SIGTERM)
    pod.process.wait(10)
    assert file.exists(), pod.output()[-4000:]
    assert file.stat().st_uid == 65534
