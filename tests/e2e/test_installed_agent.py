"""The wheel as a node gets it: installed without extras, started, scraped, reloaded, stopped."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import time
import venv
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

import rig
from node_anomaly_core.bundle import activate, read_bundle, starter_bundle, write_bundle

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

INTERVAL_S = 0.5
TRAINING_STACK = ("sklearn", "tensorflow", "keras", "pandas", "pyarrow", "typer", "rich", "scipy", "requests")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the sdist, so that the sdist is known to be complete too."""
    target = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(target), str(rig.REPOSITORY)],
        check=True,
        capture_output=True,
        timeout=300,
    )
    (built,) = target.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def node(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin/ of an environment with the wheel and requirements/agent.txt, hashes checked, nothing else."""
    home = tmp_path_factory.mktemp("node") / "venv"
    venv.create(home)
    # The pip that is here already, and no compiling of what nothing imports: both took half of the time.
    pip = [sys.executable, "-m", "pip", "--python", str(home / "bin" / "python")]
    pip += ["--disable-pip-version-check", "install", "--quiet", "--no-compile"]
    locked = ["--require-hashes", "--only-binary=:all:", "-r", str(rig.REPOSITORY / "requirements/agent.txt")]
    subprocess.run([*pip, *locked], check=True, timeout=500)
    subprocess.run([*pip, "--no-deps", str(wheel)], check=True, timeout=100)
    return home / "bin"


def run(*command: str | Path, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
    """A finished command with what it printed."""
    return subprocess.run(
        [str(part) for part in command], check=False, capture_output=True, text=True, timeout=timeout
    )


class Scrape(Mapping[str, float]):
    """Series of one scrape by `name{label="value"}`."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._series = {
            _key(sample.name, sample.labels): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def __getitem__(self, key: str) -> float:
        return self._series[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._series)

    def __len__(self) -> int:
        return len(self._series)

    def bundle(self) -> set[str]:
        """Versions in anomaly_model_info."""
        return set(re.findall(r'anomaly_model_info\{.*version="(\w+)"', self.text))

    def refusals(self) -> dict[str, float]:
        """Count of refused bundles by reason."""
        start = 'anomaly_agent_bundle_reload_failures_total{reason="'
        return {key[len(start) : -2]: value for key, value in self.items() if key.startswith(start)}

    def lost_ticks(self) -> float:
        """Ticks that were due and did not give an evaluation."""
        return sum(
            v for k, v in self.items() if "evaluations_skipped" in k or "evaluation_failures_total" in k
        )


def _key(name: str, labels: Mapping[str, str]) -> str:
    inside = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
    return f"{name}{{{inside}}}" if inside else name


def scrape(agent: rig.Service) -> Scrape:
    """What a Prometheus would see now."""
    status, text = rig.fetch(f"{agent.url}/metrics")
    assert status == 200, text
    return Scrape(text)


def until(agent: rig.Service, holds: Callable[[Scrape], bool], what: str, seconds: float = 30.0) -> Scrape:
    """Scrape until `holds`; the scrape that did."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        seen = scrape(agent)
        if holds(seen):
            return seen
        time.sleep(0.1)
    pytest.fail(f"{what} was not seen within {seconds:.0f} s; the agent printed:\n{agent.output()[-4000:]}")


def until_refused(agent: rig.Service, reason: str) -> Scrape:
    """The first scrape that counts a bundle refused for `reason`."""
    return until(agent, lambda seen: seen.refusals()[reason] == 1, f"a refusal for {reason}")


@pytest.fixture
def bundles(tmp_path: Path) -> Path:
    """The directory that bundles are published to; empty."""
    root = tmp_path / "bundles"
    root.mkdir()
    return root


@pytest.fixture
def agent(node: Path, bundles: Path, tmp_path: Path) -> Iterator[rig.Service]:
    """The installed agent on this host at a short interval."""
    port = rig.free_port()
    command: list[str | Path] = [
        node / "anomaly-agent",
        f"--interval={INTERVAL_S}s",
        f"--web.listen-address=127.0.0.1:{port}",
        f"--state.directory={tmp_path / 'state'}",
        f"--bundle.directory={bundles}",
        "--bundle.poll-interval=5s",
        "--log.format=json",
    ]
    with rig.service("agent", command, port, "/-/ready", tmp_path) as running:
        yield running


def publish(root: Path, trained_at: float) -> str:
    """Publish the starter's models again under another version, as the trainer would; the version."""
    starter = read_bundle(starter_bundle())
    manifest = replace(starter.manifest, origin="trained", trained_at=trained_at)
    version = write_bundle(root, manifest, starter.files).name
    activate(root, version)
    return version


def publish_damaged(root: Path, version: str, damage: Callable[[Path], None]) -> None:
    """Publish a copy of a version with something wrong in it."""
    target = root / f"damaged{len(list(root.iterdir()))}"
    shutil.copytree(root / version, target)
    damage(target)
    activate(root, target.name)


def flip_a_bit(bundle: Path) -> None:
    """Damage one byte of a forest."""
    file = bundle / "isolation_forest.safetensors"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def truncate(bundle: Path) -> None:
    """Lose the end of the LSTM, as a copy that was cut short."""
    file = bundle / "lstm.tflite"
    file.write_bytes(file.read_bytes()[:-100])


def rewrite_manifest(bundle: Path, change: Callable[[dict[str, object]], None]) -> None:
    """Change the manifest and record its digest again: well-formed, but not what this agent can use."""
    document = json.loads((bundle / "manifest.json").read_bytes())
    change(document)
    content = json.dumps(document).encode()
    (bundle / "manifest.json").write_bytes(content)
    (bundle / "manifest.sha256").write_text(hashlib.sha256(content).hexdigest() + "  manifest.json\n")


def from_the_future(bundle: Path) -> None:
    """A format version this agent does not know."""
    rewrite_manifest(bundle, lambda document: document.update(format_version=99))


def with_unknown_feature(bundle: Path) -> None:
    """A feature this agent cannot supply."""
    rewrite_manifest(bundle, lambda document: document["features"][0].update(name="gpu_busy_ratio"))  # type: ignore[index]


def with_escaping_file(bundle: Path) -> None:
    """A file outside the bundle's directory."""

    def change(document: dict[str, object]) -> None:
        files = document["files"]
        assert isinstance(files, dict)
        files["../../etc/passwd"] = {"size": 10, "sha256": "0" * 64}

    rewrite_manifest(bundle, change)


def test_the_wheel_holds_exactly_the_three_packages_the_starter_bundle_and_the_manual(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    beside = {name.partition(".data/data/")[2] for name in names if ".data/" in name}
    assert beside == {
        "share/man/man1/anomaly-agent.1",
        "share/bash-completion/completions/anomaly-agent",
        "share/zsh/site-functions/_anomaly-agent",
    }
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name and ".data/" not in name}
    assert tops == {"node_anomaly_core", "node_anomaly_agent", "node_anomaly_trainer"}
    assert "node_anomaly_core/starter/manifest.json" in names
    assert "node_anomaly_trainer/backtest/shipped/alerts.yml" in names
    assert not [name for name in names if "__pycache__" in name or "/tests/" in name or "/test_" in name]


def test_a_node_has_nothing_of_the_training_stack(node: Path) -> None:
    probe = "import importlib.util as u, sys; print([n for n in sys.argv[1:] if u.find_spec(n)])"
    found = run(node / "python", "-c", probe, *TRAINING_STACK)
    assert found.stdout.strip() == "[]", found.stdout + found.stderr


def test_the_trainer_command_on_a_node_names_the_extra_to_install(node: Path) -> None:
    done = run(node / "anomaly-trainer", "train")
    assert done.returncode != 0
    assert "pip install '.[trainer]'" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_the_starter_bundle_in_the_wheel_verifies_on_a_node(node: Path) -> None:
    where = "from node_anomaly_core.bundle import starter_bundle; print(starter_bundle())"
    path = run(node / "python", "-c", where).stdout.strip()
    done = run(node / "anomaly-agent", "bundle", "verify", path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.strip().splitlines()) == 1


def test_once_without_a_running_agent_shows_values_but_gives_no_verdict(node: Path, tmp_path: Path) -> None:
    done = run(node / "anomaly-agent", "--once", "--output=json", f"--state.directory={tmp_path}")
    assert done.returncode == 3, done.stderr
    answer = json.loads(done.stdout)
    assert answer["score"] is None
    assert {feature["feature"] for feature in answer["features"]} >= {"cpu_busy_ratio"}


def test_the_live_scrape_is_clean_and_other_paths_are_not_metrics(agent: rig.Service) -> None:
    seen = until(agent, lambda s: s["anomaly_agent_evaluations_total"] >= 3, "a third evaluation")
    assert rig.lint_metrics(seen.text) == ""
    assert seen["anomaly_agent_warm"] == 0
    assert "anomaly_score" not in seen, "a score that means 'do not know'"
    assert rig.fetch(f"{agent.url}/-/healthy")[0] == 200
    assert rig.fetch(f"{agent.url}/")[0] == 200
    assert rig.fetch(f"{agent.url}/anything-else")[0] == 404


def test_bundles_are_reloaded_or_refused_and_no_tick_is_lost(agent: rig.Service, bundles: Path) -> None:
    """One life of an agent: starter, published bundle, five bad ones, a good one again, SIGTERM."""
    before = scrape(agent)
    started, first = time.monotonic(), before["anomaly_agent_evaluations_total"]

    good = publish(bundles, trained_at=1_700_000_000.0)
    seen = until(agent, lambda s: s.bundle() == {good}, "the published bundle")
    assert seen["anomaly_agent_bundle_reloads_total"] == 1
    assert seen["anomaly_agent_bundle_last_reload_successful"] == 1
    assert rig.lint_metrics(seen.text) == ""

    for damage, reason in (
        (flip_a_bit, "digest"),
        (truncate, "size"),
        (from_the_future, "format"),
        (with_unknown_feature, "features"),
        (with_escaping_file, "path"),
    ):
        publish_damaged(bundles, good, damage)
        seen = until_refused(agent, reason)
        assert seen.bundle() == {good}, f"{reason}: the good bundle was dropped"
        assert seen["anomaly_agent_bundle_last_reload_successful"] == 0

    again = publish(bundles, trained_at=1_700_000_001.0)
    seen = until(agent, lambda s: s.bundle() == {again}, "the next good bundle")
    assert seen["anomaly_agent_bundle_last_reload_successful"] == 1

    seen = until(agent, lambda s: "anomaly_score" in s, "a score", seconds=120)
    expected = first + (time.monotonic() - started) / INTERVAL_S
    assert abs(sum(v for k, v in seen.items() if "contribution_ratio" in k) - 1) < 1e-6
    assert rig.lint_metrics(seen.text) == ""
    assert seen["anomaly_agent_evaluations_total"] >= expected - 2
    assert seen.lost_ticks() == 0

    assert agent.stop() < 1.0
    assert agent.process.returncode == 0
    assert "Traceback" not in agent.output()


def test_a_restarted_agent_goes_on_from_its_saved_state(node: Path, bundles: Path, tmp_path: Path) -> None:
    """Warm before a restart, warm at the first evaluation after it."""
    command: list[str | Path] = [
        node / "anomaly-agent",
        f"--interval={INTERVAL_S}s",
        f"--state.directory={tmp_path / 'state'}",
        f"--bundle.directory={bundles}",
    ]
    port = rig.free_port()
    listen = f"--web.listen-address=127.0.0.1:{port}"
    with rig.service("first", [*command, listen], port, "/-/ready", tmp_path) as agent:
        until(agent, lambda s: "anomaly_score" in s, "a score", seconds=120)
    with rig.service("second", [*command, listen], port, "/-/ready", tmp_path) as agent:
        seen = until(agent, lambda s: s["anomaly_agent_evaluations_total"] >= 1, "an evaluation")
        assert seen["anomaly_agent_warm"] == 1
