"""The units, their exposure, and a staged installation: what needs no booted systemd."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import rig

ANALYZE = rig.Part("systemd-analyze", ("systemd-analyze",), "systemd")
SHELLCHECK = rig.Part("shellcheck", ("shellcheck",), "shellcheck")
EXPOSURE = {
    "node-anomaly-agent.service": 1.5,
    "node-anomaly-drift.service": 1.5,
    "node-anomaly-trainer.service": 1.5,
}
"""systemd-analyze's level, from 0 (nothing exposed) to 10."""

Install = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def install(repository: Path, tmp_path: Path) -> Install:
    """The script, staging below tmp_path/stage unless told otherwise."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(repository / "scripts" / "install_systemd.sh"), *arguments],
            env={"PATH": os.environ["PATH"], "DESTDIR": str(tmp_path / "stage"), **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}


@pytest.mark.parametrize("unit", sorted(EXPOSURE))
def test_a_service_is_exposed_no_more_than_it_promises(unit, repository, tmp_path):
    shutil.copy(repository / "systemd" / unit, tmp_path)
    command = [rig.need(ANALYZE), "security", "--offline=true", "--no-pager", f"{tmp_path / unit}"]
    done = subprocess.run(
        [*command, f"--threshold={EXPOSURE[unit] * 10:.0f}"], capture_output=True, text=True, check=False
    )
    level = re.search(r"Overall exposure level for .*: ([0-9.]+)", done.stdout)
    assert level is not None, done.stdout + done.stderr
    assert done.returncode == 0, done.stdout
    assert float(level[1]) <= EXPOSURE[unit]


def test_systemd_finds_no_fault_in_the_units_as_they_are_installed(install, tmp_path):
    prefix = tmp_path / "programs"
    (prefix / "bin").mkdir(parents=True)
    for program in ("anomaly-agent", "anomaly-trainer"):
        (prefix / "bin" / program).write_text("#!/bin/sh\n")
        (prefix / "bin" / program).chmod(0o755)
    for component in ("agent", "trainer"):
        assert install("install", component, "--files-only", PREFIX=str(prefix)).returncode == 0
    units = sorted(str(path) for path in (tmp_path / "stage/etc/systemd/system").iterdir())
    assert len(units) == 6
    done = subprocess.run(
        [str(rig.need(ANALYZE)), "verify", "--man=no", *units], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("component", ["agent", "trainer"])
def test_a_staged_installation_is_complete_repeatable_and_gone_after_its_removal(
    component, install, tmp_path
):
    stage = tmp_path / "stage"
    assert install("install", component, "--files-only").returncode == 0
    first = files(stage)
    extra = {
        "agent": {"node-anomaly-agent.socket"},
        "trainer": {"node-anomaly-trainer.timer", "node-anomaly-drift.service", "node-anomaly-drift.timer"},
    }[component]
    units = {f"node-anomaly-{component}.service", *extra}
    assert {Path(name).name for name in first if "systemd/system" in name} == units
    settings = stage / "etc" / "node-anomaly" / f"{component}.yml"
    settings.write_text("# mine\n")
    again = install("install", component, "--files-only")
    assert f"kept      /etc/node-anomaly/{component}.yml" in again.stdout
    assert files(stage) == first
    assert settings.read_text() == "# mine\n"
    assert install("uninstall", component).returncode == 0
    assert files(stage) == {f"etc/node-anomaly/{component}.{kind}" for kind in ("yml", "env")}
    assert install("uninstall", component, "--purge").returncode == 0
    assert install("uninstall", component).returncode == 0
    assert files(stage) == set()


def test_what_people_type_is_on_their_path_unless_something_else_is(install, tmp_path):
    commands = tmp_path / "stage/usr/local/bin"
    for component in ("agent", "trainer"):
        install("install", component, "--files-only", PREFIX="/opt/elsewhere")
    assert (commands / "anomaly-agent").readlink() == Path("/opt/elsewhere/bin/anomaly-agent")
    script = (commands / "anomaly-trainer").read_text()
    assert "/opt/elsewhere/bin/anomaly-trainer" in script
    assert "/opt/node-anomaly" not in script
    for component in ("agent", "trainer"):
        assert install("uninstall", component, PREFIX="/opt/elsewhere").returncode == 0
        (commands / f"anomaly-{component}").write_text("#!/bin/sh\n# somebody's own\n")
        done = install("install", component, "--files-only")
        assert "which is not of this installation" in done.stdout
        assert install("uninstall", component, "--purge").returncode == 0
        assert "somebody's own" in (commands / f"anomaly-{component}").read_text()


def test_commands_may_go_where_sudo_finds_them(install, tmp_path):
    """As docs/on-call.md has it for hosts whose secure_path leaves /usr/local/bin out."""
    for component in ("agent", "trainer"):
        assert install("install", component, "--files-only", BINDIR="/usr/bin").returncode == 0
        assert os.path.lexists(tmp_path / "stage/usr/bin" / f"anomaly-{component}")


def test_a_package_may_leave_the_path_alone(install, tmp_path):
    install("install", "agent", "--files-only", BINDIR="")
    assert not (tmp_path / "stage/usr").exists()


def test_removing_one_component_leaves_the_other_whole(install, tmp_path):
    for component in ("agent", "trainer"):
        install("install", component, "--files-only")
    before = {name for name in files(tmp_path / "stage") if "trainer" in name}
    install("uninstall", "agent", "--purge")
    assert {name for name in files(tmp_path / "stage") if "trainer" in name} == before
    assert any(name.endswith("install-systemd.md") for name in files(tmp_path / "stage"))


@pytest.mark.parametrize(
    ("arguments", "environment", "says"),
    [
        (("install", "agent"), {"PREFIX": "/usr"}, "holds other programs too"),
        (("install", "agent"), {"PREFIX": "opt"}, "is not absolute"),
        (("install", "agent"), {"PREFIX": "/opt/a b"}, "characters"),
        (("install", "agent"), {"PYTHON": "no-such-python"}, "no-such-python is not there"),
        (("install", "nothing"), {}, "usage:"),
        (("install", "agent", "--force"), {}, "usage:"),
        ((), {}, "usage:"),
    ],
)
def test_a_wrong_call_says_what_is_wrong_and_changes_nothing(arguments, environment, says, install, tmp_path):
    done = install(*arguments, **environment)
    assert done.returncode != 0
    assert says in done.stdout + done.stderr
    assert not (tmp_path / "stage").exists()


def test_a_python_that_the_service_could_not_read_is_refused_before_anything_is_installed(install, tmp_path):
    """That of pyenv in root's home, which is first on many a PATH."""
    python = tmp_path / "python3"
    python.write_text('#!/bin/sh\ncase "$*" in *base_prefix*) echo /root/.pyenv/versions/3.12.1 ;; esac\n')
    python.chmod(0o755)
    done = install("install", "agent", PYTHON=str(python))
    assert done.returncode != 0
    assert "home directory" in done.stderr
    assert not (tmp_path / "stage").exists()


