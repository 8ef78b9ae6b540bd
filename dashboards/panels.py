"""What the four dashboards are made of: panels with a query, a unit and a description, variables, links.

Everything that Grafana would otherwise be told panel by panel is said here once: the data source is a
variable, the alarm threshold is a red line at 1, a node's name leads to the node.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as common_types
from grafana_foundation_sdk.models import dashboard as types
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SETTINGS = Path(__file__).resolve().parent.parent / "rules" / "settings.yml"
NODES = 'job=~"$job",instance=~"$instance"'
"""Selects what the variables say."""

SOURCE = types.DataSourceRef(type_val="prometheus", uid="${datasource}")
GREEN, YELLOW, RED = "green", "yellow", "red"

RATIO, SECONDS, BYTES, SCORE, COUNT, PER_SECOND = "percentunit", "s", "bytes", "none", "short", "cps"
DATE = "dateTimeFromNow"

Threshold = tuple[float, str]


@dataclass(frozen=True)
class Query:
    """An expression and how its series are called; `instant` asks for the last value only."""

    expr: str
    legend: str = ""
    instant: bool = False

    def built(self, at: int, *, as_table: bool = False) -> prometheus.Dataquery:
        """As target number `at` of a panel."""
        query = prometheus.Dataquery().expr(self.expr).ref_id(chr(ord("A") + at)).datasource(SOURCE)
        query = query.legend_format(self.legend or "__auto")
        if as_table:
            query = query.format(PromQueryFormat.TABLE)
        return query.instant() if self.instant or as_table else query.range()


def steps(thresholds: Sequence[Threshold]) -> dashboard.ThresholdsConfig:
    """Green, and from each value on its colour."""
    whole = [types.Threshold(value=None, color=GREEN)]
    whole += [types.Threshold(value=value, color=colour) for value, colour in thresholds]
    return dashboard.ThresholdsConfig().mode(types.ThresholdsMode.ABSOLUTE).steps(whole)


def link(title: str, url: str) -> dashboard.DashboardLink:
    """A link on data."""
    return dashboard.DashboardLink(title).type(types.DashboardLinkType.LINK).url(url)


def to_node(instance: str) -> dashboard.DashboardLink:
    """Leads from a node's name to the node; `instance` is how Grafana finds the name."""
    kept = "var-datasource=${datasource}&${job:queryparam}&${__url_time_range}"
    return link("Open this node", f"/d/node-anomaly-detection?var-instance=${{{instance}}}&{kept}")


def to_feature(feature: str) -> dashboard.DashboardLink:
    """Leads from a feature's name to its graphs."""
    kept = "var-datasource=${datasource}&${job:queryparam}&var-instance=$instance&${__url_time_range}"
    return link("Open this feature", f"/d/node-anomaly-detection?var-feature=${{{feature}}}&{kept}")


