"""The status page: one response, no script, no external asset, readable in the dark and on a phone."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape

from node_anomaly_agent.snapshot import FEATURE_STATES, Snapshot, reasons
from node_anomaly_agent.units import UNKNOWN, format_age, format_fact, format_value

TOP_REASONS = 8
_FULL_SCALE = 2.0  # the gauge ends at twice the threshold

_STYLE = """
:root{color-scheme:light dark;--fg:#1b1f24;--dim:#5b6570;--bg:#fff;--line:#d9dee3;--ok:#1a7f4b;--bad:#b3261e;
--wait:#8a6100}
@media(prefers-color-scheme:dark){:root{--fg:#e6e9ec;--dim:#98a2ad;--bg:#14171a;--line:#31383f;--ok:#4cc38a;
--bad:#ff7b72;--wait:#e0b341}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:56rem;padding:1.25rem 1rem 3rem;background:var(--bg);color:var(--fg);
font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.15rem;margin:0}h2{font-size:1rem;margin:2rem 0 .5rem}
header,footer,.dim{color:var(--dim)}header h1{color:var(--fg)}
.verdict{font-size:1.6rem;font-weight:600;margin:1.25rem 0 .25rem}
.ok{color:var(--ok)}.bad{color:var(--bad)}.wait{color:var(--wait)}
svg{width:100%;height:1.6rem;display:block}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.95rem}
th,td{text-align:left;padding:.3rem .75rem .3rem 0;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:500;color:var(--dim)}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
code{font:.9em ui-monospace,monospace;overflow-wrap:anywhere}
a{color:inherit}
@media(max-width:36rem){td .dim,td br{display:none}th,td{padding-right:.5rem}table{font-size:.85rem}}
"""


def render_page(snapshot: Snapshot, telemetry_path: str, now: float) -> str:
    """The whole page for one snapshot at unix time `now`. Everything variable is escaped."""
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<title>{escape(_title(snapshot))}</title><style>{_STYLE}</style></head><body>",
        f"<header><h1>anomaly-agent</h1>up {format_age(now - snapshot.started)}, ",
        f"evaluates every {snapshot.interval_s:g} s</header><main>",
        _verdict(snapshot, now),
        _reasons(snapshot),
        _models(snapshot),
        _bundle(snapshot, now),
        _feature_states(snapshot),
        _collectors(snapshot),
        "</main><footer><p>",
        f'<a href="{escape(telemetry_path)}">metrics</a> · <a href="/-/ready">ready</a> · ',
        '<a href="/-/healthy">healthy</a></p></footer></body></html>',
    ]
    return "".join(parts)


def _title(snapshot: Snapshot) -> str:
    score = snapshot.score
    if score is None or not score.warm:
        return "anomaly-agent"
    return f"{score.score:.2f} - anomaly-agent"


def _verdict(snapshot: Snapshot, now: float) -> str:
    score, waiting = snapshot.score, snapshot.not_ready()
    if waiting:
        return _say("wait", "Not ready", waiting)
    if score is None:
        return _say("bad", "No score", "the last evaluation failed; see the agent's log")
    age = f"evaluated {format_age(now - score.timestamp)} ago"
    if not score.warm:
        done = f"{snapshot.warmup_done} of {snapshot.warmup_ticks} ticks"
        return _say("wait", "Warming up", f"{done}; there is no score yet. {age}")
    if math.isnan(score.score):
        return _say("bad", "No score", f"no model could judge this tick; {age}")
    kind, word = ("bad", "Anomalous") if score.score >= 1 else ("ok", "Normal")
    own = f"1.0 is this node's alarm threshold, {score.threshold_ratio:.2f} times what training promised"
    note = f"{own}; an alarm is three ticks in a row above it. {age}"
    return _say(kind, f"{word}: {score.score:.2f}", note) + _gauge(score.score, kind)


def _say(kind: str, headline: str, note: str) -> str:
    return f'<p class="verdict {kind}">{escape(headline)}</p><p class="dim">{escape(note)}</p>'


def _gauge(score: float, kind: str) -> str:
    """A bar from 0 to twice the threshold, with the threshold marked."""
    share = min(max(score, 0.0), _FULL_SCALE) / _FULL_SCALE
    return (
        f'<svg viewBox="0 0 100 8" preserveAspectRatio="none" role="img" aria-label="score {score:.2f} of 1">'
        '<rect x="0" y="2" width="100" height="4" fill="var(--line)"/>'
        f'<rect x="0" y="2" width="{100 * share:.1f}" height="4" fill="var(--{kind})"/>'
        '<rect x="49.8" y="0" width="0.4" height="8" fill="var(--fg)"/></svg>'
    )


def _reasons(snapshot: Snapshot) -> str:
    if not snapshot.warm:
        return ""
    rows = []
    for reason in reasons(snapshot, TOP_REASONS):
        feature = reason.feature
        if math.isnan(reason.share):
            continue
        name = f'<code>{escape(feature.name)}</code><br><span class="dim">{escape(feature.help)}</span>'
        observed, expected = (
            format_value(value, feature.unit) for value in (reason.observed, reason.expected)
        )
        rows.append((name, f"{100 * reason.share:.0f} %", escape(observed), escape(expected)))
    if not rows:
        return ""
    return _table("Why: what the score is made of", ("Feature", "Share", "Observed", "Expected"), rows, 1)


def _models(snapshot: Snapshot) -> str:
    if snapshot.bundle is None:
        return ""
    scores = {} if snapshot.score is None else snapshot.score.model_scores
    rows = []
    for name, kind in snapshot.bundle.models:
        value = scores.get(name, math.nan)
        shown = UNKNOWN if math.isnan(value) else f"{value:.2f}"
        rows.append((f"<code>{escape(name)}</code>", escape(kind), shown))
    return _table("Models", ("Model", "Type", "Score"), rows, 2)


def _bundle(snapshot: Snapshot, now: float) -> str:
    bundle, reload = snapshot.bundle, snapshot.reload
    if bundle is None:
        return ""
    rows = [
        ("Version", f"<code>{escape(bundle.version)}</code>"),
        ("Origin", escape(bundle.origin)),
        ("Trained", f"{format_age(now - bundle.trained_at)} ago"),
        ("Path", f"<code>{escape(bundle.path)}</code>"),
        *((escape(key), escape(format_fact(key, value))) for key, value in bundle.provenance.items()),
    ]
    if bundle.origin == "starter":
        rows.append(("Note", "trained on a simulated fleet; publish one trained on your own history"))
    if reload.reason and not reload.successful:
        refused = f'<span class="bad">{escape(reload.reason)}: {escape(reload.message)}</span>'
        rows.append(("Last reload refused", refused))
    return _table("Bundle", ("", ""), rows)


def _feature_states(snapshot: Snapshot) -> str:
    if snapshot.score is None:
        return ""
    names = [] if snapshot.bundle is None else [feature.name for feature in snapshot.bundle.features]
    rows = []
    for state in FEATURE_STATES:
        found = [name for name, one in zip(names, snapshot.score.states, strict=True) if one == state]
        listed = "" if state == "active" else ", ".join(f"<code>{escape(name)}</code>" for name in found)
        rows.append((escape(state), str(len(found)), listed))
    return _table("Features", ("State", "Count", ""), rows)


def _collectors(snapshot: Snapshot) -> str:
    rows = []
    for name, status in snapshot.collectors.items():
        state = ("ok", "ok") if status.success else ("wait", status.error)
        shown = f'<span class="{state[0]}">{escape(state[1])}</span>'
        rows.append((f"<code>{escape(name)}</code>", shown, format_value(status.duration_s, "seconds")))
    return _table("Collectors", ("Collector", "State", "Duration"), rows, 2) if rows else ""


def _table(title: str, head: tuple[str, ...], rows: Iterable[tuple[str, ...]], numbers_from: int = 99) -> str:
    """A table of cells that are HTML already; columns from `numbers_from` on are right-aligned."""

    def cells(tag: str, row: tuple[str, ...]) -> str:
        kinds = (' class="n"' if at >= numbers_from else "" for at in range(len(row)))
        return "".join(f"<{tag}{kind}>{cell}</{tag}>" for cell, kind in zip(row, kinds, strict=True))

    top = f"<thead><tr>{cells('th', head)}</tr></thead>" if any(head) else ""
    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<h2>{escape(title)}</h2><div class="scroll"><table>{top}<tbody>{body}</tbody></table></div>'
