"""`anomaly-agent bundle verify|show`: what the agent would say of a bundle, before it is published."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from node_anomaly_agent.scorer import align
from node_anomaly_agent.units import format_fact, format_value
from node_anomaly_core.bundle import Bundle, resolve_current, verify_bundle
from node_anomaly_core.features import Feature
from node_anomaly_core.signing import PublicKey
from node_anomaly_core.witnesses import in_words


def verify_line(path: Path, supplied: Sequence[Feature], trusted: Sequence[PublicKey] = ()) -> str:
    """One line for a bundle that an agent with these features and trusted keys accepts.

    Raises BundleError for any other.
    """
    started = time.perf_counter()
    bundle = _verified(path, trusted)
    align(bundle.manifest.features, supplied)
    took = time.perf_counter() - started
    models = ", ".join(model.name for model in bundle.manifest.models)
    return (
        f"ok: bundle {bundle.version} ({bundle.origin}): {models}; {len(bundle.manifest.features)} features; "
        f"golden vectors agree; {_signed(bundle)}; {took:.2f} s\n"
    )


def show_table(path: Path, trusted: Sequence[PublicKey] = ()) -> str:
    """Everything the manifest says, readable. Raises BundleError for a bundle that is refused."""
    bundle = _verified(path, trusted)
    manifest = bundle.manifest
    trained = datetime.fromtimestamp(manifest.trained_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    rows = [
        ("version", bundle.version),
        ("path", str(bundle.path)),
        ("origin", bundle.origin),
        ("signature", _signed(bundle)),
        ("format version", str(manifest.format_version)),
        ("trained", trained),
        ("interval", f"{manifest.interval_s:g} s"),
        ("budget", f"{manifest.budget_per_week:g} false alarms per node and week"),
        *(
            [("evidence of an alarm", f"this much from {in_words(manifest.witnesses)}")]
            if manifest.witnesses
            else []
        ),
        ("known nodes", str(len(manifest.nodes))),
        *((key, format_fact(key, value)) for key, value in sorted(manifest.provenance.items())),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {value}" for name, value in rows]
    lines += ["", "Models"]
    lines += [f"  {m.name}  {m.type}  on {m.input}  {m.file}" for m in manifest.models]
    lines += ["", "Files"]
    for name, entry in sorted(manifest.files.items()):
        lines.append(f"  {format_value(float(entry.size), 'bytes'):>10}  {entry.sha256[:16]}  {name}")
    lines += ["", f"Features ({len(manifest.features)})"]
    lines += [f"  {feature.name}  {feature.help}" for feature in manifest.features]
    return "\n".join(lines) + "\n"


def _signed(bundle: Bundle) -> str:
    return f"signed by {bundle.signed_by}" if bundle.signed_by else "no signature asked for"


def _verified(path: Path, trusted: Sequence[PublicKey]) -> Bundle:
    """The bundle in a directory, or the current one of a root of bundles, if it is sound."""
    return verify_bundle(resolve_current(path) or path, trusted)