def graph(
    title: str,
    description: str,
    *queries: Query,
    unit: str = COUNT,
    width: int = 12,
    links: Sequence[Builder[types.DashboardLink]] = (),
    line: Threshold | None = None,
    top: float | None = None,
    stacked: bool = False,
) -> timeseries.Panel:
    """Lines over time, with a `line` at a threshold."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .min(0)
        .span(width)
        .height(8)
        .fill_opacity(8)
        .show_points(common_types.VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .show_legend(True)
            .display_mode(common_types.LegendDisplayMode.LIST)
            .placement(common_types.LegendPlacement.BOTTOM)
        )
        .tooltip(
            common.VizTooltipOptions()
            .mode(common_types.TooltipDisplayMode.MULTI)
            .sort(common_types.SortOrder.DESCENDING)
        )
    )
    for at, query in enumerate(queries):
        panel = panel.with_target(query.built(at))
    if line is not None:
        style = common.GraphThresholdsStyleConfig().mode(common_types.GraphThresholdsStyleMode.LINE)
        panel = panel.thresholds(steps([line])).thresholds_style(style)
    if links:
        panel = panel.data_links(list(links))
    if top is not None:
        panel = panel.max(top)
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(common_types.StackingMode.NORMAL)).fill_opacity(
            40
        )
    return panel


def number(
    title: str,
    description: str,
    expr: str,
    *,
    unit: str = COUNT,
    width: int = 4,
    thresholds: Sequence[Threshold] = (),
    legend: str = "",
    decimals: int | None = None,
) -> stat.Panel:
    """The last value, coloured by its thresholds."""
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .span(width)
        .height(4)
        .thresholds(steps(thresholds))
        .graph_mode(common_types.BigValueGraphMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        .with_target(Query(expr, legend, instant=True).built(0))
    )
    return panel if decimals is None else panel.decimals(decimals)


def bars(
    title: str,
    description: str,
    expr: str,
    legend: str,
    *,
    unit: str = RATIO,
    width: int = 12,
    thresholds: Sequence[Threshold] = (),
    links: Sequence[Builder[types.DashboardLink]] = (),
) -> bargauge.Panel:
    """A bar for each series, now."""
    panel = (
        bargauge.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .min(0)
        .span(width)
        .height(8)
        .thresholds(steps(thresholds))
        .orientation(common_types.VizOrientation.HORIZONTAL)
        .display_mode(common_types.BarGaugeDisplayMode.GRADIENT)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        .with_target(Query(expr, legend, instant=True).built(0))
    )
    return panel.data_links(list(links)) if links else panel


@dataclass(frozen=True)
class Column:
    """A label or value of a table: what it is called in the answer and on the page, its unit, its link."""

    name: str
    title: str
    unit: str = ""
    link: Builder[types.DashboardLink] | None = None


def rows(
    title: str,
    description: str,
    queries: Sequence[Query],
    columns: Sequence[Column],
    *,
    width: int = 12,
    by: str = "",
    height: int = 8,
) -> table.Panel:
    """A table of what is now; several queries are joined by their labels. Only `columns` are shown."""
    panel = table.Panel().title(title).description(description).datasource(SOURCE).span(width).height(height)
    for at, query in enumerate(queries):
        panel = panel.with_target(query.built(at, as_table=True))
    if len(queries) > 1:
        panel = panel.with_transformation(types.DataTransformerConfig(id_val="merge", options={}))
    shown = {column.name: at for at, column in enumerate(columns)}
    organize = {
        "includeByName": dict.fromkeys(shown, True),
        "indexByName": shown,
        "renameByName": {column.name: column.title for column in columns},
    }
    panel = panel.with_transformation(types.DataTransformerConfig(id_val="organize", options=organize))
    for column in columns:
        properties = []
        if column.unit:
            properties.append(types.DynamicConfigValue(id_val="unit", value=column.unit))
        if column.link is not None:
            properties.append(types.DynamicConfigValue(id_val="links", value=[column.link.build().to_json()]))
        if properties:
            panel = panel.override_by_name(column.title, properties)
    if by:
        panel = panel.sort_by([common.TableSortByFieldState().display_name(by).desc(True)])
    return panel


def states(title: str, description: str, *queries: Query, width: int = 24) -> statetimeline.Panel:
    """A stripe over time for each series that is 0 or 1."""
    panel = (
        statetimeline.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit("bool_yes_no")
        .span(width)
        .height(6)
        .thresholds(steps([(1, RED)]))
        .color_scheme(dashboard.FieldColor().mode(types.FieldColorModeId.THRESHOLDS))
        .show_value(common_types.VisibilityMode.NEVER)
        .merge_values(True)
    )
    for at, query in enumerate(queries):
        panel = panel.with_target(query.built(at))
    return panel


def setting(name: str) -> str:
    """A value of rules/settings.yml, so that a line in a picture is where the alert begins."""
    return str(yaml.safe_load(SETTINGS.read_text(encoding="utf-8"))[name])


def runbooks() -> str:
    """Where docs/runbooks/ is served, as the rules say it."""
    return setting("runbooks")
