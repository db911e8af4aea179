"""`file://…` and plain paths: files where they lie, never copied."""

from __future__ import annotations

from lensmount.contracts.finder import Fetched, FetchOptions
from lensmount.specs import Artifact, ModelCard
from lensmount.store.addresses import path_of
from lensmount.store.store import StoreFinder


class LocalFinder(StoreFinder):
    """Answers for `file`."""

    def fetch(self, artifact: Artifact, options: FetchOptions) -> Fetched:
        """The file where it lies, its hash checked where one is promised (once, while size and time stay).

        Raises:
            ArtifactNotFoundError: It is not there.
            IntegrityError: It is not what was promised.
        """
        path = path_of(artifact.uri).absolute()
        return self._checked(path, artifact, str(path), "bring the file again")

    def find(self, uri: str, options: FetchOptions) -> ModelCard | None:
        """The card of a folder that holds a lensmount manifest (`lensmount.json`), or None."""
        path = path_of(uri)
        if not (path.is_dir() and (path / "lensmount.json").is_file()):
            return None
        from lensmount.store.manifests import read_manifest

        return read_manifest(path)
