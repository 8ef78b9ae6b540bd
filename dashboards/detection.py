"""A node: its score, its models, the features that explain it, and one feature against its expectation."""

from __future__ import annotations

from dashboards.frame import filled, frame
from dashboards.panels import (
    COUNT,
    NODES,
    PER_SECOND,
    RATIO,
    RED,
    SCORE,
    YELLOW,
    Column,
    Query,
    bars,
    graph,
    number,
    rows,
    states,
    to_feature,
)
from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models.common import BigValueTextMode

FEATURE = f'{NODES},feature="$feature"'


def build() -> dashboard.Dashboard:
    """The dashboard `node-anomaly-detection`."""
    page = frame(
        "node-anomaly-detection",
        "Why is this node's score what it is? From the score to the models, the features, and one feature.",
        one_node=True,
    )
    page = filled(
        page,
        number(
            "Score",
            "1 is the level that this node normally holds for three ticks only once per false-alarm budget.",
            f"anomaly_score{{{NODES}}}",
            unit=SCORE,
            decimals=2,
            thresholds=[(0.8, YELLOW), (1, RED)],
        ),
        number(
            "Alarm",
            "1 while the score has been at 1 or above for three ticks.",
            f"instance:anomaly_alarm:bool{{{NODES}}}",
            unit="bool_yes_no",
            thresholds=[(1, RED)],
        ),
        number(
            "Own threshold",
            "This node's alarm threshold as a multiple of the one that training promised: it follows what is "
            "usual here.",
            f"anomaly_agent_threshold_ratio{{{NODES}}}",
            unit=SCORE,
            decimals=2,
        ),
        number(
            "Threshold learnt",
            "Share of its two days (three and a half at less than one alarm in two days) that this threshold "
            "has seen. Until it is full, part of it is what training promised.",
            f"anomaly_agent_threshold_learned_ratio{{{NODES}}}",
            unit=RATIO,
        ),
        number(
            "Features missing",
            "Share of the bundle's features that this node does not have.",
            f"instance:anomaly_agent_features_missing:ratio{{{NODES}}}",
            unit=RATIO,
            thresholds=[(0.2, RED)],
        ),
        number(
            "Models",
            "The bundle in use and where it is from.",
            f"max by (version, origin) (anomaly_model_info{{{NODES}}})",
            legend="{{origin}} {{version}}",
        ).text_mode(BigValueTextMode.NAME),
        graph(
            "Score",
            "The line is the alarm threshold. Red marks are episodes, blue ones a change of the bundle.",
            Query(f"anomaly_score{{{NODES}}}", "score"),
            unit=SCORE,
            line=(1, RED),
        ),
        graph(
            "Score of each model",
            "On the same scale. Models that disagree see different things: the LSTM sudden changes, k-means "
            "unknown states.",
            Query(f"anomaly_model_score{{{NODES}}}", "{{model}}"),
            unit=SCORE,
            line=(1, RED),
        ),
        bars(
            "Reasons now",
            "The ten features that explain most of the score. A name opens the feature below.",
            f"topk(10, anomaly_feature_contribution_ratio{{{NODES}}})",
            "{{feature}}",
            links=[to_feature("__field.labels.feature")],
        ),
        graph(
            "Reasons over time",
            "Share of the score that each of the strongest features explains. What rose first is nearer to "
            "the cause than what is largest.",
            Query(f"topk(8, anomaly_feature_contribution_ratio{{{NODES}}})", "{{feature}}"),
            unit=RATIO,
            top=1,
            links=[to_feature("__field.labels.feature")],
        ),
        states(
            "Symptoms",
            "What somebody already waits or fails for. Together with an alarm it is a page.",
            Query(f"instance:anomaly_symptom:bool{{{NODES}}}", "{{symptom}}"),
            width=12,
        ),
        states(
            "No alarm, and why not",
            "Held back: all models together are at the threshold, but not those that must agree; "
            "`anomaly-agent --once` says who is missing. Not recovered: the threshold rose over an alarm "
            "that lasted for hours, and what it was for has not gone away. The score is below 1 in both.",
            Query(f"anomaly_alarm_held_back{{{NODES}}}", "held back"),
            Query(f"anomaly_alarm_outgrown{{{NODES}}}", "not recovered"),
            width=12,
        ),
    )
    page = page.with_row(dashboard.Row("Feature: $feature"))
    page = filled(
        page,
        graph(
            "$feature: value and expectation",
            "As the models saw it and as they expected it, in the unit that ends its name.",
            Query(f"anomaly_feature_value{{{FEATURE}}}", "value"),
            Query(f"anomaly_feature_expected{{{FEATURE}}}", "expected"),
            unit=COUNT,
            width=16,
        ),
        graph(
            "$feature: share of the score",
            "How much of the score this feature explains.",
            Query(f"anomaly_feature_contribution_ratio{{{FEATURE}}}", "share"),
            unit=RATIO,
            width=8,
            top=1,
        ),
        rows(
            "All features",
            "Value, expectation and share of the score of every feature, now. A name opens it above.",
            [
                Query(f"max by (feature) (anomaly_feature_value{{{NODES}}})"),
                Query(f"max by (feature) (anomaly_feature_expected{{{NODES}}})"),
                Query(f"max by (feature) (anomaly_feature_contribution_ratio{{{NODES}}})"),
            ],
            [
                Column("feature", "Feature", link=to_feature("__value.text")),
                Column("Value #A", "Value", COUNT),
                Column("Value #B", "Expected", COUNT),
                Column("Value #C", "Share", RATIO),
            ],
            by="Share",
            width=24,
            height=12,
        ),
    )
    page = page.with_row(dashboard.Row("Logs"))
    return filled(
        page,
        graph(
            "Lines, errors and warnings",
            "Per second, over all sources. Their content never leaves the node: `anomaly-agent --once "
            "--show-lines 10` shows new lines there.",
            Query(f"sum(rate(anomaly_agent_log_lines_total{{{NODES}}}[$__rate_interval]))", "lines"),
            Query(f"sum(rate(anomaly_agent_log_errors_total{{{NODES}}}[$__rate_interval]))", "errors"),
            Query(f"sum(rate(anomaly_agent_log_warnings_total{{{NODES}}}[$__rate_interval]))", "warnings"),
            unit=PER_SECOND,
            width=8,
        ),
        graph(
            "New patterns",
            "Kinds of lines that this node had not logged before, per second.",
            Query(
                f"rate(anomaly_agent_log_new_templates_total{{{NODES}}}[$__rate_interval])", "new patterns"
            ),
            unit=PER_SECOND,
            width=8,
        ),
        graph(
            "Sources",
            "Streams that each source reads: open files, or 1 for the journal. None is a node whose logs are "
            "not seen.",
            Query(f"anomaly_agent_log_streams{{{NODES}}}", "{{source}}"),
            width=8,
        ),
    )
