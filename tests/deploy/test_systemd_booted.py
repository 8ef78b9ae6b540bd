"""The shipped units under a real, booted systemd: installed by the shipped script, as an operator would."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator

import pytest

from booted import Booted, booted_systemd

AGENT, SOCKET = "node-anomaly-agent.service", "node-anomaly-agent.socket"
PROGRAM = f"""#!/bin/sh
PYTHONPATH=/opt/src/agent:/opt/src/core:/opt/src/trainer:/opt/venv/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages
export PYTHONPATH LD_LIBRARY_PATH=/opt/python/lib PYTHONDONTWRITEBYTECODE=1
exec /opt/python/bin/python3 -m node_anomaly_agent "$@"
"""
REAL_TRAINER = PROGRAM.replace("node_anomaly_agent", "node_anomaly_trainer")
TRAINER = "/opt/node-anomaly/bin/anomaly-trainer"
INSTALL = ("/opt/src/scripts/install_systemd.sh", "install", "agent", "--files-only")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    """With the agent installed and started at a tick of 0.2 s; each test leaves it running."""
    with booted_systemd(tmp_path_factory.mktemp("booted")) as system:
        system.write("/opt/node-anomaly/bin/anomaly-agent", PROGRAM, 0o755)
        system.run(*INSTALL)
        system.write("/etc/node-anomaly/agent.env", "AGENT_OPTIONS=--interval=200ms --log.format=json\n")
        system.run("systemctl", "enable", "--now", AGENT)
        yield system


def get(machine: Booted, path: str) -> str:
    """What the agent's port answers inside the machine."""
    return machine.run("curl", "--silent", "--show-error", "--max-time", "15", f"http://127.0.0.1:9917{path}")


def series(scrape: str, name: str) -> dict[str, float]:
    """The samples of one metric by their labels."""
    return {
        m[1] or "": float(m[2]) for m in re.finditer(rf"^{name}(\{{.*?\}})? (\S+)$", scrape, re.MULTILINE)
    }


def journal(machine: Booted) -> str:
    """What the agent has logged."""
    return machine.run("journalctl", "--no-pager", "--output=cat", "--unit", AGENT)


def test_the_start_ends_when_a_first_evaluation_is_served(machine):
    assert machine.show(AGENT, "ActiveState", "SubState", "Type") == ["active", "running", "notify"]
    assert get(machine, "/-/ready") == "ready\n"
    [status] = machine.show(AGENT, "StatusText")
    assert re.search(r"^(warming up|score).*; bundle \w+ \(starter\)$", status), status


def test_it_runs_as_its_own_user_without_any_capability(machine):
    [pid] = machine.show(AGENT, "MainPID")
    status = machine.run("cat", f"/proc/{pid}/status")
    uid = int(machine.run("id", "-u", "node-anomaly"))
    assert uid > 0
    assert re.search(rf"^Uid:\t{uid}\t{uid}\t", status, re.MULTILINE)
    assert re.findall(r"^Cap(?:Prm|Eff|Bnd|Amb):\t(\w+)$", status, re.MULTILINE) == ["0" * 16] * 4
    assert re.search(r"^NoNewPrivs:\t1$", status, re.MULTILINE)
    groups = {machine.run("getent", "group", group).split(":")[2] for group in ("adm", "systemd-journal")}
    assert groups <= set(re.findall(r"\d+", re.findall(r"^Groups:.*$", status, re.MULTILINE)[0]))


