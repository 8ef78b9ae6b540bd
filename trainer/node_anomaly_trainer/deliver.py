"""Hand a bundle to every configured place, change who takes it, and go back: publish, promote, rollback."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from node_anomaly_core.archive import archive_bundle
from node_anomaly_core.bundle import (
    Bundle,
    activate,
    add_signature,
    read_bundle,
    resolve_current,
    verify_bundle,
)
from node_anomaly_core.bundle_store import MANIFEST, SIGNATURE
from node_anomaly_core.channel import Channel
from node_anomaly_core.errors import AnomalyError, ConfigError, TrainingError
from node_anomaly_core.manifest import Manifest
from node_anomaly_core.signing import PrivateKey, sign
from node_anomaly_trainer import channel_tree
from node_anomaly_trainer.channel_tree import Archived
from node_anomaly_trainer.config_delivery import PublishConfig
from node_anomaly_trainer.publish import VERSION, publish, publish_copy
from node_anomaly_trainer.publish_lock import publishing
from node_anomaly_trainer.signing_keys import read_keys

_WHERE = "is it publish.directory of the trainer's own --config, seen from the trainer's directory?"


@dataclass(frozen=True, slots=True)
class Delivery:
    """What changed: the version, its directory where there is one, and the channel's document if it has."""

    version: str
    path: Path | None
    channel: Channel | None = None


def deliver(config: PublishConfig, manifest: Manifest, files: Mapping[str, bytes]) -> Delivery:
    """Publish a new bundle to the directory and, where one is configured, to the channel of the tree.

    The directory first: it is what the next run compares itself with. Raises TrainingError or ConfigError; a
    bundle that got into the directory and not into the tree can be published again.
    """
    root = Path(config.directory)
    return _deliver(config, lambda sign: publish(root, manifest, files, config.keep, sign), "", None)


def deliver_copy(
    config: PublishConfig, bundle: Bundle, *, channel: str = "", percent: float | None = None
) -> Delivery:
    """The same with a verified bundle from elsewhere, whose bytes and version stay as they are."""
    root = Path(config.directory)
    return _deliver(config, lambda sign: publish_copy(root, bundle, config.keep, sign), channel, percent)


def _deliver(
    config: PublishConfig,
    write: Callable[[Callable[[bytes], bytes] | None], Path],
    channel: str,
    percent: float | None,
) -> Delivery:
    keys = read_keys(config.key_file)
    with _locked(config):
        path = write((lambda content: sign(content, keys)) if keys else None)
        if not config.tree:
            return Delivery(path.name, path)
        trained_at = read_bundle(path).manifest.trained_at
        archived = Archived(path.name, trained_at, archive_bundle(path))
        document = _offer(config, archived, keys, channel or config.channel, percent)
        return Delivery(path.name, path, document)


def roll_back(config: PublishConfig, version: str = "", *, channel: str = "") -> Delivery:
    """Offer an earlier version again, to all nodes: the one before this without a name.

    Nothing is removed, so going forward again is the same command with a name. Raises TrainingError with
    what there is, where the version is not there any more, and ConfigError.
    """
    keys = read_keys(config.key_file)
    root, tree = Path(config.directory), Path(config.tree)
    if not available(config):
        raise TrainingError(f"nothing is published in {root.absolute()}", _WHERE)
    with _locked(config):
        document = channel_tree.current(tree, channel or config.channel) if config.tree else None
        version = version or _before(root, document)
        bundle = _stored(root, version)
        archived = channel_tree.read_archive(tree, version) if config.tree else None
        if bundle is None and archived is None:
            raise _unknown(config, version)
        if config.tree:
            if archived is None and bundle is not None:
                archived = _archive(bundle, keys)
            if archived is None:  # for the type checker: one of both is there
                raise _unknown(config, version)
            document = _offer(config, archived, keys, channel or config.channel, 100.0, rollback=True)
        if bundle is not None:
            with _as_training_error(root):
                activate(root, version)
        return Delivery(version, bundle.path if bundle is not None else None, document)


