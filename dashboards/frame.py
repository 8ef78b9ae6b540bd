"""What is around the panels of every dashboard: variables, links to others and to runbooks, annotations."""

from __future__ import annotations

from dashboards.panels import NODES, SOURCE, runbooks
from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as types

TITLES = {
    "node-anomaly-overview": "Fleet",
    "node-anomaly-detection": "Node",
    "node-anomaly-models": "Models",
    "node-anomaly-infrastructure": "Agents",
}
"""In the order of a drill-down: uid -> the word in the title."""


def variable(
    name: str, label: str, query: str, *, one: bool = False, listed: bool = False, description: str = ""
) -> dashboard.QueryVariable:
    """The values of a label, asked for when the time range changes; all of them unless `one` is wanted.

    All are `.+`, which ten thousand nodes do not make longer, or a list of them if that is wanted.
    """
    built = (
        dashboard.QueryVariable(name)
        .label(label)
        .description(description)
        .datasource(SOURCE)
        .query({"query": query, "refId": f"variable-{name}"})
        .refresh(types.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(types.VariableSort.ALPHABETICAL_ASC)
    )
    if one:
        return built
    several = built.multi(True).include_all(True)
    return several if listed else several.all_value(".+")


def mark(name: str, expr: str, colour: str) -> dashboard.AnnotationQuery:
    """Moments in which `expr` has a sample, drawn into every graph."""
    return (
        dashboard.AnnotationQuery().name(name).datasource(SOURCE).enable(True).icon_color(colour).expr(expr)
    )


def filled(page: dashboard.Dashboard, *panels: Builder[types.Panel]) -> dashboard.Dashboard:
    """The page with these panels, from left to right and down."""
    for panel in panels:
        page = page.with_panel(panel)
    return page


def frame(uid: str, description: str, *, one_node: bool = False) -> dashboard.Dashboard:
    """A dashboard without panels; with `one_node`, of a single node and a feature of it."""
    page = (
        dashboard.Dashboard(f"node-anomaly / {TITLES[uid]}")
        .uid(uid)
        .description(description)
        .tags(["node-anomaly"])
        .editable()
        .refresh("30s")
        .time("now-6h", "now")
        .timezone("browser")
        .tooltip(types.DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        # Listed: `up` and `process_*` of everything else that Prometheus scrapes are no agent's.
        .with_variable(variable("job", "Job", "label_values(anomaly_agent_build_info, job)", listed=True))
        .with_variable(
            variable(
                "instance",
                "Node",
                'label_values(anomaly_agent_build_info{job=~"$job"}, instance)',
                one=one_node,
            )
        )
    )
    if one_node:
        found = f"label_values(anomaly_feature_value{{{NODES}}}, feature)"
        page = page.with_variable(variable("feature", "Feature", found, one=True))
    for other, title in TITLES.items():
        if other != uid:
            to = dashboard.DashboardLink(title).type(types.DashboardLinkType.LINK).url(f"/d/{other}")
            page = page.link(to.keep_time(True).include_vars(True).icon("dashboard"))
    read = dashboard.DashboardLink("Runbooks").type(types.DashboardLinkType.LINK).url(runbooks())
    page = page.link(read.target_blank(True).icon("doc"))
    page = page.annotation(mark("Episodes", f"anomaly_agent_episode_open{{{NODES}}} == 1", "red"))
    # Not the time of the last reload, which every restart sets anew.
    changed = f"changes(anomaly_model_trained_timestamp_seconds{{{NODES}}}[2m]) > 0"
    return page.annotation(mark("Bundle changes", changed, "blue"))
