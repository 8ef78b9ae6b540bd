"""Which source is meant where the file says where it is, and not of which type."""

from __future__ import annotations

from collections.abc import Mapping

from node_anomaly_core.errors import ConfigError

PLACES: Mapping[str, str] = {"file": "path", "prometheus": "url"}
"""By type, the key that says where the history is."""


def with_source_type(raw: object) -> object:
    """The parsed file with the type of the only source whose place it names.

    The default would train on a simulated fleet, and pass over the server or file that somebody wrote down.
    Raises ConfigError where it names two. What is no mapping is left for the check.
    """
    source = raw.get("source") if isinstance(raw, Mapping) else None
    if not isinstance(raw, Mapping) or not isinstance(source, Mapping) or "type" in source:
        return raw
    named = [kind for kind, key in PLACES.items() if _says(source.get(kind), key)]
    if len(named) > 1:
        places = " and ".join(f"source.{kind}.{PLACES[kind]}" for kind in named)
        raise ConfigError(
            f"source.type: is absent, and {places} name one each", f"add type: {' or type: '.join(named)}"
        )
    return {**raw, "source": {"type": named[0], **source}} if named else raw


def _says(section: object, key: str) -> bool:
    return isinstance(section, Mapping) and bool(section.get(key))
