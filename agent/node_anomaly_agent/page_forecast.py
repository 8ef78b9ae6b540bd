"""The card of the status page that says what is expected of the next hour."""

from __future__ import annotations

import math

from node_anomaly_agent.forecast_status import leaving_words
from node_anomaly_agent.page_html import card, code, score_bar, score_text, table, text
from node_anomaly_agent.snapshot import Snapshot
from node_anomaly_agent.units import UNKNOWN, format_age
from node_anomaly_core.forecast import horizon_label

LISTED = 6


def forecast_card(snapshot: Snapshot, now: float) -> str:
    """Expected scores, and the features expected to leave their normal range; nothing without a forecast."""
    forecast = snapshot.forecast.forecast
    if forecast is None:
        return ""
    rows = [
        (
            f"in {text(horizon_label(seconds))}",
            UNKNOWN if math.isnan(score) else f"{score_text(score)}{score_bar(score)}",
        )
        for seconds, score in forecast.scores.items()
    ]
    content = f'<div class="narrow">{table(("Expected", "Score"), rows, 1)}</div>'
    leaving = [
        f"<li>{code(one.feature.name)} {text(leaving_words(one))}</li>" for one in forecast.leaving[:LISTED]
    ]
    if leaving:
        content += f"<p>Expected to leave their normal range:</p><ul>{''.join(leaving)}</ul>"
    made = f'<p class="dim">Made {text(format_age(now - forecast.made_at))} ago.</p>'
    return card("Forecast", content + made)
