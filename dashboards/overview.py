"""The fleet: who is in alarm, what the alarms have in common, which resources are short or idle."""

from __future__ import annotations

from dashboards.frame import filled, frame
from dashboards.panels import (
    NODES,
    RATIO,
    RED,
    SCORE,
    YELLOW,
    Column,
    Query,
    bars,
    graph,
    link,
    number,
    rows,
    runbooks,
    setting,
    states,
    to_node,
)
from grafana_foundation_sdk.builders import dashboard

JOBS = 'job=~"$job"'


def build() -> dashboard.Dashboard:
    """The dashboard `node-anomaly-overview`."""
    page = frame(
        "node-anomaly-overview",
        "Is the fleet as it normally is? From here to a node by its name. Needs rules/recording.yml.",
    )
    page = filled(
        page,
        number(
            "Nodes watched",
            "Nodes with a score. Those that are not warm yet are missing here.",
            f"count(anomaly_score{{{NODES}}})",
        ),
        number(
            "In alarm",
            "Nodes whose score has been at 1 or above for three ticks.",
            f"sum(instance:anomaly_alarm:bool{{{NODES}}})",
            thresholds=[(1, YELLOW)],
        ),
        number(
            "Share in alarm",
            "From 20 % of five nodes or more on it is the fleet's anomaly.",
            f"avg(instance:anomaly_alarm:bool{{{NODES}}})",
            unit=RATIO,
            thresholds=[(0.1, YELLOW), (0.2, RED)],
        ),
        number(
            "Suffering",
            "Nodes with a symptom, whether in alarm or not.",
            f"sum(max by (job, instance) (instance:anomaly_symptom:bool{{{NODES}}}))",
            thresholds=[(1, YELLOW)],
        ),
        number(
            "Highest score",
            "1 is the alarm threshold on every node.",
            f"max(anomaly_score{{{NODES}}})",
            unit=SCORE,
            decimals=2,
            thresholds=[(1, RED)],
        ),
        number(
            "Agents down",
            "Targets that Prometheus cannot scrape.",
            f"sum(up{{{NODES}}} == bool 0)",
            thresholds=[(1, RED)],
        ),
        graph(
            "Highest scores",
            "The ten nodes that are farthest from normal at each moment. The line is the alarm threshold.",
            Query(f"topk(10, anomaly_score{{{NODES}}})", "{{instance}}"),
            unit=SCORE,
            line=(1, RED),
            links=[to_node("__field.labels.instance")],
        ),
        graph(
            "Share of nodes in alarm",
            "Over all nodes of a job. The line is where FleetAnomalous begins.",
            Query(f"job:anomaly_nodes_in_alarm:ratio{{{JOBS}}}", "{{job}}"),
            unit=RATIO,
            line=(0.2, RED),
            top=1,
        ),
        rows(
            "Nodes",
            "Every node with its score, now and at its highest in the chosen time. A name opens the node.",
            [
                Query(f"anomaly_score{{{NODES}}}"),
                Query(f"max_over_time(anomaly_score{{{NODES}}}[$__range])"),
            ],
            [
                Column("instance", "Node", link=to_node("__value.text")),
                Column("Value #A", "Score", SCORE),
                Column("Value #B", "Highest", SCORE),
            ],
            by="Score",
        ),
        rows(
            "Firing alerts",
            "All alerts of node-anomaly. A name opens its runbook.",
            [
                Query(
                    'ALERTS{alertstate="firing",alertname=~"(Node|Fleet)(Group|Anomal|Saturation).*|Anomaly.*"}'
                )
            ],
            [
                Column(
                    "alertname", "Alert", link=link("Open its runbook", runbooks() + "/${__value.text}.md")
                ),
                Column("severity", "Severity"),
                Column("instance", "Node", link=to_node("__value.text")),
            ],
        ),
        bars(
            "What the alarms have in common",
            "Mean share of each feature in the score, over the nodes in alarm. Empty without an alarm.",
            f"topk(8, job_feature:anomaly_contribution_in_alarm:avg{{{JOBS}}})",
            "{{feature}}",
            width=8,
        ),
        bars(
            "Episodes in the last hour",
            "Alarms that began, of the nodes that had most. One episode may last long.",
            f"topk(10, instance:anomaly_episodes:increase1h{{{NODES}}})",
            "{{instance}}",
            unit="none",
            width=8,
            links=[to_node("__field.labels.instance")],
        ),
        graph(
            "Alarms against the budget",
            "Episodes of the last week as a multiple of the false-alarm budget, true ones included. "
            "AnomalyAlarmsOverBudget begins at the line.",
            Query(f"job:anomaly_episodes_budget:ratio{{{JOBS}}}", "{{job}}"),
            unit="none",
            width=8,
            line=(float(setting("budget_times")), RED),
        ),
        states(
            "Nodes in alarm",
            "One stripe for each node.",
            Query(f"instance:anomaly_alarm:bool{{{NODES}}}", "{{instance}}"),
            width=24,
        ),
    )
    page = page.with_row(dashboard.Row("Capacity"))
    return filled(
        page,
        rows(
            "Busiest resources",
            "Share in use in all but the busiest 5 % of the last week: what should be larger.",
            [Query(f"topk(20, instance:anomaly_capacity_used:p95_7d{{{NODES}}})")],
            [
                Column("instance", "Node", link=to_node("__value.text")),
                Column("resource", "Resource"),
                Column("Value", "Used", RATIO),
            ],
            by="Used",
            width=8,
        ),
        bars(
            "Idlest nodes",
            "The busiest of CPU, memory and disk of each node, in all but the busiest 5 % of a week: what "
            "could be smaller.",
            f"bottomk(10, instance:anomaly_capacity_busiest:max_p95_7d{{{NODES}}})",
            "{{instance}}",
            width=8,
            thresholds=[(0.7, YELLOW), (0.9, RED)],
            links=[to_node("__field.labels.instance")],
        ),
        bars(
            "Fleet by resource",
            "Mean over all nodes of what they use in all but the busiest 5 % of a week.",
            f"job_resource:anomaly_capacity_used:avg_p95_7d{{{JOBS}}}",
            "{{resource}}",
            width=8,
            thresholds=[(0.7, YELLOW), (0.9, RED)],
        ),
        graph(
            "Used share of the fullest",
            "The ten fullest resources, five-minute means. Straight lines upwards are what "
            "NodeSaturationForecast is about.",
            Query(f"topk(10, instance:anomaly_capacity_used:ratio{{{NODES}}})", "{{instance}} {{resource}}"),
            unit=RATIO,
            width=24,
            top=1,
        ),
    )