def test_hardened_it_sees_what_it_sees_as_root(machine):
    """The same features, collectors and log sources as a run without any of the unit's restrictions."""
    machine.run(
        *("systemd-run", "--unit=unhardened", "/opt/node-anomaly/bin/anomaly-agent", "--interval=200ms"),
        *("--web.listen-address=127.0.0.1:9918", "--state.directory=/tmp/unhardened"),
    )
    ready = ("curl", "-s", "http://127.0.0.1:9918/-/ready")
    machine.until("the agent without restrictions", *ready, holds="ready\n")
    deadline, free = time.monotonic() + 20, ""
    while sum(series(free, "anomaly_agent_evaluations_total").values()) < 20:  # so that rates are known
        assert time.monotonic() < deadline, free
        time.sleep(0.2)
        free = machine.run("curl", "-s", "http://127.0.0.1:9918/metrics")
    hardened = get(machine, "/metrics")
    machine.run("systemctl", "stop", "unhardened")
    for name in ("anomaly_agent_collector_success", "anomaly_agent_log_source_success"):
        assert series(hardened, name) == series(free, name)
    assert series(hardened, "anomaly_agent_log_source_success")
    known = [set(series(text, "anomaly_feature_value")) for text in (hardened, free)]
    assert known[0] == known[1]
    for feature in ("filesystem_readonly_count", "filesystem_fullest_ratio"):
        label = f'{{feature="{feature}"}}'
        values = [series(text, "anomaly_feature_value").get(label) for text in (hardened, free)]
        assert values[1] is not None
        assert values[0] == pytest.approx(values[1], abs=1e-3), feature


def test_lines_of_the_journal_are_counted(machine):
    before = series(get(machine, "/metrics"), "anomaly_agent_log_lines_total")
    machine.run("sh", "-c", "for i in $(seq 200); do echo disk is failing; done | systemd-cat -p err")
    time.sleep(1.0)
    after = series(get(machine, "/metrics"), "anomaly_agent_log_lines_total")
    assert sum(after.values()) - sum(before.values()) >= 200


def test_a_reload_looks_for_a_bundle_and_the_unit_is_active_again_when_it_is_done(machine):
    earlier = journal(machine).count("bundle refused")
    machine.run("systemctl", "reload", AGENT)
    machine.until("what came of it", "journalctl", "-o", "cat", "-u", AGENT, holds="holds no bundle")
    assert journal(machine).count("bundle refused") == earlier, "nobody has given it one to refuse"
    deadline = time.monotonic() + 5
    while machine.show(AGENT, "ActiveState") != ["active"] and time.monotonic() < deadline:
        time.sleep(0.1)
    assert machine.show(AGENT, "ActiveState", "NRestarts") == ["active", "0"]


def test_a_loop_that_hangs_is_killed_started_anew_and_goes_on_from_its_state(machine):
    machine.write(
        f"/etc/systemd/system/{AGENT}.d/test.conf",
        "[Service]\nWatchdogSec=2s\nTimeoutAbortSec=1s\nRestartSec=100ms\n",
    )
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", AGENT)
    [before] = machine.show(AGENT, "MainPID")
    time.sleep(3.0)
    assert machine.show(AGENT, "MainPID", "NRestarts") == [before, "0"], "a healthy agent was killed"
    machine.run("kill", "-STOP", before)
    show = ("systemctl", "show", AGENT, "--property=NRestarts,ActiveState")
    machine.until("the restart by the watchdog", *show, holds="NRestarts=1", seconds=15)
    assert "Watchdog timeout" in machine.run("journalctl", "--no-pager", "-u", AGENT)
    # Who asks while it starts anew waits in the socket instead of being refused.
    assert get(machine, "/-/healthy") == "healthy\n"
    assert machine.show(AGENT, "MainPID") != [before]
    assert "continuing from the saved state" in journal(machine)
    [after] = machine.show(AGENT, "MainPID")
    machine.run("kill", "-ABRT", after)  # what the watchdog sends; a stopped process had no say in it
    where = ("journalctl", "--no-pager", "-o", "cat", "-u", AGENT)
    assert "in wait" in machine.until("where it hung", *where, holds="Fatal Python error: Aborted")
    machine.until("the next process", "curl", "-s", "http://127.0.0.1:9917/-/ready", holds="ready\n")
    assert machine.run("stat", "--format=%U %a", "/var/lib/node-anomaly").split() == ["node-anomaly", "750"]


def test_a_stop_is_quick_and_the_next_scrape_starts_it_while_the_socket_listens(machine):
    begun = time.monotonic()
    machine.run("systemctl", "stop", AGENT)
    assert time.monotonic() - begun < 5
    assert machine.show(AGENT, "ActiveState", "Result") == ["inactive", "success"]
    assert machine.show(SOCKET, "ActiveState") == ["active"]
    assert get(machine, "/-/healthy") == "healthy\n"
    machine.until("the agent", "systemctl", "is-active", AGENT, holds="active\n")


