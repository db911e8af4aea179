"""`file://…` and plain paths: files where they lie, never copied."""

from __future__ import annotations

from lensmount.contracts.finder import Fetched, FetchOptions
from lensmount.specs import Artifact
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
