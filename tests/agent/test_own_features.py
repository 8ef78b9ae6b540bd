"""Users' own features on the node: from a local exporter or a textfile to sample, bundle and commands."""

from __future__ import annotations

import contextlib
import http.server
import json
import math
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import agent_bundle
import rig
from node_anomaly_agent.assembly import build_sampler, collector_switches
from node_anomaly_agent.cli import main
from node_anomaly_agent.collectors import CollectorMissing
from node_anomaly_agent.collectors.textfile import STALE_TICKS, TextfileCollector
from node_anomaly_agent.config import AgentConfig, load_config
from node_anomaly_agent.sampler import Sample
from node_anomaly_agent.scorer import load_candidate
from node_anomaly_core.errors import BundleError, ConfigError, SourceError
from node_anomaly_core.expressions import Reading
from node_anomaly_core.features import CATALOGUE
from node_anomaly_core.own_features import parse_own_document

MAILS = """
- name: mail_sent_per_second
  unit: per_second
  help: Mails sent per second.
  kind: rate
  floor: 0.5
  promql: sum by (instance) (rate(mail_sent_total{queue!="test",$matchers}[$window]))
  source: {exporter: "URL", metric: mail_sent_total, match: {queue: "!=test"}}
- name: mail_queue_count
  unit: count
  help: Mails that wait in the longest queue.
  kind: gauge
  direction: high
  floor: 5
  promql: max by (instance) (mail_queue{$matchers})
  source: {exporter: "URL", metric: mail_queue}
"""
BACKUP = """
- name: backup_age_seconds
  unit: seconds
  help: Age of the newest backup.
  kind: gauge
  floor: 3600
  promql: max by (instance) (backup_age_minutes) * 60
  source: {textfile: "PATH", metric: backup_age_minutes, scale: 60}
"""


class Exporter:
    """A program with /metrics that says what it is told to."""

    def __init__(self) -> None:
        self.text = ""
        self.requests = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[str]:
        told = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                told.requests += 1
                body = told.text.encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            try:
                yield f"http://127.0.0.1:{server.server_port}/metrics"
            finally:
                server.shutdown()

    def say(self, sent: float, waiting: float) -> None:
        self.text = (
            f'mail_sent_total{{queue="out"}} {sent}\nmail_sent_total{{queue="bulk"}} {2 * sent}\n'
            f'mail_sent_total{{queue="test"}} {100 * sent}\n'
            f'mail_queue{{queue="out"}} {waiting}\nmail_queue{{queue="bulk"}} 1\n'
        )


def config_of(tmp_path: Path, features: str, **settings: object) -> AgentConfig:
    """A config file with these features in it, on a host that shows nothing else."""
    file = tmp_path / "agent.yml"
    file.write_text("features:\n" + "".join(f"  {line}\n" for line in features.splitlines()))
    nothing = {"path.procfs": str(tmp_path / "no"), "path.sysfs": str(tmp_path / "no")}
    overrides = {name.replace("__", ".").replace("_", "-"): value for name, value in settings.items()}
    return load_config(file, nothing | overrides, collector_switches())


def values_of(sample: Sample, config: AgentConfig) -> dict[str, float]:
    return dict(zip((f.name for f in config.features), sample.values.tolist(), strict=True))