def test_it_cannot_open_a_connection_unless_the_drop_in_allows_it(machine):
    """A node that asks nobody for bundles needs none; with network.conf it may."""
    assert machine.show(AGENT, "RestrictAddressFamilies") == ["AF_UNIX"]
    settings = "bundle: {url: 'https://127.0.0.1:1/bundles', fetch-interval: 10s}\n"
    machine.write("/etc/node-anomaly/agent.yml", settings)
    machine.run("systemctl", "restart", AGENT)
    log = ("journalctl", "--no-pager", "-o", "cat", "-u", AGENT)
    machine.until("why nothing is fetched", *log, holds="network.conf", seconds=30)
    machine.run(
        *("install", "-D", "-m", "644", "/opt/node-anomaly/share/doc/node-anomaly/network.conf"),
        f"/etc/systemd/system/{AGENT}.d/network.conf",
    )
    machine.write("/etc/node-anomaly/agent.yml", "{}\n")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", AGENT)
    [families] = machine.show(AGENT, "RestrictAddressFamilies")
    assert set(families.split()) == {"AF_UNIX", "AF_INET", "AF_INET6"}


def test_a_wrong_setting_stands_in_the_journal_with_its_remedy(machine):
    machine.write("/etc/node-anomaly/agent.env", "AGENT_OPTIONS=--interval=200ms --log.level=loud\n")
    machine.run("systemctl", "restart", AGENT, check=False)
    machine.until("the reason", "journalctl", "--no-pager", "-o", "cat", "-u", AGENT, holds="log.level")
    machine.write("/etc/node-anomaly/agent.env", "AGENT_OPTIONS=--interval=200ms\n")
    machine.run("systemctl", "reset-failed", AGENT, check=False)
    machine.run("systemctl", "restart", AGENT)


@pytest.fixture(scope="class")
def trainer(machine: Booted) -> Iterator[Booted]:
    """The machine with the trainer's units too; what they start is up to each test."""
    machine.write(TRAINER, "#!/bin/sh\nexit 1\n", 0o755)
    machine.run("/opt/src/scripts/install_systemd.sh", "install", "trainer", "--files-only")
    # The machine has no network that could come up; its target would be waited for.
    waits = ("systemd-networkd-wait-online", "ifupdown-wait-online", "NetworkManager-wait-online")
    machine.run("systemctl", "mask", "--runtime", *(f"{wait}.service" for wait in waits))
    yield machine
    machine.run("/opt/src/scripts/install_systemd.sh", "uninstall", "trainer", "--purge")


