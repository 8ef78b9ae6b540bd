"""Dockerfiles and the demo's compose file: what can be held without a builder and without a registry."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

import cluster
import rig
from node_anomaly_agent.cli import build_parser
from node_anomaly_trainer.config import load_config

IMAGES = ("agent", "trainer")
PROGRAMS = Path(sys.executable).parent


@pytest.fixture(params=IMAGES)
def dockerfile(request: pytest.FixtureRequest, repository: Path) -> tuple[str, str]:
    """The component, and its file without line continuations."""
    text = (repository / "images" / f"{request.param}.Dockerfile").read_text()
    return request.param, text.replace("\\\n", " ")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((rig.REPOSITORY / "compose.yaml").read_text())
    return found


def test_hadolint_finds_nothing(repository):
    files = sorted(map(str, (repository / "images").glob("*.Dockerfile")))
    assert len(files) == len(IMAGES)
    done = subprocess.run([PROGRAMS / "hadolint", *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_an_image_is_not_root_says_what_it_is_and_can_be_asked(dockerfile):
    component, text = dockerfile
    last = text[text.rindex("\nFROM ") :]
    assert "\nUSER 65534:65534\n" in last
    assert re.search(r"^HEALTHCHECK .*-/healthy|^HEALTHCHECK NONE$", last, re.MULTILINE | re.DOTALL)
    for label in ("title", "description", "licenses", "version", "revision"):
        assert f"org.opencontainers.image.{label}=" in last
    project = tomllib.loads((rig.REPOSITORY / "pyproject.toml").read_text())["project"]
    assert f'ENTRYPOINT ["anomaly-{component}"]' in last
    assert f"anomaly-{component}" in project["scripts"]
    assert f"ARG VERSION={project['version']}" in last


def test_everything_that_is_installed_is_pinned_by_hash_or_is_the_wheel_just_built(dockerfile):
    _, text = dockerfile
    installs = re.findall(r"-m pip install ([^&\n]*)", text)
    assert len(installs) == 3
    for arguments in installs:
        assert "--require-hashes" in arguments or "/wheel/*.whl" in arguments


def test_an_image_holds_the_bill_of_what_its_lock_file_installs(dockerfile, repository):
    component, text = dockerfile
    where = "/usr/share/node-anomaly/sbom.cdx.json"
    assert f"COPY requirements/{component}.cdx.json {where}\n" in text
    assert f'node-anomaly.sbom="{where}"' in text
    bill = json.loads((repository / "requirements" / f"{component}.cdx.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    assert bill["metadata"]["component"]["name"] == f"node-anomaly-{component}"
    locked = (repository / "requirements" / f"{component}.txt").read_text()
    pinned = re.findall(r"^([a-z0-9._-]+)==([^\s;\\]+)", locked, re.MULTILINE)
    assert [one["purl"] for one in bill["components"]] == [f"pkg:pypi/{n}@{v}" for n, v in sorted(pinned)]


def test_the_bills_are_what_the_lock_files_give(repository):
    command = [sys.executable, repository / "scripts" / "sbom.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_what_is_copied_exists_and_reaches_the_builder(dockerfile, repository):
    _, text = dockerfile
    kept = {
        line[1:] for line in (repository / ".dockerignore").read_text().splitlines() if line.startswith("!")
    }
    copied = [
        source
        for sources in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE)
        for source in sources.split()[:-1]
    ]
    assert copied
    for source in copied:
        assert (repository / source).exists()
        assert source.split("/")[0] in kept


def test_the_wheel_can_be_built_from_nothing_but_what_is_copied(dockerfile, repository, tmp_path):
    """As the image's build stage does; a file that pyproject.toml names and no COPY brings fails here."""
    component, text = dockerfile
    for sources in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE):
        *names, target = sources.split()
        if target.startswith("/"):
            continue
        for name in names:
            place = tmp_path / "src" / target / (Path(name).name if target.endswith("/") else "")
            place.parent.mkdir(parents=True, exist_ok=True)
            if (repository / name).is_dir():
                without = shutil.ignore_patterns("__pycache__")
                shutil.copytree(repository / name, place, dirs_exist_ok=True, ignore=without)
            else:
                shutil.copy(repository / name, place)
    asked = re.search(r"-m pip (wheel .*?) \.", text)
    assert asked is not None
    command = [sys.executable, "-m", "pip", *asked[1].replace("/wheel", str(tmp_path / "wheel")).split(), "."]
    done = subprocess.run(
        command, cwd=tmp_path / "src", capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [wheel] = (tmp_path / "wheel").iterdir()
    with zipfile.ZipFile(wheel) as archive:
        files = set(archive.namelist())
    assert f"node_anomaly_{component}/__main__.py" in files
    assert "node_anomaly_trainer/backtest/shipped/alerts.yml" in files


def test_the_compose_file_is_one(repository):
    command = [PROGRAMS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run(
        [*command, repository / "compose.yaml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_what_the_demo_mounts_exists_and_its_ports_are_this_machines_alone(compose, repository):
    for name, service in compose["services"].items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./"):
                assert (repository / source).exists(), f"{name} mounts {source}"
            elif not source.startswith("/"):
                assert source in compose["volumes"]
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        assert ":latest" not in service["image"]


def test_the_demos_agent_and_trainer_take_their_arguments_and_have_no_rights(compose, repository):
    services = compose["services"]
    build_parser().parse_args(services["agent"]["command"])
    load_config(repository / "scripts" / "run-trainer.yml")
    published = services["trainer"]["command"][services["trainer"]["command"].index("--publish") + 1]
    assert f"--bundle.directory={published}" in services["agent"]["command"]
    pod = cluster.pod_spec(cluster.one(cluster.overlay("plain"), "DaemonSet"))
    groups = [str(group) for group in pod["securityContext"]["supplementalGroups"]]
    assert services["agent"]["group_add"] == groups
    for name in IMAGES:
        assert services[name]["cap_drop"] == ["ALL"]
        assert services[name]["read_only"] is True
        assert services[name]["user"] == "65534:65534"


def test_grafana_finds_the_dashboards_where_their_provisioning_says(compose, repository):
    mounts = dict(volume.split(":")[:2] for volume in compose["services"]["grafana"]["volumes"])
    [provider] = yaml.safe_load((repository / "dashboards" / "provisioning.yml").read_text())["providers"]
    assert mounts["./dashboards"] == provider["options"]["path"]
    assert mounts["./dashboards/provisioning.yml"].startswith("/etc/grafana/provisioning/dashboards/")


def test_prometheus_takes_the_demos_configuration(compose, repository, tmp_path):
    """With the rules where the compose file mounts them."""
    text = (repository / "images" / "compose" / "prometheus.yml").read_text()
    for volume in compose["services"]["prometheus"]["volumes"]:
        source, target = volume.split(":")[:2]
        if "/rules/" in target:
            place = tmp_path / target.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(repository / source, place)
    configuration = tmp_path / "prometheus.yml"
    configuration.write_text(text.replace("/etc/prometheus/", f"{tmp_path}/etc/prometheus/"))
    done = subprocess.run(
        [rig.need(rig.PROMTOOL), "check", "config", configuration],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("rules found") == 2
    jobs = {job["job_name"] for job in yaml.safe_load(text)["scrape_configs"]}
    assert yaml.safe_load((repository / "rules" / "settings.yml").read_text())["job"] in jobs
