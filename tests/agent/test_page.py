"""The status page in every state: structure, escaping, size."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

import page_states
from agent_fakes import START, make_info, make_score, make_snapshot
from node_anomaly_agent.page import render_page
from node_anomaly_agent.page_plot import plot
from node_anomaly_agent.sampler import CollectorStatus
from node_anomaly_agent.site import Site
from node_anomaly_agent.snapshot import BundleInfo, ReloadStatus, Snapshot
from node_anomaly_core.features import Feature
from node_anomaly_core.witnesses import Witness

SITE = Site("1.2.3", "db-1", "/metrics")
MAX_BYTES = 64 << 10
VOID = {"meta", "br", "wbr", "path", "rect", "stop"}


class Structure(HTMLParser):
    """Which tags are open; every closed one must be the last opened."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.links: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.links += [value for name, value in attrs if name in ("href", "src")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text.append(data)


def show(snapshot: Snapshot, site: Site = SITE) -> str:
    return render_page(snapshot, site, START + 3.0)


def read(page: str) -> Structure:
    parsed = Structure()
    parsed.feed(page)
    parsed.close()
    assert parsed.open == []
    return parsed


@pytest.mark.parametrize("state", page_states.STATES)
def test_every_state_is_whole_html_of_bounded_size_that_loads_nothing_and_runs_nothing(state):
    page = show(page_states.STATES[state]())
    parsed = read(page)
    assert len(page.encode()) < MAX_BYTES
    assert not {"script", "link", "img", "iframe", "form", "object"} & set(parsed.seen)
    assert not re.search(r"@import|url\((?!#)|javascript:|\bon\w+=", page)
    assert all(link.startswith("/") for link in parsed.links)
    assert "/metrics" in parsed.links
    assert "prefers-color-scheme:dark" in page
    assert "width=device-width" in page
    assert "nan" not in "".join(parsed.text).lower().split(), "what is not known is a dash"