class TestExporter:
    def test_its_series_become_features_beside_the_catalogue(self, tmp_path: Path) -> None:
        """One request a tick for all that is wanted of it; a rate is that of each series, added up."""
        exporter = Exporter()
        with exporter.running() as url:
            config = config_of(tmp_path, MAILS.replace("URL", url), collector__timex=False)
            sampler = build_sampler(config)
            exporter.say(100.0, 7.0)
            first = values_of(sampler.sample(0.0), config)
            exporter.say(110.0, 9.0)
            sample = sampler.sample(10.0)
        assert math.isnan(first["mail_sent_per_second"])
        assert first["mail_queue_count"] == 7.0
        second = values_of(sample, config)
        assert second["mail_sent_per_second"] == pytest.approx(3.0)
        assert second["mail_queue_count"] == 9.0
        assert math.isnan(second["memory_available_ratio"])
        assert list(second)[: len(CATALOGUE)] == [feature.name for feature in CATALOGUE]
        assert sample.collectors[url].success
        assert exporter.requests == 2
        gone = sampler.sample(20.0)
        assert not gone.collectors[url].success
        assert math.isnan(values_of(gone, config)["mail_queue_count"])

    def test_it_may_be_the_node_exporter_that_the_host_is_read_from(self, tmp_path: Path) -> None:
        """Then both take one request, and so does an own feature beside /proc."""
        features = MAILS.replace("URL", "node_exporter")
        exporter = Exporter()
        with exporter.running() as url:
            exporter.say(1.0, 3.0)
            exporter.text += "node_load1 2\n" + 'node_cpu_seconds_total{cpu="0",mode="idle"} 5\n'
            for source, load in (("node_exporter", 2.0), ("proc", math.nan)):
                config = config_of(tmp_path, features, source=source, node_exporter__url=url)
                before = exporter.requests
                values = values_of(build_sampler(config).sample(0.0), config)
                assert exporter.requests == before + 1
                assert values["mail_queue_count"] == 3.0
                assert values["load1_per_cpu_ratio"] == pytest.approx(load, nan_ok=True)

    def test_the_agent_and_prometheus_see_the_same_number(self, tmp_path: Path) -> None:
        """The description's query on a real Prometheus, its source on the node: one value."""
        exporter = Exporter()
        exporter.say(1.0, 41.5)
        with exporter.running() as url:
            config = config_of(tmp_path, MAILS.replace("URL", url))
            port = int(url.rpartition(":")[2].partition("/")[0])
            with rig.prometheus(tmp_path / "prometheus", {"mail": [port]}) as server:
                feature = config.own_features[1].feature
                (found,) = rig.wait_for_query(server, feature.promql("1m", 'job="mail"'))
                sampler = build_sampler(config)
                here = values_of(sampler.sample(time.time()), config)["mail_queue_count"]
                rate = config.own_features[0].feature.promql("1m", 'job="mail"')
                (moving,) = rig.wait_for_query(server, rate)
        assert float(found["value"][1]) == here == 41.5  # type: ignore[index]
        assert set(found["metric"]) == set(moving["metric"]) == {"instance"}  # type: ignore[call-overload]

    def test_a_query_is_sent_but_never_shown(self, tmp_path: Path) -> None:
        """It may hold a secret; exporters that differ in nothing else are numbered."""
        exporter = Exporter()
        exporter.say(1.0, 5.0)
        with exporter.running() as url:
            first, second = MAILS.split("- name: mail_queue")
            text = (
                first.replace("URL", f"{url}?token=a")
                + "- name: mail_queue"
                + second.replace("URL", f"{url}?b")
            )
            sampler = build_sampler(config_of(tmp_path, text, collector__timex=False))
            good = sampler.sample(0.0)
        bad = sampler.sample(15.0)
        for sample in (good, bad):
            assert {name for name in sample.collectors if name.startswith("http")} == {url, f"{url} (2)"}
        assert good.collectors[f"{url} (2)"].success
        assert not any("token" in status.error for status in bad.collectors.values())


