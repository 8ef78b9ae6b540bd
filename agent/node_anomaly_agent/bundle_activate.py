"""`anomaly-agent bundle activate VERSION`: go back to a bundle, or to one that this node had left."""

from __future__ import annotations

import re
from pathlib import Path

from node_anomaly_agent.config import AgentConfig
from node_anomaly_agent.ledger import Ledger
from node_anomaly_core.bundle import activate, verify_bundle
from node_anomaly_core.bundle_store import MANIFEST
from node_anomaly_core.errors import AnomalyError


def activate_line(version: str, bundles: Path, state_directory: Path | None, config: AgentConfig) -> str:
    """Verify a version of the watched directory, allow it and switch to it; one line that says so.

    Raises AnomalyError.
    """
    if not re.fullmatch(r"[0-9a-f]{16}", version) or not (bundles / version / MANIFEST).is_file():
        there = sorted(path.parent.name for path in bundles.glob(f"[0-9a-f]*/{MANIFEST}"))
        raise AnomalyError(
            f"{bundles} holds no bundle {version!r}",
            f"it holds {', '.join(there)}" if there else "is bundle.directory the agent's?",
        )
    verify_bundle(bundles / version, config.distribution.trusted_keys)
    complaints: list[str] = []
    Ledger(state_directory, complaints.append).allow(version)
    if complaints:
        raise AnomalyError(complaints[-1], "run it as the agent's user, or again in a moment")
    try:
        activate(bundles, version)
    except OSError as error:
        raise AnomalyError(
            f"{bundles} cannot be switched: {error.strerror}",
            "run it as the agent's user; a read-only directory is switched where it comes from",
        ) from error
    return f"ok: {bundles} offers {version} now; a running agent takes it up within seconds\n"