def test_programs_that_the_script_did_not_install_are_never_overwritten_or_removed(install, tmp_path):
    own = tmp_path / "stage" / "opt" / "node-anomaly" / "bin" / "anomaly-agent"
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    refused = install("install", "agent")
    assert "was not made by this script" in refused.stderr
    install("install", "agent", "--files-only")
    install("uninstall", "agent", "--purge")
    assert own.read_text() == "mine"


def test_shell_scripts_are_clean(repository):
    folders = ("scripts", "daemonset", "systemd")
    scripts = sorted(file for folder in folders for file in (repository / folder).glob("*.sh"))
    done = subprocess.run(
        [str(rig.need(SHELLCHECK)), *map(str, scripts)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_every_file_that_a_unit_names_is_one_that_the_script_installs(install, repository, tmp_path):
    for component in ("agent", "trainer"):
        install("install", component, "--files-only")
    stage = tmp_path / "stage"
    for unit in (repository / "systemd").glob("*.service"):
        parser = configparser.ConfigParser(strict=False, interpolation=None)
        parser.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's keys have capitals
        parser.read_string(unit.read_text())
        named = re.findall(r"(/(?:etc|opt)/node-anomaly/[\w./-]+)", unit.read_text())
        for path in set(named):
            assert "/bin/" in path or (stage / path.lstrip("/")).is_file(), path
        user = parser["Service"]["User"]
        assert any(f"u {user} " in conf.read_text() for conf in (stage / "etc" / "sysusers.d").iterdir())
