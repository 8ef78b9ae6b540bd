"""What is in a bundle, and what two differ in, as plain data."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping
from pathlib import Path

from node_anomaly_core.archive import unpack_archive
from node_anomaly_core.bundle import Bundle, read_bundle
from node_anomaly_core.bundle_store import read_signature, resolve_current
from node_anomaly_core.errors import BundleError
from node_anomaly_trainer.forecast_figures import ForecastFigures, duration, forecast_figures

Plain = dict[str, object]


def open_bundle(path: Path) -> tuple[Bundle, bytes | None]:
    """A bundle and its signature file, unverified: of a directory, a root with `current`, or an archive.

    Raises BundleError.
    """
    if path.is_file():
        try:
            content = path.read_bytes()
        except OSError as error:
            raise BundleError("io", f"{path}: {error.strerror}", "check its permissions") from error
        with tempfile.TemporaryDirectory() as scratch:
            unpack_archive(io.BytesIO(content), Path(scratch))
            return read_bundle(Path(scratch)), read_signature(Path(scratch))
    found = resolve_current(path) if path.is_dir() else None
    bundle = read_bundle(found or path)
    return bundle, read_signature(bundle.path)


def describe(bundle: Bundle, signature: bytes | None) -> Plain:
    """Everything about a bundle that people ask for; a level that maps to a mapping is a section."""
    manifest = bundle.manifest
    signers = [
        line.split()[1].decode(errors="replace") for line in (signature or b"").splitlines() if line.strip()
    ]
    return {
        "version": bundle.version,
        "origin": manifest.origin,
        "trained_at": manifest.trained_at,
        "interval_s": manifest.interval_s,
        "signed_by": ", ".join(signers) or "nobody",
        "threshold": {
            "alarm_log10p": manifest.tail.alarm_log10p,
            "alarm_level": manifest.tail.alarm_level(),
            "budget_per_node_week": manifest.budget_per_week,
        },
        "weights": {model.name: model.weight for model in manifest.models},
        "witnesses": {witness.names: witness.share for witness in manifest.witnesses},
        "member_thresholds": {model.name: model.tail.alarm_level() for model in manifest.models},
        "forecast": {duration(one.horizon_s): _foresees(one) for one in forecast_figures(manifest)},
        "files": {name: entry.size for name, entry in sorted(manifest.files.items())},
        "digests": {name: entry.sha256 for name, entry in sorted(manifest.files.items())},
        "provenance": dict(sorted(manifest.provenance.items())),
        "features": {feature.name: f"{feature.unit}, {feature.direction}" for feature in manifest.features},
        "nodes": dict.fromkeys(manifest.nodes, "known"),
    }


def _foresees(one: ForecastFigures) -> str:
    """Its skill, and what of it a node shows."""
    shown = ", ".join(f"{name} {skill:.0%}" for name, skill in one.features.items())
    return f"skill {one.skill:.0%}, " + (f"nodes show {shown}" if shown else "nodes show nothing")


def differences(one: Mapping[str, object], other: Mapping[str, object]) -> dict[str, tuple[object, object]]:
    """Path -> what it is in the first and in the second; None where one has no such thing."""
    first, second = dict(_flat(one, "")), dict(_flat(other, ""))
    return {
        path: (first.get(path), second.get(path))
        for path in dict.fromkeys([*first, *second])
        if first.get(path) != second.get(path)
    }


def _flat(value: Mapping[str, object], path: str) -> list[tuple[str, object]]:
    pairs: list[tuple[str, object]] = []
    for key, item in value.items():
        at = f"{path}.{key}" if path else key
        pairs += _flat(item, at) if isinstance(item, Mapping) else [(at, item)]
    return pairs
