"""The status page: one response, no script, no external asset, readable in the dark and on a phone.

It is rendered when it is asked for, from the last snapshot alone.
"""

from __future__ import annotations

import math

from node_anomaly_agent.page_episodes import episodes_card
from node_anomaly_agent.page_forecast import forecast_card
from node_anomaly_agent.page_html import score_text, text
from node_anomaly_agent.page_plot import plot
from node_anomaly_agent.page_sections import (
    agent_card,
    attention_card,
    bundle_card,
    collectors_card,
    features_card,
    models_card,
    reasons_card,
)
from node_anomaly_agent.page_style import STYLE
from node_anomaly_agent.site import Site
from node_anomaly_agent.snapshot import Snapshot
from node_anomaly_agent.units import OUTGROWN, format_age, threshold_words


def render_page(snapshot: Snapshot, site: Site, now: float) -> str:
    """The whole page for one snapshot at unix time `now`. Everything variable is escaped."""
    name = site.node or "anomaly-agent"
    about = [
        f"up {format_age(now - snapshot.started)}",
        f"evaluates every {snapshot.interval_s:g} s",
        f"anomaly-agent {site.version}",
    ]
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<title>{text(_title(snapshot, name))}</title>",
        f"<style>{STYLE}</style></head><body>",
        f"<header><h1>{text(name)}</h1>{''.join(f'<span>{text(one)}</span>' for one in about)}</header>",
        '<main class="grid">',
        attention_card(snapshot),
        f'<section class="card">{_verdict(snapshot, now)}{_picture(snapshot, now)}</section>',
        reasons_card(snapshot),
        models_card(snapshot),
        features_card(snapshot),
        forecast_card(snapshot, now),
        episodes_card(snapshot, now),
        bundle_card(snapshot, now),
        collectors_card(snapshot),
        agent_card(snapshot),
        f"</main><footer>{_links(site)}</footer></body></html>",
    ]
    return "".join(parts)


def _title(snapshot: Snapshot, name: str) -> str:
    score = snapshot.score
    if score is None or not score.warm or math.isnan(score.score):
        return name
    return f"{score_text(score.score)} {name}"


def _verdict(snapshot: Snapshot, now: float) -> str:
    score, waiting = snapshot.score, snapshot.not_ready()
    if waiting:
        return _say("wait", "Not ready", waiting)
    if score is None:
        return _say("bad", "No score", "the last evaluation failed; see the agent's log")
    age = f"Evaluated {format_age(now - score.timestamp)} ago"
    if not score.warm:
        done = f"{snapshot.warmup_done} of {snapshot.warmup_ticks} ticks"
        return _say("wait", "Warming up", f"{done}; there is no score yet. {age}")
    if math.isnan(score.score):
        return _say("bad", "No score", f"no model could judge this tick. {age}")
    kind, word = ("bad", "Anomalous") if score.score >= 1 else ("ok", "Normal")
    if score.outgrown:
        kind, word = "wait", "Not recovered"
    own = threshold_words(score.threshold_ratio, score.threshold_learnt)
    note = f"1.0 is this node's alarm threshold, {own}; an alarm is three ticks in a row above it. {age}"
    outgrown = f"<p>{text(OUTGROWN[0].upper() + OUTGROWN[1:])}.</p>" if score.outgrown else ""
    return _say(kind, f"{word}: {score_text(score.score)}", note) + outgrown


def _picture(snapshot: Snapshot, now: float) -> str:
    quiet = (
        '<p class="dim">A quiet window holds back new episodes now.</p>' if snapshot.episodes.quiet else ""
    )
    return quiet + plot(snapshot.history, now, listed=not snapshot.episodes.recent)


def _say(kind: str, headline: str, note: str) -> str:
    return f'<p class="verdict {kind}">{text(headline)}</p><p class="dim">{text(note)}</p>'


def _links(site: Site) -> str:
    links = (
        (site.telemetry_path, "metrics"),
        ("/-/ready", "ready"),
        ("/-/healthy", "healthy"),
        ("/api/v1/score", "score as JSON"),
        ("/api/v1/explain", "explanation as JSON"),
        ("/api/v1/episodes", "episodes as JSON"),
    )
    return "".join(f'<a href="{text(path)}">{text(name)}</a>' for path, name in links)
