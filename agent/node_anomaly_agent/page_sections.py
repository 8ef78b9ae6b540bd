"""The cards of the status page: why, models, features, collectors, bundle, and the agent itself."""

from __future__ import annotations

import math
from collections.abc import Mapping

from node_anomaly_agent.page_html import card, code, facts, score_bar, score_text, share_bar, table, text
from node_anomaly_agent.sampler import CollectorStatus
from node_anomaly_agent.snapshot import FEATURE_STATES, Reason, Snapshot, reasons
from node_anomaly_agent.units import UNKNOWN, format_age, format_fact, format_value
from node_anomaly_core.witnesses import in_words

TOP_REASONS = 8
LISTED_NAMES = 60
LISTED_FACTS = 24

_STATE_NOTES = {
    "active": "moves, and is judged",
    "constant": "never moved here; its first move can alarm",
    "imputed": "was seen before, but not now",
    "missing": "never seen on this node",
}


def attention_card(snapshot: Snapshot) -> str:
    """What somebody should look at; nothing at all when there is nothing."""
    lines = []
    reload = snapshot.reload
    if reload.reason and not reload.successful:
        kept = "the one below stays in use" if snapshot.bundle is not None else "nothing is scored"
        lines.append(f"<b>A bundle was refused</b> ({text(reload.reason)}): {text(reload.message)}; {kept}.")
    for name, status in snapshot.collectors.items():
        if not status.success and not status.missing:
            lines.append(f"<b>Collector {code(name)} fails</b>: {text(status.error)}")
    lines += [
        f"<b>Fetching the {text(fetch.source)} bundle fails</b>: {text(fetch.message)}"
        for fetch in snapshot.distribution.fetches
        if fetch.message
    ]
    shadow = snapshot.distribution.shadow
    if shadow is not None and shadow.message:
        lines.append(f"<b>The candidate bundle is not tried</b>: {text(shadow.message)}")
    if any(snapshot.counters.state_failures.values()):
        lines.append("<b>State could not be loaded or saved</b>: see the agent's log.")
    if not lines:
        return ""
    return card("Needs attention", "<ul>" + "".join(f"<li>{line}</li>" for line in lines) + "</ul>", "alert")


def reasons_card(snapshot: Snapshot) -> str:
    """The features that make the score, with what was expected of each."""
    if not snapshot.warm:
        return ""
    rows = [_reason(one) for one in reasons(snapshot, TOP_REASONS) if not math.isnan(one.share)]
    if not rows:
        return ""
    head = ("Feature", "Share", "Observed", "Expected")
    return card("Why: what the score is made of", table(head, rows, 1), "why two-thirds")


def _reason(reason: Reason) -> tuple[str, ...]:
    feature = reason.feature
    observed, expected = (format_value(value, feature.unit) for value in (reason.observed, reason.expected))
    way = ""
    if observed != expected:
        if reason.observed > reason.expected:
            way = '<span title="above what was expected">▲</span> '
        elif reason.observed < reason.expected:
            way = '<span title="below what was expected">▼</span> '
    return (
        f'{code(feature.name)}<div class="dim help">{text(feature.help)}</div>',
        f"{100 * reason.share:.0f} %{share_bar(reason.share)}",
        way + text(observed),
        text(expected),
    )


def models_card(snapshot: Snapshot) -> str:
    """Each model's own score."""
    if snapshot.bundle is None:
        return ""
    scores = {} if snapshot.score is None else snapshot.score.model_scores
    rows = []
    for name, kind in snapshot.bundle.models:
        value = scores.get(name, math.nan)
        shown = UNKNOWN if math.isnan(value) else f"{score_text(value)}{score_bar(value)}"
        label = code(name) if name == kind else f'{code(name)}<div class="dim">{text(kind)}</div>'
        rows.append((label, shown))
    content = table(("Model", "Score alone"), rows, 1)
    if snapshot.bundle.witnesses:
        agree = text(in_words(snapshot.bundle.witnesses))
        content += f'<p class="dim">An alarm needs this much of its evidence from: {agree}.</p>'
    if snapshot.score is not None and snapshot.score.held_back_by:
        missing = text(in_words(snapshot.score.held_back_by))
        said = "all models together reach the threshold, without the agreement of"
        content += f"<p><b>Held back:</b> {said} {missing}.</p>"
    return card("Models", content, "third")


