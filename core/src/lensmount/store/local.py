"""`file://…` and plain paths: files where they lie, never copied."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lensmount.contracts.finder import Fetched, FetchOptions
from lensmount.errors import IntegrityError
from lensmount.store.addresses import path_of
from lensmount.store.files import require_file
from lensmount.store.store import Store

if TYPE_CHECKING:
    from lensmount.specs import Artifact, ModelCard


class LocalFinder:
    """Answers for `file`.

    Args:
        store: Where hashes are remembered; None for the user's store.
    """

    def __init__(self, store: Store | None = None) -> None:
        self._store = store if store is not None else Store()

    def fetch(self, artifact: Artifact, options: FetchOptions) -> Fetched:
        """The file where it lies, its hash checked where one is promised (once, while size and time stay).

        Raises:
            ArtifactNotFoundError: It is not there.
            IntegrityError: It is not what was promised.
        """
        path = path_of(artifact.uri).absolute()
        require_file(path, str(path))
        size = path.stat().st_size
        if artifact.size is not None and size != artifact.size:
            raise _mismatch(path, f"{size:,} bytes", f"{artifact.size:,} bytes")
        sha256 = self._store.verified_file(path)
        if artifact.sha256 is not None and sha256 != artifact.sha256:
            raise _mismatch(path, f"sha256 {sha256}", f"sha256 {artifact.sha256}")
        if artifact.sha256 is None and artifact.md5 is not None:
            check_md5(path, artifact.md5)
        return Fetched(path=path, size=size, sha256=sha256)

    def find(self, uri: str, options: FetchOptions) -> ModelCard | None:
        """The card of a folder that holds a lensmount manifest (`lensmount.json`), or None."""
        path = path_of(uri)
        if not (path.is_dir() and (path / "lensmount.json").is_file()):
            return None
        from lensmount.store.manifests import read_manifest

        return read_manifest(path)


def check_md5(path: Path, expected: str) -> None:
    """Compares a file with an md5, for providers that publish nothing better.

    Raises:
        IntegrityError: They differ.
    """
    import hashlib

    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as handle:
        while chunk := handle.read(1 << 20):
            digest.update(chunk)
    if digest.hexdigest() != expected.lower():
        raise _mismatch(path, f"md5 {digest.hexdigest()}", f"md5 {expected}")


def _mismatch(path: Path, found: str, expected: str) -> IntegrityError:
    return IntegrityError(
        f"{path} is not what was promised", found=found, expected=expected, fix="bring the file again"
    )
