"""The models: which bundles are used, whether they arrive, what a candidate would say, how training went.

The last part needs the metrics of the trainer.
"""

from __future__ import annotations

from dashboards.frame import filled, frame
from dashboards.panels import (
    COUNT,
    NODES,
    RATIO,
    RED,
    SCORE,
    SECONDS,
    YELLOW,
    Column,
    Query,
    bars,
    graph,
    number,
    rows,
    to_node,
)
from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models.common import BigValueTextMode


def build() -> dashboard.Dashboard:
    """The dashboard `node-anomaly-models`."""
    page = frame(
        "node-anomaly-models",
        "Which models score the fleet, how they got there, and whether the next ones will be better. The "
        "trainer's part needs its metrics in Prometheus (docs/publishing.md).",
    )
    page = filled(
        page,
        number(
            "Bundles in use",
            "Versions. More than one is usual during a staged rollout.",
            f"count(count by (version) (anomaly_model_info{{{NODES}}}))",
        ),
        number(
            "Oldest models",
            "Time since training, of the node that has the oldest.",
            f"max(time() - anomaly_model_trained_timestamp_seconds{{{NODES}}})",
            unit=SECONDS,
            thresholds=[(1_209_600, YELLOW), (2_592_000, RED)],
        ),
        number(
            "Refusals",
            "Bundles that agents refused in the chosen time.",
            f"sum(increase(anomaly_agent_bundle_reload_failures_total{{{NODES}}}[$__range]))",
            thresholds=[(1, RED)],
            decimals=0,
        ),
        number(
            "Rollbacks",
            "New bundles that agents left because they raised far too many alarms.",
            f"sum(increase(anomaly_agent_bundle_rollbacks_total{{{NODES}}}[$__range]))",
            thresholds=[(1, RED)],
            decimals=0,
        ),
        number(
            "Signed",
            "Share of nodes whose bundle was signed by a key that they trust; 0 where none is asked for.",
            f"avg(anomaly_agent_bundle_signature_verified{{{NODES}}})",
            unit=RATIO,
        ),
        number(
            "Median own threshold",
            "As a multiple of what training promised. Far from 1, the fleet is not what was trained on.",
            f"quantile(0.5, anomaly_agent_threshold_ratio{{{NODES}}})",
            unit=SCORE,
            decimals=2,
        ),
        graph(
            "Nodes by bundle",
            "How a rollout proceeds.",
            Query(
                "count by (version, origin) "
                f"(max by (instance, version, origin) (anomaly_model_info{{{NODES}}}))",
                "{{origin}} {{version}}",
            ),
            width=8,
            stacked=True,
        ),
        graph(
            "Looks for a new bundle",
            "Per second, by what came of it. Failures have a reason in "
            "anomaly_agent_bundle_fetch_failures_total.",
            Query(
                f"sum by (result) (rate(anomaly_agent_bundle_fetches_total{{{NODES}}}[$__rate_interval]))",
                "{{result}}",
            ),
            unit="cps",
            width=8,
        ),
        rows(
            "Bundle of each node",
            "What scores each node. A name opens the node.",
            [Query(f"max by (instance, version, origin) (anomaly_model_info{{{NODES}}})")],
            [
                Column("instance", "Node", link=to_node("__value.text")),
                Column("version", "Bundle"),
                Column("origin", "From"),
            ],
            width=8,
        ),
        graph(
            "Candidate against the bundle in use",
            "The highest score of the nodes on which a candidate is scored beside, and of all nodes with the "
            "bundle in use. Above 1 is an alarm.",
            Query(f"max(anomaly_shadow_score{{{NODES}}})", "candidate, highest"),
            Query(f"max(anomaly_score{{{NODES}}})", "in use, highest"),
            unit=SCORE,
            line=(1, RED),
        ),
        bars(
            "Do they agree?",
            "Ticks of the chosen time by which of the two was at 1 or above.",
            f"sum by (agreement) (increase(anomaly_shadow_evaluations_total{{{NODES}}}[$__range]))",
            "{{agreement}}",
            unit=COUNT,
        ),
    )
    page = page.with_row(dashboard.Row("Trainer"))
    return filled(
        page,
        number(
            "Last run",
            "How it ended.",
            "anomaly_trainer_run_outcome == 1",
            legend="{{outcome}}",
        ).text_mode(BigValueTextMode.NAME),
        number(
            "Time since the last run",
            "However it ended. Two weeks are two runs of a weekly timer.",
            "time() - max(anomaly_trainer_last_run_timestamp_seconds)",
            unit=SECONDS,
            thresholds=[(1_209_600, RED)],
        ),
        number(
            "Accuracy",
            "Share of held-back ticks, faults injected, that the last candidate judged rightly.",
            "min(model_accuracy and on (job, instance) anomaly_trainer_last_run_timestamp_seconds)",
            unit=RATIO,
        ),
        number(
            "Reasons against it",
            "Of the gate. With one or more the candidate was not published.",
            "max(anomaly_trainer_gate_reasons)",
            thresholds=[(1, RED)],
        ),
        number(
            "Features that moved",
            "Since training, by population stability index.",
            "max(anomaly_trainer_features_drifted)",
            thresholds=[(1, YELLOW), (4, RED)],
        ),
        number(
            "CPU of a tick",
            "Of the last candidate, measured by the gate.",
            "max(anomaly_trainer_tick_cpu_seconds)",
            unit=SECONDS,
        ),
        bars(
            "Injected faults found",
            "At equal false alarms. The combined score should not be below PCA or k-means.",
            "anomaly_trainer_fault_recall_ratio",
            "{{detector}}",
            width=8,
        ),
        graph(
            "False alarms per node and week",
            "Of the last candidate on held-back normal data, and the budget that was asked for.",
            Query("max(anomaly_trainer_false_alarms_per_node_week)", "candidate"),
            Query("max(anomaly_trainer_false_alarm_budget_per_node_week)", "budget"),
            width=8,
        ),
        graph(
            "Where a run's time goes",
            "Seconds of each phase of the last run.",
            Query("anomaly_trainer_phase_duration_seconds", "{{phase}}"),
            unit=SECONDS,
            width=8,
            stacked=True,
        ),
        bars(
            "Drift",
            "Population stability index of the features that moved farthest; 0.25 and more is a move.",
            "topk(12, anomaly_trainer_feature_drift_psi)",
            "{{feature}}",
            unit=SCORE,
            width=12,
            thresholds=[(0.1, YELLOW), (0.25, RED)],
        ),
        graph(
            "Drift over time",
            "Largest population stability index and Kolmogorov-Smirnov distance over all features.",
            Query("max(anomaly_trainer_feature_drift_psi_max)", "PSI"),
            Query("max(anomaly_trainer_feature_drift_ks_max)", "KS"),
            unit=SCORE,
            line=(0.25, RED),
        ),
    )