class TestTextfile:
    def test_it_is_read_when_it_has_changed(self, tmp_path: Path) -> None:
        """A file renamed into place is a new one; until then nothing is parsed again."""
        path = tmp_path / "backup.prom"
        path.write_text("backup_age_minutes 10\n")
        config = config_of(tmp_path, BACKUP.replace("PATH", str(path)))
        sampler = build_sampler(config)
        assert values_of(sampler.sample(0.0), config)["backup_age_seconds"] == 600.0
        assert values_of(sampler.sample(15.0), config)["backup_age_seconds"] == 600.0
        new = tmp_path / "new"
        new.write_text("backup_age_minutes 20\n")
        new.rename(path)
        sample = sampler.sample(30.0)
        assert values_of(sample, config)["backup_age_seconds"] == 1200.0
        assert sample.collectors[str(path)].success
        sampler.close()

    def test_a_stale_file_is_missing_not_old_news(self, tmp_path: Path) -> None:
        """After STALE_TICKS intervals, or what the feature allows; a future time is no age for a day."""
        path = tmp_path / "backup.prom"
        path.write_text("backup_age_minutes 10\n")
        for features, longest in (
            (BACKUP, STALE_TICKS * 15.0),
            (BACKUP.replace("scale: 60", "scale: 60, max_age_seconds: 7200"), 7200.0),
        ):
            config = config_of(tmp_path, features.replace("PATH", str(path)))
            sampler = build_sampler(config)
            for age, there in (
                (longest - 30.0, True),
                (longest + 30.0, False),
                (-900.0, True),
                (-1e5, False),
            ):
                os.utime(path, (time.time() - age,) * 2)
                sample = sampler.sample(0.0)
                assert math.isnan(values_of(sample, config)["backup_age_seconds"]) is not there
                assert sample.collectors[str(path)].success is there

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"backup_age_minutes", "ends within a line"),
            (b"backup_age_minutes x\n", "not a sample"),
            (b"something_else 1\n", "no sample of backup_age_minutes"),
            (b"", "no sample of backup_age_minutes"),
            (b"#" * ((1 << 20) + 1), "more than 1 MiB"),
        ],
        ids=["cut", "wrong", "other", "empty", "huge"],
    )
    def test_what_is_not_the_format_is_a_status(self, tmp_path: Path, content: bytes, message: str) -> None:
        """Nothing of it is taken."""
        path = tmp_path / "backup.prom"
        path.write_bytes(content)
        config = config_of(tmp_path, BACKUP.replace("PATH", str(path)))
        sample = build_sampler(config).sample(0.0)
        assert message in sample.collectors[str(path)].error
        assert math.isnan(values_of(sample, config)["backup_age_seconds"])

    def test_no_file_is_a_failure_and_a_pipe_does_not_hang(self, tmp_path: Path) -> None:
        """Somebody named it, so a host that does not have it is no ordinary host without such a part."""
        collector = TextfileCollector(str(tmp_path / "x.prom"), {"a": []}, 60.0)
        with pytest.raises(SourceError, match=r"x\.prom: no such file") as absent:
            collector.read()
        assert not isinstance(absent.value, CollectorMissing)
        os.mkfifo(tmp_path / "x.prom")
        with pytest.raises(SourceError, match="not a regular file"):
            collector.read()

    def test_what_it_yields_may_be_changed(self, tmp_path: Path) -> None:
        """The remembered reading is the collector's own."""
        path = tmp_path / "x.prom"
        path.write_text("a 1\n")
        collector = TextfileCollector(str(path), {"a": [lambda _: ("a", "")]}, 60.0)
        first: Reading = collector.read()
        first.clear()
        assert collector.read() == {("a", ""): 1.0}


