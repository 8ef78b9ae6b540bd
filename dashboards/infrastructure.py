"""The agents themselves: do they run, do they keep up, what do they cost, what can they not see."""

from __future__ import annotations

from dashboards.frame import filled, frame
from dashboards.panels import (
    BYTES,
    NODES,
    PER_SECOND,
    RATIO,
    RED,
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


def build() -> dashboard.Dashboard:
    """The dashboard `node-anomaly-infrastructure`."""
    page = frame(
        "node-anomaly-infrastructure", "Do the agents run, keep up and see everything, and what do they cost?"
    )
    return filled(
        page,
        number("Agents up", "Targets that answer.", f"sum(up{{{NODES}}})"),
        number(
            "Warm",
            "Share of agents that know enough of their node to score it.",
            f"avg(anomaly_agent_warm{{{NODES}}})",
            unit=RATIO,
        ),
        number(
            "Oldest evaluation",
            "Of all agents. A few intervals are usual.",
            f"max(time() - anomaly_agent_last_evaluation_timestamp_seconds{{{NODES}}})",
            unit=SECONDS,
            thresholds=[(60, YELLOW), (120, RED)],
        ),
        number(
            "Failing evaluations",
            "Agents of which some evaluation failed in the last five minutes.",
            f"sum(instance:anomaly_agent_evaluation_failures:rate5m{{{NODES}}} > bool 0)",
            thresholds=[(1, RED)],
        ),
        number(
            "Failing collectors",
            "Over all agents.",
            f"sum(anomaly_agent_collector_success{{{NODES}}} == bool 0)",
            thresholds=[(1, RED)],
        ),
        number(
            "Memory, largest",
            "Resident. The budget is 64 MiB.",
            f"max(process_resident_memory_bytes{{{NODES}}})",
            unit=BYTES,
            thresholds=[(104_857_600, YELLOW)],
        ),
        number(
            "Blind",
            "Agents whose self-test does not find the anomaly that it makes up.",
            f"sum(anomaly_agent_selftest_success{{{NODES}}} == bool 0)",
            width=12,
            thresholds=[(1, RED)],
        ),
        number(
            "Degraded",
            "Agents that score with fewer models than their bundle has.",
            f"sum(anomaly_agent_degradation_level{{{NODES}}} > bool 0)",
            width=12,
            thresholds=[(1, YELLOW)],
        ),
        graph(
            "Time of an evaluation",
            "95 % are faster, by phase, of the slowest agent. AnomalyScoringSlow begins at the line.",
            Query(
                f"max by (phase) (instance:anomaly_agent_evaluation_duration_seconds:p95_5m{{{NODES}}})",
                "{{phase}}",
            ),
            unit=SECONDS,
            line=(0.1, RED),
        ),
        graph(
            "Slowest collectors",
            "Time that reading each part of the host took, of the slowest agent.",
            Query(
                f"topk(8, max by (collector) (anomaly_agent_collector_duration_seconds{{{NODES}}}))",
                "{{collector}}",
            ),
            unit=SECONDS,
        ),
        graph(
            "Evaluations",
            "Per second, over all agents; failed and skipped ones by reason.",
            Query(f"sum(rate(anomaly_agent_evaluations_total{{{NODES}}}[$__rate_interval]))", "evaluated"),
            Query(
                "sum by (reason) "
                f"(rate(anomaly_agent_evaluation_failures_total{{{NODES}}}[$__rate_interval]))",
                "failed: {{reason}}",
            ),
            Query(
                "sum by (reason) "
                f"(rate(anomaly_agent_evaluation_skipped_total{{{NODES}}}[$__rate_interval]))",
                "skipped: {{reason}}",
            ),
            unit=PER_SECOND,
        ),
        graph(
            "Features by state",
            "Over all agents: active, constant (never moved here), missing, imputed.",
            Query(f"sum by (state) (anomaly_agent_features{{{NODES}}})", "{{state}}"),
            stacked=True,
        ),
        graph(
            "CPU",
            "Cores that the ten busiest agents use.",
            Query(f"topk(10, instance:anomaly_agent_cpu_seconds:rate5m{{{NODES}}})", "{{instance}}"),
            unit="none",
            links=[to_node("__field.labels.instance")],
        ),
        graph(
            "Memory",
            "Resident memory of the ten largest agents.",
            Query(f"topk(10, process_resident_memory_bytes{{{NODES}}})", "{{instance}}"),
            unit=BYTES,
            links=[to_node("__field.labels.instance")],
        ),
        graph(
            "File descriptors",
            "Open ones as a share of the limit, of the agent that is nearest to it.",
            Query(f"max(process_open_fds{{{NODES}}} / process_max_fds{{{NODES}}})", "used"),
            unit=RATIO,
            width=8,
            top=1,
        ),
        graph(
            "State that could not be kept",
            "Failed attempts to load or save what survives a restart.",
            Query(
                f"sum by (operation) (rate(anomaly_agent_state_failures_total{{{NODES}}}[$__rate_interval]))",
                "{{operation}}",
            ),
            unit=PER_SECOND,
            width=8,
        ),
        graph(
            "Log lines not looked at",
            "Counted, but without a pattern, for want of time or because no agent ran.",
            Query(
                f"sum by (reason) (rate(anomaly_agent_log_lines_dropped_total{{{NODES}}}[$__rate_interval]))",
                "{{reason}}",
            ),
            Query(
                f"sum(rate(anomaly_agent_log_lines_unmined_total{{{NODES}}}[$__rate_interval]))", "unmined"
            ),
            unit=PER_SECOND,
            width=8,
        ),
        bars(
            "Collectors that work",
            "Share of agents on which each collector could read its part of the host.",
            f"avg by (collector) (anomaly_agent_collector_success{{{NODES}}})",
            "{{collector}}",
        ),
        rows(
            "Agents",
            "Version, interval and time since the start of each. A name opens the node.",
            [
                Query(f"max by (instance, version, pythonversion) (anomaly_agent_build_info{{{NODES}}})"),
                Query(f"max by (instance) (anomaly_agent_interval_seconds{{{NODES}}})"),
                Query(f"max by (instance) (time() - process_start_time_seconds{{{NODES}}})"),
            ],
            [
                Column("instance", "Node", link=to_node("__value.text")),
                Column("version", "Version"),
                Column("pythonversion", "Python"),
                Column("Value #B", "Interval", SECONDS),
                Column("Value #C", "Running for", SECONDS),
            ],
        ),
    )