def features_card(snapshot: Snapshot) -> str:
    """How many features are in which state, and which."""
    if snapshot.score is None or snapshot.bundle is None:
        return ""
    names = [feature.name for feature in snapshot.bundle.features]
    content = []
    for state in FEATURE_STATES:
        found = [name for name, one in zip(names, snapshot.score.states, strict=True) if one == state]
        title = f'<b>{len(found)}</b> {text(state)} <span class="dim">{text(_STATE_NOTES[state])}</span>'
        if not found:
            content.append(f'<p class="none">{title}</p>')
            continue
        more = f" and {len(found) - LISTED_NAMES} more" if len(found) > LISTED_NAMES else ""
        listed = ", ".join(code(name) for name in found[:LISTED_NAMES]) + more
        content.append(f"<details><summary>{title}</summary><p>{listed}</p></details>")
    return card("Features", "".join(content), "third")


def collectors_card(snapshot: Snapshot) -> str:
    """Which parts of the host could be read."""
    rows = []
    for name, status in sorted(snapshot.collectors.items(), key=_failing_first):
        kind = "ok" if status.success else "dim" if status.missing else "bad"
        said = "ok" if status.success else status.error
        shown = f'<span class="{kind}">{text(said)}</span>'
        rows.append((code(name), shown, format_value(status.duration_s, "seconds")))
    return card("Collectors", table(("Collector", "State", "Took"), rows, 2), "third") if rows else ""


def _failing_first(item: tuple[str, CollectorStatus]) -> int:
    status = item[1]
    return 1 if status.success else 2 if status.missing else 0


def bundle_card(snapshot: Snapshot, now: float) -> str:
    """Which bundle scores, and where it comes from."""
    bundle = snapshot.bundle
    if bundle is None:
        return ""
    plural = "" if bundle.budget_per_week == 1 else "s"
    rows = [
        ("Version", code(bundle.version)),
        ("Origin", text(bundle.origin)),
        ("Trained", f"{format_age(now - bundle.trained_at)} ago"),
        ("In use since", f"{format_age(now - snapshot.reload.success_timestamp)} ago"),
        ("Budget", f"{bundle.budget_per_week:g} false alarm{plural} a week asked for"),
        ("Signed by", text(bundle.signed_by or "no signature is asked for")),
        ("Path", code(bundle.path)),
    ]
    if math.isnan(snapshot.reload.success_timestamp):
        del rows[3]
    if bundle.origin == "starter":
        rows.append(("Note", "trained on a simulated fleet; publish one trained on your own history"))
    told = list(bundle.provenance.items())[:LISTED_FACTS]
    rows += [(key.replace("_", " ").capitalize(), text(format_fact(key, value))) for key, value in told]
    return card("Bundle and where it comes from", facts(rows), "third")


def agent_card(snapshot: Snapshot) -> str:
    """What the loop has done, and what it costs."""
    counters, process = snapshot.counters, snapshot.process
    failed = _by_reason(counters.failures)
    skipped = _by_reason(counters.skipped)
    rows = [
        ("Evaluations", f"{counters.evaluations}"),
        ("Failed", failed),
        ("Skipped", skipped),
        ("Tick", _mean_tick(snapshot)),
        ("Memory", format_value(process.resident_bytes, "bytes")),
        ("CPU used", format_value(process.cpu_s, "seconds")),
        ("Open files", format_value(process.open_fds, "count")),
    ]
    shadow = snapshot.distribution.shadow
    if shadow is not None and shadow.version:
        score = UNKNOWN if math.isnan(shadow.score) else score_text(shadow.score)
        rows.append(("Candidate", f"{code(shadow.version)} would say {score}"))
    return card("The agent", facts(rows), "third last")


def _by_reason(counts: Mapping[str, int]) -> str:
    total = sum(counts.values())
    by = ", ".join(f"{text(name)} {count}" for name, count in counts.items() if count)
    return f"{total} ({by})" if by else "0"


def _mean_tick(snapshot: Snapshot) -> str:
    durations = snapshot.counters.durations.values()
    counts = [sum(one.counts) for one in durations]
    if not counts or not all(counts):
        return UNKNOWN
    mean = sum(one.total / count for one, count in zip(durations, counts, strict=True))
    return format_value(mean, "seconds") + " on average"
