"""What bench counts: alarms, recall, false alarms, and the areas under precision over recall."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn
from sklearn.metrics import average_precision_score

from node_anomaly_trainer import evaluate
from node_anomaly_trainer.bench.metrics import Figures, episodes, judge, summarise
from node_anomaly_trainer.bench.range_pr import average_precision, vus_pr

HOUR_S = 3600.0


def scores(rows, *spans):
    """0 but for 1.0 in these spans of rows."""
    score = np.zeros(rows)
    for first, stop in spans:
        score[first:stop] = 1.0
    return score


def labels(rows, *spans):
    return scores(rows, *spans).astype(np.int8)


def test_an_alarm_needs_three_ticks_and_is_raised_at_the_third():
    assert episodes(scores(20, (5, 7))).tolist() == []
    assert episodes(scores(20, (5, 8))).tolist() == [[5, 7, 7]]
    assert episodes(scores(20, (5, 12))).tolist() == [[5, 11, 7]]


def test_episodes_ten_ticks_apart_are_one_alarm_and_eleven_apart_are_two():
    assert episodes(scores(40, (0, 3), (12, 15))).tolist() == [[0, 14, 2]]
    assert episodes(scores(40, (0, 3), (13, 16))).tolist() == [[0, 2, 2], [13, 15, 15]]


def test_what_is_not_known_interrupts_an_alarm():
    score = scores(20, (5, 10))
    score[7] = np.nan
    assert len(episodes(score)) == 0


def test_an_event_is_caught_by_an_alarm_raised_in_it_or_ten_ticks_before():
    label = labels(200, (50, 60))
    early, late = judge(label, scores(200, (38, 41)), HOUR_S), judge(label, scores(200, (57, 62)), HOUR_S)
    assert (early.caught, early.false_alarms, early.delay) == (1, 0, 0.0)
    assert (late.caught, late.false_alarms, late.delay) == (1, 0, 9.0)


def test_an_alarm_that_already_stood_catches_nothing_and_is_false():
    figures = judge(labels(200, (50, 60)), scores(200, (20, 200)), HOUR_S)
    assert (figures.recall, figures.alarms, figures.false_alarms, figures.precision) == (0.0, 1, 1, 0.0)


def test_an_alarm_just_after_an_event_is_neither_false_nor_does_it_catch():
    figures = judge(labels(200, (50, 60)), scores(200, (60, 64)), HOUR_S)
    assert (figures.caught, figures.false_alarms, figures.precision) == (0, 0, 1.0)
    later = judge(labels(200, (50, 60)), scores(200, (68, 72)), HOUR_S)
    assert later.false_alarms == 1


def test_false_alarms_are_per_day_and_time_in_alarm_is_of_normal_rows():
    figures = judge(labels(48, (0, 8)), scores(48, (2, 6), (20, 24), (40, 44)), HOUR_S)
    assert figures.days == 2.0
    assert figures.false_alarms_per_day == 1.0
    assert figures.alarm_share == pytest.approx(8 / 40)
    assert figures.delay == 4.0


def test_rows_without_a_score_rank_below_all_others():
    label = labels(100, (10, 20))
    score = np.where(label == 1, 0.5, np.nan)
    score[50:60] = 0.1
    figures = judge(label, score, HOUR_S)
    assert figures.unknown == 80
    assert figures.auc_pr == 1.0


def test_a_detector_that_knows_nothing_gets_figures_all_the_same():
    figures = judge(labels(100, (10, 20)), np.full(100, np.nan), HOUR_S)
    assert (figures.unknown, figures.recall, figures.precision, figures.delay) == (100, 0.0, None, None)
    assert figures.auc_pr == pytest.approx(0.1)


def test_without_an_event_or_without_a_normal_row_there_is_no_figure_of_it():
    quiet = judge(labels(50), np.zeros(50), HOUR_S)
    assert (quiet.vus_pr, quiet.auc_pr, quiet.recall) == (None, None, None)
    assert judge(np.ones(50, dtype=np.int8), np.zeros(50), HOUR_S).alarm_share is None
    with pytest.raises(ValueError, match="no recall"):
        vus_pr(labels(50), np.zeros(50))


def test_average_precision_of_a_case_by_hand():
    """Ranked 1, 0, 1, 0: precision 1 at the first half of recall, 2/3 at the second."""
    assert average_precision(np.array([1, 0, 1, 0]), np.array([4.0, 3.0, 2.0, 1.0])) == pytest.approx(5 / 6)
    # equal scores are one point: half of four rows are anomalous, whatever their order
    assert average_precision(np.array([1, 0, 1, 0]), np.ones(4)) == pytest.approx(0.5)


def test_vus_of_a_case_by_hand():
    """One event of one row in five; flagging it alone has precision 1, everything has (1 + rims) / 5."""
    label, score = np.array([0, 0, 1, 0, 0]), np.array([0.0, 0.0, 1.0, 0.0, 0.0])
    assert vus_pr(label, score, window=0) == pytest.approx(1.0)
    # width 2 adds a rim of sqrt(1 - 1/2) on both sides: recall of the event alone is 1 over 1
    rim = 2 * np.sqrt(0.5)
    assert vus_pr(label, score, window=2) == pytest.approx(1.0)
    nothing = vus_pr(label, np.zeros(5), window=2)
    assert nothing == pytest.approx((1 / 5 + 1 / 5 + (1 + rim) / 5 * 1.0) / 3)


def plain_vus(label, score, window, levels):
    """The definition, threshold by threshold and row by row."""
    n = len(score)
    thresholds = np.sort(score)[::-1][np.linspace(0, n - 1, levels).astype(int)]
    starts = [i for i in range(n) if label[i] and (i == 0 or not label[i - 1])]
    ends = [i for i in range(n) if label[i] and (i == n - 1 or not label[i + 1])]
    areas = []
    for width in range(window + 1):
        half = width // 2
        soft = label.astype(float)
        for a, b in zip(starts, ends, strict=True):
            for d in range(1, half + 1):
                for row in (a - d, b + d):
                    if 0 <= row < n:
                        soft[row] += np.sqrt(1 - d / width)
        soft = np.minimum(soft, 1.0)
        spans = [[max(starts[0] - half, 0), ends[0] + half]]
        for a, b in zip(starts[1:], ends[1:], strict=True):
            if spans[-1][1] < a - half:
                spans.append([a - half, b + half])
            else:
                spans[-1][1] = b + half
        area, before = 0.0, 0.0
        for threshold in thresholds:
            flagged = score >= threshold
            hits = soft[flagged].sum()
            rim = soft[flagged & (label == 0)].sum()
            met = np.mean([flagged[a : b + 1].any() for a, b in spans])
            recall = min(hits / ((label.sum() + label.sum() + rim) / 2), 1.0) * met
            area += (recall - before) * hits / flagged.sum()
            before = recall
        areas.append(area)
    return np.mean(areas)


@st.composite
def cases(draw):
    rows = draw(st.integers(12, 60))
    label = draw(stn.arrays(np.int8, rows, elements=st.integers(0, 1)))
    label[draw(st.integers(0, rows - 1))] = 1
    score = draw(stn.arrays(np.float64, rows, elements=st.integers(0, 8).map(float)))
    return label, score


@given(cases())
def test_vus_is_what_its_definition_gives(case):
    label, score = case
    assert vus_pr(label, score, 9, 12) == pytest.approx(plain_vus(label, score, 9, 12))


@given(cases())
def test_average_precision_is_that_of_scikit_learn(case):
    label, score = case
    assert average_precision(label, score) == pytest.approx(average_precision_score(label, score))


@given(cases())
def test_only_the_order_of_scores_counts(case):
    label, score = case
    assert vus_pr(label, np.exp(score)) == pytest.approx(vus_pr(label, score))


@given(cases())
def test_knowing_the_labels_is_never_worse(case):
    label, score = case
    assert average_precision(label, label.astype(float)) == 1.0
    assert vus_pr(label, label.astype(float)) >= vus_pr(label, score) - 1e-9


@given(stn.arrays(np.float64, st.integers(1, 80), elements=st.sampled_from([0.0, 0.9, 1.0, 2.0, np.nan])))
def test_alarms_are_raised_where_the_gate_raises_them(score):
    assert episodes(score)[:, 2].tolist() == evaluate.raised(score).tolist()


@given(cases())
def test_figures_keep_within_their_limits(case):
    label, score = case
    figures = judge(label, score / 4.0, HOUR_S)
    assert 0 <= figures.caught <= figures.events
    assert 0 <= figures.false_alarms <= figures.alarms
    for share in (figures.recall, figures.precision, figures.alarm_share, figures.vus_pr, figures.auc_pr):
        assert share is None or 0.0 <= share <= 1.0 + 1e-9


def one(**changes):
    figures = {
        "rows": 100, "days": 2.0, "unknown": 0, "vus_pr": 0.5, "auc_pr": 0.4, "events": 4, "caught": 1,
        "alarms": 3, "false_alarms": 2, "false_alarms_per_day": 1.0, "alarm_share": 0.1, "delay": 5.0,
    }  # fmt: skip
    return Figures(**{**figures, **changes})


def test_a_summary_counts_events_and_alarms_and_takes_means_of_the_rest():
    total = summarise([one(), one(days=6.0, vus_pr=0.7, events=1, alarms=1, false_alarms=0, delay=None)])
    assert total.entities == 2
    assert total.vus_pr == pytest.approx(0.6)
    assert total.recall == pytest.approx(2 / 5)
    assert total.false_alarms_per_day == pytest.approx(2 / 8)
    assert total.false_alarms_per_week == pytest.approx(7 * 2 / 8)
    assert total.precision == pytest.approx(2 / 4)
    assert total.delay == 5.0


def test_a_summary_of_nothing_knows_nothing():
    empty = summarise([])
    assert empty.entities == 0
    assert empty.vus_pr is empty.recall is empty.false_alarms_per_day is empty.precision is None


def test_days_are_those_of_all_rows_whether_they_have_a_score_or_not():
    score = scores(100, (80, 90))
    score[:50] = np.nan
    figures = judge(labels(100), score, HOUR_S)
    assert figures.days == pytest.approx(100 / 24)
    assert figures.false_alarms_per_day == pytest.approx(24 / 100)


def test_false_alarms_per_day_over_series_of_an_hour_are_those_of_each():
    hour = judge(labels(60), scores(60, (20, 24)), 60.0)
    assert hour.false_alarms_per_day == pytest.approx(24.0)
    assert summarise([hour] * 5).false_alarms_per_day == pytest.approx(24.0)


def test_the_delay_is_the_median_over_events_of_the_first_alarm_in_each():
    label = labels(300, (50, 60), (100, 150), (200, 250))
    figures = judge(label, scores(300, (48, 51), (100, 103), (130, 133), (208, 211)), HOUR_S)
    assert (figures.caught, figures.alarms, figures.false_alarms) == (3, 4, 0)
    assert figures.delay == 2.0  # of 0, 2 and 10


def test_rows_without_a_score_rank_below_negative_ones_too():
    label = labels(100, (10, 20))
    score = np.where(label == 1, -0.5, np.nan)
    assert judge(label, score, HOUR_S).auc_pr == pytest.approx(0.1), "as the least that is known"
    score[50:60] = -1.0
    assert judge(label, score, HOUR_S).auc_pr == 1.0


def test_a_score_without_end_is_an_alarm():
    assert episodes(np.array([0.0, np.inf, np.inf, np.inf])).tolist() == [[1, 3, 3]]


def test_a_summary_has_the_mean_of_each_figure_over_those_that_have_it():
    total = summarise([one(auc_pr=0.2, alarm_share=0.3, delay=1.0), one(auc_pr=None, alarm_share=0.1)])
    assert (total.vus_pr, total.auc_pr) == (0.5, 0.2)
    assert (total.alarm_share, total.delay) == (pytest.approx(0.2), 3.0)


def test_an_alarm_raised_at_the_first_row_after_an_event_does_not_catch_it():
    last, after = (judge(labels(200, (50, 60)), scores(200, (row, row + 3)), HOUR_S) for row in (57, 58))
    assert (last.caught, after.caught) == (1, 0)
