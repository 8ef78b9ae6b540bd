"""The watched directory as the fetcher sees it: nothing enters but a verified bundle, whole."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from node_anomaly_agent.fetch_errors import FetchError
from node_anomaly_core.archive import unpack_archive
from node_anomaly_core.bundle import CURRENT, Bundle, activate, adopt_bundle
from node_anomaly_core.bundle_store import STAGING, VERSION_DIGITS
from node_anomaly_core.errors import BundleError

KEEP = 3
"""How many fetched versions stay, the one in use included: enough to go back by."""

_PARTIAL = ".fetching-"
_CHUNK = 1 << 20


class Depot:
    """Where fetched bundles go.

    Args:
        root: the watched directory; made when the first bundle comes.
        verify: reads and tests a bundle directory as the agent would; raises BundleError.
    """

    def __init__(self, root: Path, verify: Callable[[Path], Bundle]) -> None:
        self.root = root
        self._verify = verify

    def current(self) -> str:
        """The version that the directory offers now, or empty."""
        try:
            return (self.root / CURRENT).readlink().name
        except OSError:
            return ""

    def partial(self, digest: str) -> Path:
        """Where an archive of this digest is collected; all others that were begun are given up."""
        self.root.mkdir(parents=True, exist_ok=True)
        wanted = self.root / f"{_PARTIAL}{digest[:VERSION_DIGITS]}"
        for left in self.root.iterdir():
            if left.name.startswith(_PARTIAL) and left != wanted:
                left.unlink(missing_ok=True)
            elif left.name.startswith(STAGING):  # of an agent that was killed: there is one writer
                shutil.rmtree(left, ignore_errors=True)
        return wanted

    def has(self, version: str) -> Bundle | None:
        """A version that is here already and sound."""
        try:
            bundle = self._verify(self.root / version)
        except BundleError:
            return None
        return bundle if bundle.version == version else None

    def take(self, archive: Path, digest: str) -> tuple[Bundle, Path]:
        """Unpack and verify a downloaded archive; returns the bundle and its directory, yet unnamed.

        The archive is removed, whatever it was. Raises FetchError and OSError.
        """
        staging = Path(tempfile.mkdtemp(prefix=STAGING, dir=self.root))
        try:
            with archive.open("rb") as file:
                seen = hashlib.sha256()
                while chunk := file.read(_CHUNK):
                    seen.update(chunk)
                if seen.hexdigest() != digest:
                    raise FetchError(
                        "archive", "the archive is not the one that was announced", "publish again"
                    )
                file.seek(0)
                unpack_archive(file, staging)
            return self._verify(staging), staging
        except BundleError as error:
            shutil.rmtree(staging, ignore_errors=True)
            reason = "signature" if error.reason == "signature" else "bundle"
            raise FetchError(reason, error.message, error.hint) from error
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        finally:
            archive.unlink(missing_ok=True)

    def adopt(self, staging: Path, version: str) -> None:
        """Give a verified directory its version's name."""
        try:
            adopt_bundle(self.root, staging, version)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def switch(self, version: str, keep: Collection[str] = ()) -> None:
        """Offer a version from now on, and let go of the oldest, but not of those to keep."""
        activate(self.root, version)
        versions = [
            path for path in self.root.iterdir() if len(path.name) == VERSION_DIGITS and not path.is_symlink()
        ]
        versions = [path for path in versions if path.name not in (version, *keep) and path.is_dir()]
        versions.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for old in versions[KEEP - 1 :]:
            doomed = self.root / f"{STAGING}{old.name}"
            with suppress(OSError):
                old.rename(doomed)
                shutil.rmtree(doomed)
