"""What is said when a file is missing and no network may be used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lensmount.errors import OfflineError
from lensmount.specs import Artifact
from lensmount.specs.offline import named_variable
from lensmount.store.addresses import public


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """A file that has to be brought.

    Attributes:
        name: The artifact's name.
        address: Where it is published.
        place: Where to put it.
        size: Bytes, where known.
        sha256: Hex digest, where known.
    """

    name: str
    address: str
    place: str
    size: int | None = None
    sha256: str | None = None

    def __str__(self) -> str:
        facts = [self.address]
        facts.append(f"{self.size:,} bytes" if self.size is not None else "size unknown")
        facts.append(f"sha256 {self.sha256}" if self.sha256 else "no published sha256")
        return f"{self.name} ({', '.join(facts)}) -> {self.place}"


class MissingFilesError(OfflineError):
    """Offline, and files are missing; `missing` lists them one by one."""

    missing: tuple[Missing, ...] = ()


def missing_error(missing: Sequence[Missing], what: str) -> MissingFilesError:
    """The error that lists exactly which files to bring, and where to put them."""
    which = named_variable() or "offline=True"
    files = "file is" if len(missing) == 1 else "files are"
    error = MissingFilesError(
        f"{what}: offline ({which}), and {len(missing)} {files} not in the store",
        found="missing " + "\n    ".join(str(item) for item in missing),
        fix="bring the files to the places above; or, on a machine with a network, `lensmount pull MODEL --to DIR`, "
        "bring DIR here and load it by its path",
    )
    error.missing = tuple(missing)
    return error


def missing(artifact: Artifact, place: str) -> Missing:
    """The description of an artifact that is not there."""
    return Missing(
        name=artifact.name, address=public(artifact.uri), place=place, size=artifact.size, sha256=artifact.sha256
    )
