"""Where a bundle is offered: a channel of a published tree, or an alias of an MLflow registry.

Both give an `Announcement`: which version, in which archive. MLflow is spoken to by plain REST
(https://mlflow.org/docs/latest/rest-api.html): its client's import alone costs more than a node's whole
budget.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote, urlencode, urlsplit

from node_anomaly_agent.fetch_errors import FetchError
from node_anomaly_agent.fetch_http import Client
from node_anomaly_core.channel import (
    DOCUMENT,
    DOCUMENT_SIGNATURE,
    MAX_DOCUMENT_BYTES,
    Channel,
    parse_channel,
)
from node_anomaly_core.errors import BundleError
from node_anomaly_core.signing import MAX_SIGNATURE_BYTES, PublicKey, verify

ARCHIVE_NAME = "bundle.tar"
SHA256_TAG, SIZE_TAG, VERSION_TAG, TRAINED_TAG = (
    "archive_sha256",
    "archive_size",
    "bundle_version",
    "bundle_trained_at",
)
_MAX_ANSWER_BYTES = 256 << 10


@dataclass(frozen=True, slots=True)
class Announcement:
    """What a source offers, and the address of its archive; `ordered` if `sequence` never falls."""

    channel: Channel
    archive_url: str
    ordered: bool = True


class Source(Protocol):
    """Something that offers bundles."""

    name: str

    def look(self) -> Announcement | None:
        """What is offered now, or None for nothing new since the last `done`. Raises FetchError."""

    def done(self) -> None:
        """The latest announcement has been dealt with; give no other until it changes."""


class ChannelSource:
    """A channel of a published tree.

    Args:
        client: how to get there.
        base: the tree's URL without a slash at its end.
        channel: which one.
        trusted: keys of which one must have signed the document; none: its signature is not asked for.
    """

    def __init__(self, client: Client, base: str, channel: str, trusted: tuple[PublicKey, ...]) -> None:
        self.name = f"{base}/{channel}"
        self._client = client
        self._base = base
        self._channel = channel
        self._trusted = trusted
        self._etag = ""
        self._seen_etag = ""

    def look(self) -> Announcement | None:
        """The document, verified before it is parsed."""
        url = f"{self.name}/{DOCUMENT}"
        answer = self._client.get(url, MAX_DOCUMENT_BYTES, self._etag)
        if answer.status == 304:
            return None
        if self._trusted:
            signatures = self._client.find(f"{self.name}/{DOCUMENT_SIGNATURE}", MAX_SIGNATURE_BYTES)
            try:
                verify(answer.body, signatures, self._trusted, url)
            except BundleError as error:
                raise FetchError("signature", error.message, error.hint) from error
        try:
            channel = parse_channel(answer.body)
        except BundleError as error:
            raise FetchError("document", f"{url}: {error.message}", error.hint) from error
        if channel.channel != self._channel:
            raise FetchError(
                "document", f"{url} is the document of channel {channel.channel}", "publish again"
            )
        self._seen_etag = answer.etag
        return Announcement(channel, f"{self._base}/{channel.archive}")

    def done(self) -> None:
        """Remember the document's ETag."""
        self._etag = self._seen_etag


class MlflowSource:
    """An alias of a registered model whose versions hold a bundle's archive as the artifact `bundle.tar`.

    The version's tags say what it is; there is no signed document, so with trusted keys the manifest's own
    signature decides, and an alias that moves back counts as a replay.
    """

    def __init__(self, client: Client, base: str, model: str, alias: str) -> None:
        self.name = f"{base}/{model}@{alias}"
        self._client = client
        self._base = base
        self._model = model
        self._alias = alias
        self._done = self._seen = ""

    def look(self) -> Announcement | None:
        """The version that the alias points at."""
        query = urlencode({"name": self._model, "alias": self._alias})
        found = self._json(f"/api/2.0/mlflow/registered-models/alias?{query}")
        version = _part(found, "model_version")
        number = str(version.get("version"))
        raw_tags = version.get("tags") or []
        if not isinstance(raw_tags, list) or not all(isinstance(tag, dict) for tag in raw_tags):
            raise FetchError("document", f"{self.name}: the tags of version {number[:20]} cannot be read")
        tags = {str(tag.get("key")): tag.get("value") for tag in raw_tags}
        self._seen = json.dumps([number, tags], sort_keys=True)
        if self._seen == self._done:
            return None
        try:
            channel = Channel(
                channel=self._alias,
                sequence=int(number),
                published_at=float(version.get("creation_timestamp") or 0) / 1000.0,
                version=str(tags.get(VERSION_TAG)),
                trained_at=float(str(tags.get(TRAINED_TAG))),
                archive=ARCHIVE_NAME,
                archive_size=int(str(tags.get(SIZE_TAG))),
                archive_sha256=str(tags.get(SHA256_TAG)),
            )
            channel.to_bytes()  # which holds every field to its limits
        except (BundleError, ValueError, OverflowError, TypeError) as error:
            raise FetchError(
                "document",
                f"{self.name}: version {number[:20]} has no tags of a bundle ({error})",
                "register it with anomaly-trainer, or set its tags as docs/distribution.md says",
            ) from error
        query = urlencode({"name": self._model, "version": number})
        where = self._json(f"/api/2.0/mlflow/model-versions/get-download-uri?{query}").get("artifact_uri")
        return Announcement(channel, self._artifact(str(where)), ordered=False)

    def done(self) -> None:
        """Remember version and tags."""
        self._done = self._seen

    def _artifact(self, uri: str) -> str:
        parts = urlsplit(uri)
        if parts.scheme != "mlflow-artifacts" or ".." in parts.path.split("/"):
            raise FetchError(
                "document",
                f"{self.name}: its artifacts are not served by the registry ({parts.scheme or 'a path'})",
                "let the MLflow server serve artifacts (--serve-artifacts), or publish to static storage",
            )
        path = quote(f"{parts.path.strip('/')}/{ARCHIVE_NAME}")
        return f"{self._base}/api/2.0/mlflow-artifacts/artifacts/{path}"

    def _json(self, path: str) -> dict[str, Any]:
        url = self._base + path
        body = self._client.get(url, _MAX_ANSWER_BYTES).body
        try:
            found = json.loads(body.decode())
        except (ValueError, RecursionError) as error:
            raise FetchError("document", f"{url} is not JSON", "is it an MLflow server?") from error
        if not isinstance(found, dict):
            raise FetchError("document", f"{url} is not what MLflow answers", "is it an MLflow server?")
        return found


def _part(found: dict[str, Any], key: str) -> dict[str, Any]:
    part = found.get(key)
    if not isinstance(part, dict):
        raise FetchError("document", f"MLflow's answer has no {key}", "is it an MLflow server?")
    return part