def promote(
    config: PublishConfig, channel: str, *, version: str = "", percent: float | None = None, source: str = ""
) -> Delivery:
    """Let a channel offer a version, or what another channel offers, or change the share of nodes.

    Raises TrainingError where there is no such version or channel, and ConfigError without a tree.
    """
    if not config.tree:
        raise ConfigError("publish.tree: is not set, and only a tree has channels", "set publish.tree: DIR")
    keys = read_keys(config.key_file)
    root, tree = Path(config.directory), Path(config.tree)
    with _locked(config):
        if source:
            offered = channel_tree.current(tree, source)
            if offered is None:
                raise TrainingError(f"{tree}: channel {source} offers nothing", _known_channels(tree))
            version = offered.version
        now = channel_tree.current(tree, channel)
        if not version or (now is not None and now.version == version):
            if now is None or percent is not None or not version:
                asked = 100.0 if percent is None else percent
                with _as_training_error(tree):
                    document = channel_tree.share(tree, channel, asked, keys)
                return Delivery(document.version, None, document)
            return Delivery(version, None, now)
        archived = channel_tree.read_archive(tree, version)
        bundle = _stored(root, version)
        if archived is None and bundle is not None:
            archived = _archive(bundle, keys)
        if archived is None:
            raise _unknown(config, version)
        older = now is not None and archived.trained_at < now.trained_at
        document = _offer(config, archived, keys, channel, percent, rollback=older)
        return Delivery(version, None, document)


def available(config: PublishConfig) -> tuple[str, ...]:
    """Versions that can be offered again, the latest first."""
    root = Path(config.directory)
    entries = [e for e in root.iterdir() if VERSION.fullmatch(e.name) and e.is_dir()] if root.is_dir() else []
    entries.sort(key=lambda entry: entry.stat().st_mtime_ns, reverse=True)
    archived = channel_tree.versions(Path(config.tree)) if config.tree else ()
    return tuple(dict.fromkeys([*(entry.name for entry in entries), *archived]))


@contextmanager
def _locked(config: PublishConfig) -> Iterator[None]:
    """The directory and the tree, always in this order, so that two publishers cannot block each other."""
    with ExitStack() as stack:
        for place in dict.fromkeys(filter(None, (config.directory, config.tree))):
            stack.enter_context(publishing(Path(place), config.wait))
        yield


def _offer(
    config: PublishConfig,
    archived: Archived,
    keys: Sequence[PrivateKey],
    channel: str,
    percent: float | None,
    *,
    rollback: bool = False,
) -> Channel:
    tree = Path(config.tree)
    with _as_training_error(tree):
        share = config.percent if percent is None else percent
        document = channel_tree.offer(tree, channel, archived, keys, percent=share, rollback=rollback)
    with suppress(OSError):  # the bundle is on offer; the next publish tries again
        channel_tree.retire(tree, config.keep)
    return document


def _stored(root: Path, version: str) -> Bundle | None:
    """The bundle of a version in the directory, verified; None if it is not there."""
    if not VERSION.fullmatch(version) or not (root / version / MANIFEST).is_file():
        return None
    return verify_bundle(root / version)


def _archive(bundle: Bundle, keys: Sequence[PrivateKey]) -> Archived:
    with _as_training_error(bundle.path):
        if keys and not (bundle.path / SIGNATURE).exists():
            add_signature(bundle.path, sign((bundle.path / MANIFEST).read_bytes(), keys))
    return Archived(bundle.version, bundle.manifest.trained_at, archive_bundle(bundle.path))


def _before(root: Path, document: Channel | None) -> str:
    """The version before the one on offer: as the channel remembers it, or else by the time of writing.

    What a channel that has gone back remembers is what it left: going back once more must not offer that.
    """
    if document is not None and document.previous and not document.rollback:
        return document.previous
    current = resolve_current(root)
    now = document.version if document is not None else current.name if current is not None else ""
    entries = [e for e in root.iterdir() if VERSION.fullmatch(e.name) and e.is_dir()] if root.is_dir() else []
    entries.sort(key=lambda entry: (entry.stat().st_mtime_ns, entry.name))
    names = [entry.name for entry in entries]
    if now not in names or names.index(now) == 0:
        raise TrainingError(
            f"{root.absolute()} holds no version before {now or 'the current one'}",
            f"name one with --to VERSION; {_WHERE}",
        )
    return names[names.index(now) - 1]


def _unknown(config: PublishConfig, version: str) -> AnomalyError:
    known = ", ".join(available(config)[:8]) or "none"
    return TrainingError(
        f"there is no whole bundle {version} in {config.directory or config.tree}", f"there are: {known}"
    )


def _known_channels(tree: Path) -> str:
    return f"channels: {', '.join(one.channel for one in channel_tree.channels(tree)) or 'none yet'}"


@contextmanager
def _as_training_error(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f"cannot publish to {place}: {error.strerror or error}",
            "what was on offer stays so; make room or choose another place, and publish again",
        ) from error
