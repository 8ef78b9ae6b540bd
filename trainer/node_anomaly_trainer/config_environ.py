"""What the environment may say where the configuration file says nothing."""

from __future__ import annotations

from collections.abc import Mapping

VARIABLES: Mapping[str, tuple[str, str]] = {
    "MLFLOW_TRACKING_URI": ("mlflow", "tracking_uri"),
    "PROMETHEUS_GATEWAY": ("metrics", "pushgateway"),
}
"""Variable to section and key; PROMETHEUS_URL also chooses the source and is read by itself."""


FROM_ENVIRONMENT = frozenset(
    {"source.type", "source.prometheus.url", *(f"{section}.{key}" for section, key in VARIABLES.values())}
)
"""Keys that a file must not have for the environment to be heard."""


def unheard(raw: object, environ: Mapping[str, str]) -> tuple[str, ...]:
    """A note where PROMETHEUS_URL is set and the file names another source, which wins."""
    source = raw.get("source") if isinstance(raw, Mapping) else None
    named = source.get("type", "prometheus") if isinstance(source, Mapping) else "prometheus"
    if not environ.get("PROMETHEUS_URL") or named == "prometheus":
        return ()
    return (f"PROMETHEUS_URL is set and not used: the source of the file is {named}, and the file wins",)


def with_environment(raw: object, environ: Mapping[str, str]) -> object:
    """The parsed file with what it leaves out filled in; what is no mapping is left for the check."""
    url = environ.get("PROMETHEUS_URL", "")
    if url:
        raw = _with_prometheus_url(raw, url)
    for variable, (section, key) in VARIABLES.items():
        value = environ.get(variable, "")
        if value:
            raw = _filled(raw, section, key, value)
    return raw


def _filled(raw: object, section: str, key: str, value: str) -> object:
    raw = {} if raw is None else raw
    if not isinstance(raw, Mapping):
        return raw
    given = raw.get(section)
    given = {} if given is None else given
    # The file, where it says something, is more deliberate than the environment of a shell.
    return {**raw, section: {key: value, **given}} if isinstance(given, Mapping) else raw


def _with_prometheus_url(raw: object, url: str) -> object:
    raw = {} if raw is None else raw
    if not isinstance(raw, Mapping):
        return raw
    source = raw.get("source")
    source = {} if source is None else source
    if not isinstance(source, Mapping):
        return raw
    server = source.get("prometheus")
    server = {} if server is None else server
    if not isinstance(server, Mapping):
        return raw
    return {**raw, "source": {"type": "prometheus", **source, "prometheus": {"url": url, **server}}}
