"""What a weight source promises. Imports no network library."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from lensmount.errors import OfflineError
from lensmount.specs import Artifact, ModelCard
from lensmount.specs.offline import is_offline


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchOptions:
    """How artifacts may be fetched.

    Attributes:
        offline: Open no socket. `HF_HUB_OFFLINE` and `LENSMOUNT_OFFLINE` say so too, and False does not overrule them.
        progress: Show a progress bar; None for "on a terminal".
        allow_insecure: Accept plain http, and a typed https address without a hash.
        refresh: Take what a branch, or a web address without a hash, gives now, not what its first load gave.
        credentials: By source (`{"hf": "…", "roboflow": "…"}`), or by host for https; never logged nor written.
    """

    offline: bool | None = None
    progress: bool | None = None
    allow_insecure: bool = False
    refresh: bool = False
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.refresh and is_offline(self.offline):
            raise OfflineError("what is newest cannot be asked for offline", found="refresh", fix="leave refresh out")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A file that is whole and verified.

    Attributes:
        path: Where it lies; read-only for the caller.
        size: Bytes.
        sha256: Hex digest of its content.
        revision: The source's resolved revision (a commit), where it has one.
    """

    path: Path
    size: int
    sha256: str
    revision: str | None = None


@runtime_checkable
class Finder(Protocol):
    """Answers for one URI scheme."""

    def fetch(self, artifact: Artifact, options: FetchOptions) -> Fetched:
        """Brings one file, verified against what the artifact promises.

        Raises:
            SourceError: Or one of its children: offline, not found, refused, damaged, store full.
        """

    def find(self, uri: str, options: FetchOptions) -> ModelCard | None:
        """Makes a card of a whole model that the URI names (`hf://owner/repo`), or None when it cannot.

        Raises:
            SourceError: As for `fetch`.
        """


@runtime_checkable
class Repository(Protocol):
    """A folder at an address, of which single files can be brought."""

    @property
    def uri(self) -> str:
        """Its address at a fixed revision: a file in it is `<uri>/<name>`."""

    def names(self) -> Collection[str] | None:
        """Its files, in folders with forward slashes; None where that cannot be told.

        Raises:
            SourceError: As for `Finder.fetch`.
        """

    def bring(self, name: str) -> Path | None:
        """Brings one of its files, which all lie in one folder; None when there is no such file.

        Raises:
            SourceError: As for `Finder.fetch`.
        """


@runtime_checkable
class RepositoryFinder(Finder, Protocol):
    """A finder whose addresses may also name a repository of any reader's layout; optional."""

    def repository(self, uri: str, options: FetchOptions) -> Repository | None:
        """The repository that an address names, or None when it names a file.

        Raises:
            SourceError: As for `fetch`.
        """