@pytest.mark.parametrize(
    ("snapshot", "expected"),
    [
        (Snapshot(started=START, interval_s=15.0, heartbeat=0.0), "Not ready"),
        (make_snapshot(score=make_score(warm=False), warmup_done=3), "3 of 20 ticks"),
        (make_snapshot(score=make_score(score=1.7)), "Anomalous: 1.70"),
        (make_snapshot(), "Normal: 0.40"),
        (make_snapshot(), "alarm threshold, 1.50 times what training promised"),
        (make_snapshot(score=make_score(score=float("nan"))), "no model could judge"),
        (make_snapshot(score=make_score(score=-0.001)), "Normal: 0.00"),
        (make_snapshot(score=None), "the last evaluation failed"),
        (make_snapshot(bundle=make_info(origin="starter")), "simulated fleet"),
        (make_snapshot(score=make_score(values=(float("nan"),) * 3)), "Normal"),
        (make_snapshot(), "no thermal zones"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_page_has_a_word_for_every_state(snapshot, expected):
    assert expected in "".join(read(show(snapshot)).text)


def test_reasons_are_given_with_share_direction_and_both_values_in_human_units():
    page = show(make_snapshot())
    assert "<code>disk_<wbr>read_<wbr>bytes_<wbr>per_<wbr>second</code>" in page
    said = "".join(read(page).text)
    assert "60 %" in said
    assert "▲ 2 KiB/s1 KiB/s" in said


def test_who_must_agree_is_said_beside_the_models_and_only_where_somebody_must():
    bundle = make_snapshot().bundle
    agreed = replace(bundle, witnesses=(Witness(("lstm",), 0.9), Witness(("forest", "other"), 0.7)))
    said = "".join(read(show(make_snapshot(bundle=agreed))).text)
    assert (
        "An alarm needs this much of its evidence from: lstm (90 %) and one of forest, other (70 %)." in said
    )
    assert "An alarm needs" not in show(make_snapshot(bundle=bundle))


def test_an_alarm_that_is_held_back_is_said_with_whose_agreement_is_missing():
    held = make_score(held_back_by=(Witness(("lstm",), 0.9),))
    said = "".join(read(show(make_snapshot(score=held))).text)
    assert "Held back: all models together reach the threshold, without the agreement of lstm (90 %)." in said
    assert "Held back" not in show(make_snapshot())


def test_a_score_below_1_that_is_no_recovery_is_said_under_the_verdict_and_beside_the_episode():
    said = "".join(read(show(page_states.outgrown())).text)
    assert "Not recovered: 0.91" in said
    assert "The last alarm is over because this node's threshold rose; what it was for" in said
    assert "Normal" not in said
    assert "not recovered: the threshold rose" in said[said.index("Episode began") :]
    assert "ot recovered" not in show(page_states.recorded())


def test_a_refused_bundle_and_a_failing_collector_are_said_at_the_top_and_an_absent_part_is_not():
    page = show(page_states.rejected())
    top = page[: page.index("Normal: ")]
    assert "A bundle was refused" in top
    assert "manifest.json names another" in top
    assert "stays in use" in top
    assert "Permission denied" in top
    assert "temperature sensor" not in top


def test_nothing_wrong_means_no_warning():
    assert "Needs attention" not in show(page_states.warm())


def test_the_picture_has_the_threshold_a_gap_for_a_gap_and_a_shade_for_each_episode():
    warm, alarming = (plot(state().history, START) for state in (page_states.warm, page_states.anomalous))
    assert 'class="threshold"' in warm
    (line,) = re.findall(r'class="line" d="([^"]+)"', warm)
    assert line.count("M") == 2
    assert 'class="shade"' not in warm, "a single tick above the threshold is no episode"
    assert alarming.count('class="shade"') == 2
    assert "still going on" in alarming
    assert "for 8 min" in alarming
    assert "peak 4.60" in alarming
    assert not re.search(r"nan|inf", warm + alarming)


def test_an_empty_picture_says_so():
    assert "drawn here once there is a score" in plot(make_snapshot().history, START)


@given(st.lists(st.one_of(st.just(math.nan), st.floats(0, 1e30)), min_size=1, max_size=50))
def test_any_scores_can_be_drawn_within_the_frame(scores):
    drawn = plot(page_states.history_of(scores, 60.0), START)
    read(drawn)
    for path in re.findall(r'class="line" d="([^"]*)"', drawn):
        for x, y in re.findall(r"([\d.e+-]+) ([\d.e+-]+)", path):
            assert 0 <= float(x) <= 360
            assert -0.01 <= float(y) <= 100


HOSTILE = "<script>alert(1)</script>\"'&<img src=x onerror=y>"


def test_everything_that_comes_from_elsewhere_is_escaped_and_cut():
    long = HOSTILE * 500
    feature = Feature(long, "ratio", long, "cpu", "gauge", "high", 1e-3, None)
    bundle = BundleInfo(long, long, long, START, ((long, long),), (feature,), {long: long}, 1.0, long)
    bundle = replace(bundle, witnesses=(Witness((long,), 1.0),))
    score = replace(
        make_score(score=2.0, values=(0.5,)), model_scores={long: 2.0}, states=("active",), score=2.0
    )
    page = show(
        make_snapshot(
            bundle=bundle,
            score=score,
            reload=ReloadStatus(reason=long, message=long),
            collectors={long: CollectorStatus(False, 0.1, long)},
        ),
        Site(long, long, "/metrics"),
    )
    parsed = read(page)
    assert not {"script", "img"} & set(parsed.seen)
    assert len(page.encode()) < MAX_BYTES


def test_a_bundle_with_ever_so_many_features_does_not_make_the_page_grow():
    many = tuple(
        Feature(f"own_feature_{at}", "ratio", "x" * 200, "cpu", "gauge", "high", 1e-3, None)
        for at in range(3000)
    )
    snapshot = make_snapshot(
        bundle=replace(make_info(), features=many), score=make_score(score=1.2, values=[0.5] * len(many))
    )
    page = show(snapshot)
    assert "and 2940 more" in page
    assert len(page.encode()) < MAX_BYTES


def test_recorded_episodes_are_listed_with_why_and_who_was_busy_in_place_of_the_bare_ones():
    page = show(page_states.recorded())
    said = "".join(read(page).text)
    assert "disk_busy_ratio 38 %: 97 % instead of 23 %" in said
    assert "busiest: postgres, pg_dump" in said
    assert "14 Nov" in said
    assert said.count("still going on") == 1
    assert "8 min" in said
    assert "A quiet window holds back new episodes now" in said


def test_a_hostile_episode_is_escaped_and_cut():
    snapshot = page_states.recorded()
    episode = snapshot.episodes.recent[-1]
    cause = replace(episode.peak_reasons[0], feature=HOSTILE * 100, unit=HOSTILE)
    busy = replace(episode.processes[0], name=HOSTILE)
    hostile = replace(episode, peak_reasons=(cause,), processes=(busy,))
    page = show(replace(snapshot, episodes=replace(snapshot.episodes, recent=(hostile,) * 20)))
    assert not {"script", "img"} & set(read(page).seen)
    assert len(page.encode()) < MAX_BYTES
