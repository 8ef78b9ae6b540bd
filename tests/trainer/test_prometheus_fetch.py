"""What a run reads and from where: origins of features, a second run, an interrupted one, and the report."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time

import numpy as np
import pytest

import rig
from misbehaving import METRICS, STEP, Misbehaving, always, answer, half, hang, result, then
from node_anomaly_core.errors import SourceError
from node_anomaly_core.features import FEATURES_BY_NAME
from node_anomaly_trainer.config import PrometheusConfig
from node_anomaly_trainer.progress import ignore_report
from node_anomaly_trainer.sources.cache import Cache, Day
from node_anomaly_trainer.sources.prometheus import fill_cache, read_prometheus
from promwrite import write

FEATURES = tuple(
    FEATURES_BY_NAME[name]
    for name in (
        "memory_available_ratio",
        "tcp_established_count",
        "filesystem_readonly_count",
        "forks_per_second",
    )
)
TICKS = 480


def times(start, first=0, stop=TICKS):
    return 1000 * (start + STEP * np.arange(first, stop))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """db-1 has an agent and an exporter; db-2 only an exporter, that is down half of the time."""
    start = (int(time.time()) - STEP * (TICKS + 60)) // STEP * STEP
    with rig.prometheus(tmp_path_factory.mktemp("fleet"), {}) as running:
        many = []
        for feature, first in (("memory_available_ratio", 0), ("forks_per_second", 400)):
            labels = {"__name__": "anomaly_feature_value", "feature": feature, "instance": "db-1:9917"}
            many.append(
                ({**labels, "job": "anomaly-agent"}, times(start, first), np.full(TICKS - first, 0.75))
            )
        for node, stop in (("db-1:9100", TICKS), ("db-2:9100", TICKS // 2)):
            for metric in (*METRICS, "node_netstat_Tcp_CurrEstab", "node_forks_total"):
                labels = {"__name__": metric, "instance": node, "job": "node"}
                many.append((labels, times(start, 0, stop), np.arange(stop) + 1.0))
        many.append(
            (
                {**labels, "instance": "db-1:9100", "job": "other", "__name__": METRICS[0]},
                times(start),
                np.ones(TICKS),
            )
        )
        write(running.url, many)
        yield running, start


def config_of(fleet, **settings):
    server, start = fleet
    settings = {"range": TICKS * STEP, "end": start + (TICKS - 1) * STEP} | settings
    return PrometheusConfig(url=server.url, **settings)


@pytest.fixture(scope="module")
def fetched(fleet, tmp_path_factory):
    notes = []
    directory = tmp_path_factory.mktemp("cache")
    done = fill_cache(config_of(fleet), FEATURES, STEP, directory, ignore_report, notes.append)
    return done, notes, directory


def test_what_is_too_much_is_known_before_any_of_it_is_read(fleet, tmp_path):
    def refuse(nodes, ticks, features):
        raise SourceError(f"{nodes} nodes, {ticks > 0}, {features}")

    with pytest.raises(SourceError, match=rf"^\d+ nodes, True, {len(FEATURES)}$"):
        fill_cache(config_of(fleet), FEATURES, STEP, tmp_path, ignore_report, print, admit=refuse)
    assert list(tmp_path.rglob("*.parquet")) == []


def origins_on(done, node):
    return {one.feature.name: one.source for one in done.survey.wanted if done.survey.reads(node, one)}


def test_what_agents_saw_is_preferred_and_node_exporter_fills_in(fetched):
    done, notes, _ = fetched
    assert origins_on(done, "db-1") == {
        "memory_available_ratio": "anomaly_feature_value",
        "tcp_established_count": "node_exporter",
        "forks_per_second": "node_exporter",
    }
    assert "2 nodes; 1 features from anomaly_feature_value, 3 features from node_exporter" in notes
    assert (
        "agents of 1 nodes (db-1) have less of 1 features (forks_per_second) than node_exporter, "
        "which is taken there"
    ) in notes


def test_a_node_without_an_agent_stays_in_the_history_beside_one_whose_agent_ran_through_it(fetched, fleet):
    done, notes, directory = fetched
    assert set(origins_on(done, "db-2").values()) == {"node_exporter"}
    assert "memory_available_ratio" in origins_on(done, "db-2")
    assert "read from node_exporter alone, without an agent: db-2" in notes
    history = read_prometheus(config_of(fleet, cache=str(directory)), FEATURES, STEP, ignore_report, print)
    assert (history.values[: TICKS // 2, 1, 0] == 1.0).all(), "its exporter says what is available of all"


def test_an_agent_and_an_exporter_of_one_host_are_one_node(fetched, fleet):
    done, _, directory = fetched
    assert tuple(done.survey.instances) == ("db-1", "db-2")
    history = read_prometheus(config_of(fleet, cache=str(directory)), FEATURES, STEP, ignore_report, print)
    assert history.nodes == ("db-1", "db-2")
    assert (history.values[:, 0, 0] == 0.75).all()
    np.testing.assert_array_equal(history.values[:, 0, 1], np.arange(TICKS) + 1.0)
    assert history.origin["from anomaly_feature_value"] == "1 features"


def test_an_exporter_that_was_down_half_of_the_time_is_reported_as_that(fetched):
    done, _, _ = fetched
    assert done.missing[0, 1] == 0.0
    assert done.missing[1, 1] == pytest.approx(0.5 - 20 / TICKS, abs=0.01)  # it is looked back five minutes
    assert (done.missing[:, 2] == 1.0).all()


def test_a_node_that_is_scraped_twice_is_refused_with_what_would_choose_one(fleet, tmp_path):
    features = (FEATURES_BY_NAME["memory_dirty_ratio"], FEATURES_BY_NAME["memory_available_ratio"])
    config = config_of(fleet, matchers='job!="anomaly-agent"', range=20 * STEP)
    with pytest.raises(SourceError) as caught:
        fill_cache(config, features, STEP, tmp_path, ignore_report, print)
    assert str(caught.value).startswith("scraped more than once: db-1:9100: ")
    assert "has 2 series that differ in job (node, other)" in str(caught.value)
    assert caught.value.hint.endswith('for example: job!="anomaly-agent",job!="other"')
    assert list(tmp_path.rglob("*.parquet")) == []


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """A job that was renamed, a node that goes by its address and its name, and two of different worlds."""
    start = (int(time.time()) - STEP * (TICKS + 60)) // STEP * STEP
    with rig.prometheus(tmp_path_factory.mktemp("others"), {}) as running:
        forks = {"__name__": "node_forks_total"}
        uname = {"__name__": "node_uname_info", "instance": "10.0.0.7:9100", "nodename": "web-7"}
        agent = {"__name__": "anomaly_feature_value", "feature": "tcp_established_count"}
        new = ({**forks, "instance": "db-3:9100", "job": "new"}, 190, TICKS)
        whole = [
            {**forks, "instance": "10.0.0.7:9100", "job": "by-address"},
            {**uname, "job": "by-address"},
            {**agent, "instance": "web-7", "job": "by-address"},
            {**forks, "instance": "a-1:9100", "job": "apart"},
            {**agent, "instance": "b-1:9917", "job": "apart"},
            {**forks, "instance": "c-1:9100", "job": "clash"},
            {**forks, "instance": "c-1:9200", "job": "clash"},
            {**agent, "instance": "c-1:9917", "job": "clash"},
        ]
        many = [
            ({**forks, "instance": "db-3:9100", "job": "old"}, 0, 190),
            new,
            *((labels, 0, TICKS) for labels in whole),
        ]
        write(
            running.url,
            [
                (labels, times(start, first, stop), np.arange(first, stop) + 1.0)
                for labels, first, stop in many
            ],
        )
        yield running, start


def filled(others, directory, job):
    notes = []
    features = (FEATURES_BY_NAME["forks_per_second"], FEATURES_BY_NAME["tcp_established_count"])
    config = config_of(others, matchers=f'job=~"{job}"')
    return fill_cache(config, features, STEP, directory, ignore_report, notes.append), notes


def test_a_job_that_was_renamed_within_the_range_is_only_said(others, tmp_path):
    """The old job's series are looked back to for five minutes beside the new one's."""
    done, notes = filled(others, tmp_path, "old|new")
    assert tuple(done.survey.instances) == ("db-3:9100",)
    assert any(line.startswith("scraped more than once for a short time: db-3:9100;") for line in notes)


def test_an_agent_by_name_and_an_exporter_by_address_are_one_node_if_its_kernel_says_so(others, tmp_path):
    done, _ = filled(others, tmp_path, "by-address")
    assert done.survey.instances == {
        "web-7": {"anomaly_feature_value": "web-7", "node_exporter": "10.0.0.7:9100"}
    }
    assert (done.missing < 0.05).all()


def test_hosts_of_two_worlds_are_all_read_and_it_is_said_that_they_may_be_the_same(others, tmp_path):
    done, notes = filled(others, tmp_path, "apart")
    assert tuple(done.survey.instances) == ("a-1", "b-1")
    (said,) = [line for line in notes if line.startswith("no host has both")]
    assert "an agent (b-1) and node_exporter (a-1): if these are the same hosts under two names" in said


def test_two_exporters_on_one_host_cannot_be_joined_with_its_agent_and_stay_nodes_of_their_own(
    others, tmp_path
):
    done, notes = filled(others, tmp_path, "clash")
    assert tuple(done.survey.instances) == ("c-1:9100", "c-1:9200", "c-1:9917")
    assert any(line.startswith("several instances of one kind share a host (c-1)") for line in notes)


def test_a_second_run_reads_nothing_and_a_longer_one_only_the_rest(fetched, fleet):
    done, _, directory = fetched
    assert done.samples > 0
    again = fill_cache(config_of(fleet), FEATURES, STEP, directory, ignore_report, print)
    assert (again.samples, again.route, again.days_read) == (0, "", 0)
    np.testing.assert_array_equal(again.missing, done.missing)
    _server, start = fleet
    more = config_of(fleet, range=(TICKS + 4) * STEP, end=start + (TICKS + 3) * STEP)
    rest = fill_cache(more, FEATURES, STEP, directory, ignore_report, print)
    assert 0 < rest.samples < done.samples / 4
    fresh = read_prometheus(more, FEATURES, STEP, ignore_report, print)
    cached = read_prometheus(
        config_of(fleet, range=more.range, end=more.end, cache=str(directory)),
        FEATURES,
        STEP,
        ignore_report,
        print,
    )
    assert fresh.values.tobytes() == cached.values.tobytes()


# --- interrupted

MIDNIGHT = 1_767_571_200
GOOD = always(
    body=result({"metric": {"instance": "a"}, "values": [[MIDNIGHT - STEP, "0.5"], [MIDNIGHT, "0.25"]]})
)


def run(url, cache, **settings):
    """Two ticks before midnight and two after: a job for each day."""
    config = PrometheusConfig(
        url=url,
        range=4 * STEP,
        end=MIDNIGHT + STEP,
        timeout=0.3,
        retries=1,
        route="api",
        parallel=1,
        **settings,
    )
    return fill_cache(config, FEATURES[:1], STEP, cache, ignore_report, [].append, backoff_s=0.01)


def is_read(request):
    return request.get("query", ["count"])[0].startswith("max")


def failing(broken, state):
    """Good for the first day, then `broken` while `state` says so."""

    def respond(handler, number):
        first = f"start={MIDNIGHT - 2 * STEP}" in handler.path
        (GOOD if first or not state["broken"] else broken)(handler, number)

    return then(respond)


@pytest.mark.parametrize(
    "broken",
    [always(500), always(429), always(401), always(200, "<html>", "text/html"), hang, half],
    ids=["500", "429", "401", "html", "hang", "half"],
)
def test_what_was_read_before_a_failure_is_kept_and_the_next_run_goes_on(broken, tmp_path):
    state = {"broken": True}
    with Misbehaving(failing(broken, state)) as server:
        with pytest.raises(SourceError):
            run(server.url, tmp_path)
        cache = Cache(tmp_path, PrometheusConfig(url=server.url), STEP)
        assert cache.covered("a", Day(MIDNIGHT // 86_400 - 1, STEP))
        assert not cache.covered("a", Day(MIDNIGHT // 86_400, STEP))
        state["broken"] = False
        before = len(server.requests)
        done = run(server.url, tmp_path)
        asked = [request["start"] for request in server.requests[before:] if is_read(request)]
    assert asked == [[str(MIDNIGHT)]]
    assert (done.days_read, done.days_all) == (1, 2)


def test_the_servers_clock_counts_and_a_difference_is_said(tmp_path):
    def respond(handler, number):
        if handler.path.startswith("/api/v1/query?"):
            answer(handler, body=result({"metric": {}, "value": [0, str(MIDNIGHT + 7.0)]}))
        else:
            GOOD(handler, number)

    notes = []
    with Misbehaving(
        lambda handler, number: (
            respond(handler, number) if "query?" in handler.path else then(respond)(handler, number)
        )
    ) as server:
        config = PrometheusConfig(url=server.url, range=60.0, route="api")
        done = fill_cache(config, FEATURES[:1], STEP, tmp_path, ignore_report, notes.append)
    assert done.span.end == MIDNIGHT
    assert re.match(r"the server's clock differs by -\d+ s; its clock counts", notes[0])


# --- the command


@pytest.fixture
def command(fleet, tmp_path):
    server, start = fleet
    (tmp_path / "trainer.yml").write_text(
        json.dumps(
            {
                "features": [feature.name for feature in FEATURES],
                "source": {"prometheus": {"url": server.url, "end": start + (TICKS - 1) * STEP}},
            }
        )
    )

    def call(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "node_anomaly_trainer", "fetch", *arguments],
            cwd=tmp_path,
            env={**os.environ, "COLUMNS": "120"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return call


def test_fetch_reads_once_and_shows_what_is_there(command, tmp_path):
    done = command("--config", "trainer.yml", "--since", "2h", "--cache", "kept")
    assert done.returncode == 0, done.stderr
    assert "route: remote_read" in done.stderr
    assert re.search(r"db-2 .* \d\d\.\d% ", done.stdout)
    assert "1 features from anomaly_feature_value: memory_available_ratio" in done.stdout
    assert "1 features without any series: filesystem_readonly_count" in done.stdout
    assert list((tmp_path / "kept").rglob("ticks.parquet"))
    again = json.loads(
        command("--config", "trainer.yml", "--since", "2h", "--cache", "kept", "--output", "json").stdout
    )
    assert (again["samples"], again["node_days_read"]) == (0, 0)
    assert again["missing"]["db-1"]["tcp_established_count"] == 0.0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--since", "soon"], "--since soon: expected a duration"),
        (["--since", "3s"], "--since 3s: expected 60 seconds to 3660 days"),
        (["--config", "gone.yml"], "gone.yml: No such file"),
    ],
)
def test_wrong_usage_of_fetch_exits_with_2(command, arguments, said):
    done = command(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