class TestSettings:
    def test_the_file_that_is_shared_with_the_trainer(self, tmp_path: Path) -> None:
        """By flag or key; features of the config file come first."""
        shared = tmp_path / "features.yml"
        shared.write_text("features:\n" + BACKUP.replace("PATH", "/var/x.prom"))
        config = config_of(tmp_path, MAILS.replace("URL", "node_exporter"), features__file=str(shared))
        names = [own.feature.name for own in config.own_features]
        assert names == ["mail_sent_per_second", "mail_queue_count", "backup_age_seconds"]
        file = tmp_path / "other.yml"
        file.write_text(f"features: {{file: {shared}}}\n")
        assert len(load_config(file, {}, collector_switches()).own_features) == 1

    def test_a_name_in_both_places_is_refused(self, tmp_path: Path) -> None:
        """Neither would know which is meant."""
        shared = tmp_path / "features.yml"
        shared.write_text("features:\n" + MAILS.replace("URL", "node_exporter"))
        with pytest.raises(ConfigError, match="mail_queue_count is named twice"):
            config_of(tmp_path, MAILS.replace("URL", "node_exporter"), features__file=str(shared))

    def test_every_problem_of_every_place_is_named(self, tmp_path: Path) -> None:
        """A wrong feature, a wrong file and a wrong setting in one message."""
        with pytest.raises(ConfigError) as caught:
            config_of(tmp_path, MAILS.replace("URL", "nowhere"), features__file="/nonexistent", interval="x")
        for what in ("features[0].source.exporter", "/nonexistent does not exist", "interval:"):
            assert what in caught.value.message

    def test_check_config_names_them_and_their_errors(self, tmp_path: Path, capsys) -> None:
        """Exit code 1 and the path of the first wrong key, or a list of what there is."""
        shared = tmp_path / "features.yml"
        shared.write_text("features:\n" + MAILS.replace("URL", "node_exporter"))
        arguments = ["check-config", "--features.file", str(shared), "--state.directory", str(tmp_path)]
        assert main(arguments) == 0
        out = capsys.readouterr().out
        assert f"{'own features':<25}  mail_sent_per_second, mail_queue_count" in out
        assert f"{'node-exporter.url':<25}  http://127.0.0.1:9100/metrics" in out
        shared.write_text(
            "features:\n" + MAILS.replace("URL", "node_exporter").replace("mail_queue{", "mails{")
        )
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert f"{shared}: features[1].promql: does not mention mail_queue" in error
        assert "docs/own-features.md" in error

    def test_features_lists_them_with_their_query(self, tmp_path: Path, capsys) -> None:
        """As printed, the query is the one the trainer sends."""
        path = tmp_path / "x.prom"
        path.write_text("backup_age_minutes 5\n")
        shared = tmp_path / "features.yml"
        shared.write_text("features:\n" + BACKUP.replace("PATH", str(path)))
        assert main(["features", "--output", "json", "--features.file", str(shared)]) == 0
        last = json.loads(capsys.readouterr().out)[-1]
        assert (last["name"], last["group"], last["state"], last["value"]) == (
            "backup_age_seconds", "own", "constant", 300.0,
        )  # fmt: skip
        assert last["promql"] == "max by (instance) (backup_age_minutes) * 60"

    def test_the_example_in_the_documentation_is_valid(self, repository: Path) -> None:
        """docs/own-features.md shows nothing that check-config would refuse."""
        import yaml

        text = (repository / "docs" / "own-features.md").read_text()
        examples = [block.split("```")[0] for block in text.split("```yaml\n")[1:]]
        parsed = [parse_own_document(yaml.safe_load(example), "docs") for example in examples]
        assert sum(map(len, parsed)) >= 3


class TestBundles:
    def test_a_bundle_that_needs_an_own_feature_is_taken_by_an_agent_that_has_it(
        self, tmp_path: Path
    ) -> None:
        """And refused with its name by one that has not."""
        config = config_of(tmp_path, MAILS.replace("URL", "node_exporter"))
        path = agent_bundle.make_bundle(tmp_path / "bundles", features=config.features[-3:])
        candidate = load_candidate(path, config.features, 15.0, "")
        np.testing.assert_array_equal(candidate.columns, np.arange(len(config.features))[-3:])
        with pytest.raises(BundleError, match="mail_sent_per_second, which this agent cannot supply"):
            load_candidate(path, CATALOGUE, 15.0, "")

    def test_bundle_verify_knows_the_agents_own_features(self, tmp_path: Path, capsys) -> None:
        """With the agent's config it says what that agent would say."""
        config = config_of(tmp_path, MAILS.replace("URL", "node_exporter"))
        path = agent_bundle.make_bundle(tmp_path / "bundles", features=config.features[-2:])
        assert main(["bundle", "verify", str(path)]) == 1
        assert "mail_sent_per_second" in capsys.readouterr().err
        assert main(["bundle", "verify", str(path), "--config.file", str(tmp_path / "agent.yml")]) == 0
        assert main(["bundle", "show", str(path)]) == 0