class TestTrainer:
    @pytest.mark.parametrize(("unit", "verb"), [("trainer", "train"), ("drift", "drift")])
    @pytest.mark.parametrize(("code", "well"), [(3, True), (1, False)])
    def test_a_refusal_by_the_gate_and_drift_are_no_failed_units(self, unit, verb, code, well, trainer):
        """A stand-in ends as the trainer does; a whole training run takes minutes."""
        trainer.write(TRAINER, f'#!/bin/sh\necho "$@" > ran-{unit}\nexit {code}\n', 0o755)
        done = trainer.run("sh", "-c", f"systemctl start node-anomaly-{unit}; echo ends with $?")
        assert ("ends with 0" in done) == well, done
        ran = f"/var/lib/node-anomaly-trainer/ran-{unit}"
        assert trainer.run("stat", "--format=%U", ran).strip() == "node-anomaly-trainer"
        assert trainer.run("cat", ran).strip() == f"{verb} --config /etc/node-anomaly/trainer.yml"

    def test_what_people_type_works_as_the_units_do(self, trainer):
        """As its user, in its directory, with its environment, which may hold spaces, and its settings."""
        shown = "id -un; pwd; echo $HOME; echo $ANOMALY_TRAINER_CONFIG; echo $PROMETHEUS_URL; echo $SPACES"
        trainer.write(TRAINER, f'#!/bin/sh\n{shown}; echo "$@"\n', 0o755)
        trainer.write(
            "/etc/node-anomaly/trainer.env",
            "# a comment\nPROMETHEUS_URL=http://prometheus:9090\nSPACES=--seed 3 --jobs 2\n=\nnot a line\n",
        )
        home = "/var/lib/node-anomaly-trainer"
        assert trainer.run("anomaly-trainer", "rollback", "--to", "a b").splitlines() == [
            *("node-anomaly-trainer", home, home, "/etc/node-anomaly/trainer.yml"),
            *("http://prometheus:9090", "--seed 3 --jobs 2", "rollback --to a b"),
        ]
        refused = trainer.run(
            *("setpriv", "--reuid=65534", "--clear-groups", "sh", "-c", "anomaly-trainer rollback 2>&1 || :")
        )
        assert "try: the same with sudo" in refused

    @pytest.mark.parametrize(("unit", "within_days"), [("trainer", 7), ("drift", 1)])
    def test_a_timer_that_is_enabled_starts_its_unit_and_waits_for_the_next_time(
        self, unit, within_days, trainer
    ):
        timer, ran = f"node-anomaly-{unit}.timer", f"/var/lib/node-anomaly-trainer/by-timer-{unit}"
        trainer.write(TRAINER, f"#!/bin/sh\ntouch {ran}\n", 0o755)
        trainer.run("systemctl", "enable", "--now", timer)
        assert trainer.show(timer, "ActiveState", "Triggers") == ["active", f"node-anomaly-{unit}.service"]
        [due] = trainer.show(timer, "NextElapseUSecRealtime")
        seconds = int(trainer.run("date", "--date", due, "+%s")) - int(trainer.run("date", "+%s"))
        assert 0 < seconds <= within_days * 86400 + 3600  # and the hour of RandomizedDelaySec
        assert trainer.run("sh", "-c", f"test -e {ran} || echo not yet") == "not yet\n"
        now = "[Timer]\nOnActiveSec=100ms\nAccuracySec=10ms\nRandomizedDelaySec=0\n"
        trainer.write(f"/etc/systemd/system/{timer}.d/now.conf", now)
        trainer.run("systemctl", "daemon-reload")
        trainer.run("systemctl", "restart", timer)
        trainer.until("the run", "sh", "-c", f"test -e {ran} && echo ran", holds="ran")
        trainer.run("systemctl", "disable", "--now", timer)

    def test_the_real_drift_runs_in_its_unit_and_says_what_it_lacks(self, trainer):
        """As on the day after installing: nothing has been published yet. It is no traceback."""
        trainer.write(TRAINER, REAL_TRAINER, 0o755)
        trainer.run("systemctl", "start", "node-anomaly-drift", check=False)
        said = trainer.run("journalctl", "--no-pager", "--output=cat", "--unit", "node-anomaly-drift")
        assert "Traceback" not in said
        assert "Error: nothing is published in " in said, said
        assert "Try: train first" in said


def test_installing_again_keeps_settings_and_uninstalling_leaves_no_unit(machine):
    """Runs last: the machine is without the agent afterwards."""
    machine.write("/etc/node-anomaly/agent.yml", "interval: 1s\n")
    assert "kept      /etc/node-anomaly/agent.yml" in machine.run(*INSTALL)
    assert machine.run("cat", "/etc/node-anomaly/agent.yml") == "interval: 1s\n"
    assert machine.show(AGENT, "ActiveState") == ["active"]
    machine.run("/opt/src/scripts/install_systemd.sh", "uninstall", "agent")
    assert machine.show(AGENT, "LoadState") == ["not-found"]
    assert machine.show(SOCKET, "LoadState") == ["not-found"]
    assert machine.run("ls", "/etc/node-anomaly", "/var/lib/node-anomaly").count("agent.") >= 3
    assert machine.run("ls", "/etc/systemd/system").count("node-anomaly-agent.s") == 1, "only the drop-ins"
    machine.run("/opt/src/scripts/install_systemd.sh", "uninstall", "agent", "--purge")
    left = machine.run("find", "/etc", "/var/lib", "-path", "*node-anomaly*", check=False)
    assert not left.strip()


def test_the_agents_log_is_json_that_journald_keeps_whole(machine):
    lines = [line for line in journal(machine).splitlines() if line.startswith("{")]
    assert any(json.loads(line)["event"] == "started" for line in lines)
