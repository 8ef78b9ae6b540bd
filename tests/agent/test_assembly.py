"""The whole agent in this process: every part real, stopped by a real signal."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

import agent_bundle
import rig
from node_anomaly_agent.assembly import (
    choose_bundle_directory,
    choose_state_directory,
    collector_switches,
    load_other,
    node_name,
    require_procfs,
    run_daemon,
)
from node_anomaly_agent.config import AgentConfig, load_config
from node_anomaly_agent.state import load_state
from node_anomaly_core.errors import AnomalyError, ConfigError


def config(**settings: object) -> AgentConfig:
    overrides = {name.replace("__", ".").replace("_", "-"): value for name, value in settings.items()}
    return load_config(None, overrides, collector_switches())


def test_the_agent_runs_until_sigterm_and_leaves_its_state(tmp_path, capfd):
    version = agent_bundle.publish(tmp_path / "bundles")
    port = rig.free_port()
    seen: dict[str, str] = {}
    old = agent_bundle.make_bundle(tmp_path / "other", trained_at=1_600_000_000.0)

    def watch() -> None:
        try:
            rig.wait_for(f"http://127.0.0.1:{port}/-/ready")
            seen["metrics"] = rig.fetch(f"http://127.0.0.1:{port}/metrics")[1]
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    watcher = threading.Thread(target=watch)
    watcher.start()
    settings = config(
        interval="0.3s",
        web__listen_address=f"127.0.0.1:{port}",
        state__directory=str(tmp_path),
        log__format="json",
    )
    before = signal.getsignal(signal.SIGTERM)
    assert run_daemon(settings, "1.2.3", {}) == 0
    watcher.join()
    assert signal.getsignal(signal.SIGTERM) is before
    assert f'version="{version}"' in seen["metrics"]
    assert "process_resident_memory_bytes" in seen["metrics"]
    assert load_state(tmp_path).bundle_version == version
    log = capfd.readouterr().err
    assert "bundle loaded" in log
    assert str(old) not in log


def test_a_state_directory_that_was_asked_for_must_be_writable(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"state\.directory"):
        choose_state_directory(config(state__directory=str(tmp_path / "file" / "x")), {})


def test_a_file_system_that_became_read_only_stops_no_agent(tmp_path, monkeypatch):
    """As the kernel makes one after an error: saving fails, and that is counted."""
    place = tmp_path / "state"
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ConfigError, match="cannot be written by this user"):
        choose_state_directory(config(state__directory=str(place)), {})
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_flag=os.ST_RDONLY))
    assert choose_state_directory(config(state__directory=str(place)), {}) == place


def test_a_place_that_is_no_proc_is_refused_before_anything_starts(tmp_path):
    with pytest.raises(ConfigError, match=r"path\.procfs: .* is no proc file system"):
        require_procfs(config(path__procfs=str(tmp_path)))
    require_procfs(config(path__procfs=str(tmp_path), source="node_exporter"))
    (tmp_path / "stat").touch()
    require_procfs(config(path__procfs=str(tmp_path)))


def test_bundles_arrive_beside_the_state_unless_told_otherwise(tmp_path):
    assert choose_bundle_directory(config(), tmp_path) == tmp_path / "bundles"
    assert choose_bundle_directory(config(), None) == Path("/var/lib/node-anomaly/bundles")
    assert choose_bundle_directory(config(bundle__directory="/srv"), tmp_path) == Path("/srv")


def test_the_nodes_name_is_configured_given_by_kubernetes_or_the_hosts():
    assert node_name(config(node__name="web-01"), {"NODE_NAME": "k8s-7"}) == "web-01"
    assert node_name(config(), {"NODE_NAME": "k8s-7"}) == "k8s-7"
    assert node_name(config(), {}) == os.uname().nodename


def test_another_bundle_is_found_by_its_version(tmp_path):
    path = agent_bundle.make_bundle(tmp_path)
    found = load_other(path.name, tmp_path, config(), "")
    assert found is not None
    assert found.info.version == path.name
    assert load_other("f" * 16, tmp_path, config(), "") is None
    (path / "forest.safetensors").unlink()
    with pytest.raises(AnomalyError, match=r"forest\.safetensors"):
        load_other(path.name, tmp_path, config(), "")
