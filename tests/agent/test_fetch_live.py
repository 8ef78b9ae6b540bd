"""The whole agent as a process, fed by a real HTTPS server: fetched, used, replaced, gone back from."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import agent_bundle
from bundle_server import TLS, BundleServer
from node_anomaly_core.bundle import add_signature
from node_anomaly_core.signing import PrivateKey, sign

KEY = PrivateKey(b"k" * 32)
OLD, NEW = 1_700_000_000.0, 1_700_100_000.0


class Agent:
    """A running agent and what it exposes."""

    def __init__(self, home: Path, *flags: str) -> None:
        self.flags = (f"--state.directory={home}", *flags)
        environ = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        self.log_file = (home / "log").open("w+")
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "node_anomaly_agent", *self.flags, "--interval=0.5"),
                *("--web.listen-address=127.0.0.1:0", "--log.format=json"),
            ],
            stderr=self.log_file,
            env=environ,
        )
        self.url = ""

    def text(self) -> str:
        if not self.url:
            found = re.search(r'"port": (\d+)', Path(self.log_file.name).read_text())
            if found is None:
                return ""
            self.url = f"http://127.0.0.1:{found[1]}/metrics"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(self.url, timeout=5) as response:
            return response.read().decode()

    def until(self, holds: Callable[[str], bool], seconds: float = 40.0) -> str:
        end = time.monotonic() + seconds
        text = ""
        while time.monotonic() < end:
            text = self.text()
            if holds(text):
                return text
            time.sleep(0.1)
        raise AssertionError(Path(self.log_file.name).read_text()[-3000:] + text[-3000:])

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)
        self.log_file.close()


@pytest.fixture
def agents() -> Iterator[list[Agent]]:
    running: list[Agent] = []
    yield running
    for agent in running:
        agent.stop()


def test_a_bundle_comes_from_afar_is_replaced_and_gone_back_from(tmp_path, agents):
    made = {}
    for trained_at in (OLD, NEW):
        path = agent_bundle.make_bundle(tmp_path / "made", trained_at=trained_at)
        add_signature(path, sign((path / "manifest.json").read_bytes(), [KEY]))
        made[trained_at] = path
    old, new = made[OLD].name, made[NEW].name
    server = BundleServer(tls=True).start()
    server.publish(made[OLD], OLD, keys=[KEY])
    server.publish(made[NEW], NEW, keys=[KEY], channel="candidate")
    agents.append(
        Agent(
            tmp_path,
            f"--bundle.url={server.url}",
            f"--bundle.tls-ca-file={TLS / 'ca.pem'}",
            f"--bundle.trusted-keys={KEY.public.base64()}",
            "--bundle.fetch-interval=10s",
            "--bundle.shadow-channel=candidate",
            "--bundle.poll-interval=1s",
        )
    )
    agent = agents[0]
    text = agent.until(lambda text: f'version="{old}"' in text and "anomaly_shadow_info{" in text)
    assert "\nanomaly_agent_bundle_signature_verified 1.0" in text
    assert f'anomaly_shadow_info{{version="{new}"}} 1.0' in text
    assert 'anomaly_agent_bundle_fetches_total{source="bundle",result="fetched"} 1.0' in text
    server.publish(made[NEW], NEW, keys=[KEY], sequence=2)
    agent.until(lambda text: f'version="{new}",origin="trained"' in text)
    command = [sys.executable, "-m", "node_anomaly_agent", "bundle", "activate"]
    done = subprocess.run([*command, old, *agent.flags], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"offers {old} now" in done.stdout
    text = agent.until(lambda text: f'version="{old}",origin="trained"' in text)
    assert 'anomaly_agent_evaluation_failures_total{reason="score"} 0.0' in text
    none = subprocess.run([*command, "f" * 16, *agent.flags], capture_output=True, text=True, check=False)
    assert none.returncode == 1
    assert old in none.stderr
    server.stop()


def test_with_keys_an_unsigned_bundle_in_a_local_directory_is_refused(tmp_path, agents):
    agent_bundle.publish(tmp_path / "bundles", trained_at=NEW)
    agents.append(Agent(tmp_path, f"--bundle.trusted-keys={KEY.public.base64()}"))
    refused = 'anomaly_agent_bundle_reload_failures_total{reason="signature"} 1.0'
    text = agents[0].until(lambda text: refused in text and "anomaly_model_info{" in text)
    assert 'origin="starter"' in text
    assert "\nanomaly_agent_bundle_signature_verified 0.0" in text
