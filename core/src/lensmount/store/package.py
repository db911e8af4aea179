"""`package://module/path`: files inside an installed plugin's wheel."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path

from lensmount.contracts.finder import Fetched, FetchOptions
from lensmount.errors import ArtifactNotFoundError, SourceError
from lensmount.specs import Artifact
from lensmount.store.files import broken_promise
from lensmount.store.store import StoreFinder

REINSTALL = "reinstall the plugin"


class PackageFinder(StoreFinder):
    """Answers for `package`; files out of zipped packages are kept in the store."""

    def fetch(self, artifact: Artifact, options: FetchOptions) -> Fetched:
        """The file where it is installed; out of a zip it is copied into the store.

        Raises:
            ArtifactNotFoundError: The module is not installed or has no such file.
            IntegrityError: It is not what was promised.
        """
        module, parts = _split(artifact.uri)
        try:
            resource = files(module).joinpath(*parts)
            found = resource.is_file()
        except (ImportError, TypeError) as error:
            raise ArtifactNotFoundError(
                f"{artifact.uri} needs the Python package {module!r}",
                found=f"{type(error).__name__}: {error}",
                fix="install the plugin that has it",
            ) from error
        if not found:
            raise ArtifactNotFoundError(
                f"{artifact.uri} does not exist in the installed package",
                found=f"no file {'/'.join(parts)!r} in {module!r}",
                fix=REINSTALL,
            )
        if isinstance(resource, Path):
            return self._checked(resource.absolute(), artifact, artifact.uri, REINSTALL)
        kept = self._store.blob(artifact.sha256) if artifact.sha256 else None
        if kept is not None and artifact.sha256 is not None:
            return Fetched(path=kept, size=_checked_size(artifact, kept), sha256=artifact.sha256)
        with as_file(resource) as path:
            _checked_size(artifact, path)
            return self._store.adopt(path, address=artifact.uri, sha256=artifact.sha256)


def _checked_size(artifact: Artifact, path: Path) -> int:
    size = path.stat().st_size
    if artifact.size is not None and size != artifact.size:
        raise broken_promise(artifact.uri, f"{size:,} bytes", f"{artifact.size:,} bytes", REINSTALL)
    return size


def _split(uri: str) -> tuple[str, list[str]]:
    rest = uri.removeprefix("package://")
    module, _, path = rest.partition("/")
    parts = path.split("/")
    good = rest != uri and all(part.isidentifier() for part in module.split("."))
    if not good or any(part in ("", ".", "..") or "\\" in part for part in parts):
        raise SourceError(
            "this is not the address of a file in a package", found=uri, expected="package://module/path/to/file"
        )
    return module, parts
