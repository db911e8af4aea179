"""`lensmount.lock`: which content each model stands for, so that everybody who loads it gets the same bytes.

{
  "format_version": 1,
  "models": {
    "rfdetr-base": { "onnx-fp32": { "weights.onnx": {"uri": "hf://…", "sha256": "…", "size": 1, "revision": "…"} } }
  }
}
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmount.errors import IntegrityError, ModelFileError
from lensmount.specs.descriptors import require, to_dict
from lensmount.specs.parsing import from_dict
from lensmount.store.addresses import COMMIT, parse_hub, public, scheme_of
from lensmount.store.files import storing, write_atomic

if TYPE_CHECKING:
    from lensmount.specs import Artifact, ModelCard, ModelPackage
    from lensmount.store.fetch import FetchedPackage

NAME = "lensmount.lock"
VERSION = 1
_FIX = "run `lensmount lock` again if the change is meant"


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedArtifact:
    """One file as it was locked."""

    uri: str
    sha256: str
    size: int
    revision: str | None = None

    def __post_init__(self) -> None:
        hexed = re.fullmatch(r"[0-9a-f]{64}", self.sha256) is not None
        require(hexed, "a locked sha256", self.sha256, "64 lower-case hex digits")


LockedModels = Mapping[str, Mapping[str, Mapping[str, LockedArtifact]]]


@dataclass(frozen=True, slots=True)
class Lock:
    """What is locked: model id -> package name -> artifact name -> file."""

    models: LockedModels

    def apply(self, card: ModelCard) -> ModelCard:
        """The card with its locked packages alone, every artifact bound to its locked hash and commit.

        Raises:
            IntegrityError: The model is not locked, or the card and the lock contradict each other.
        """
        locked = self.models.get(card.id)
        if not locked:
            raise IntegrityError(
                f"{card.id!r} is not in the lock file",
                found=", ".join(sorted(self.models)) or "an empty lock file",
                fix=f"lensmount lock {card.id}",
            )
        packages = tuple(
            _bind(card, package, locked[package.name]) for package in card.packages if package.name in locked
        )
        gone = sorted(set(locked) - {package.name for package in packages})
        if gone:
            raise IntegrityError(f"{card.id!r} no longer has a package that is locked", found=", ".join(gone), fix=_FIX)
        return replace(card, packages=packages)

    def check(self, card: ModelCard, package: ModelPackage, fetched: FetchedPackage) -> None:
        """Compares what was fetched with what was locked.

        Raises:
            IntegrityError: It is other content; every file that differs is named.
        """
        locked = self.models.get(card.id, {}).get(package.name)
        if locked is None:
            raise IntegrityError(f"package {package.name!r} of {card.id!r} is not in the lock file", fix=_FIX)
        promised = {name: file.sha256 for name, file in locked.items()}
        wrong = [
            f"{name}: {fetched.sha256s.get(name, 'absent')}, locked {promised.get(name, 'absent')}"
            for name in sorted(set(promised) | set(fetched.sha256s))
            if fetched.sha256s.get(name) != promised.get(name)
        ]
        if wrong:
            raise IntegrityError(f"{card.id!r} is not what was locked", found="; ".join(wrong), fix=_FIX)


def _bind(card: ModelCard, package: ModelPackage, locked: Mapping[str, LockedArtifact]) -> ModelPackage:
    names = {artifact.name for artifact in package.artifacts}
    if names != set(locked):
        raise IntegrityError(
            f"package {package.name!r} of {card.id!r} has other files than were locked",
            found=", ".join(sorted(names)),
            expected=", ".join(sorted(locked)),
            fix=_FIX,
        )
    return replace(package, artifacts=tuple(_bind_artifact(card, a, locked[a.name]) for a in package.artifacts))


def _bind_artifact(card: ModelCard, artifact: Artifact, locked: LockedArtifact) -> Artifact:
    if artifact.sha256 not in (None, locked.sha256):
        raise IntegrityError(
            f"{artifact.name!r} of {card.id!r} was published again since it was locked",
            found=f"sha256 {artifact.sha256}",
            expected=f"sha256 {locked.sha256}",
            fix=_FIX,
        )
    uri = artifact.uri
    if scheme_of(uri) == "hf" and locked.revision and COMMIT.fullmatch(locked.revision):
        uri = str(replace(parse_hub(uri), revision=locked.revision))
    return replace(artifact, uri=uri, sha256=locked.sha256, size=locked.size)


def make_lock(entries: Iterable[tuple[ModelCard, ModelPackage, FetchedPackage]]) -> Lock:
    """A lock of fetched packages."""
    models: dict[str, dict[str, dict[str, LockedArtifact]]] = {}
    for card, package, fetched in entries:
        models.setdefault(card.id, {})[package.name] = {
            a.name: LockedArtifact(
                uri=public(a.uri),
                sha256=fetched.sha256s[a.name],
                size=fetched.sizes[a.name],
                revision=fetched.revisions.get(a.name),
            )
            for a in package.artifacts
        }
    return Lock(models)


def write_lock(lock: Lock, path: Path) -> Path:
    """Writes a lock file, whole or not at all; equal locks give equal bytes.

    Raises:
        StoreError: It cannot be written.
    """
    models = {
        model: {
            package: {name: {k: v for k, v in to_dict(file).items() if v is not None} for name, file in files.items()}
            for package, files in packages.items()
        }
        for model, packages in lock.models.items()
    }
    content = json.dumps({"format_version": VERSION, "models": models}, indent=2, sort_keys=True, ensure_ascii=False)
    with storing(path, "writing"):
        write_atomic(path, content.encode() + b"\n")
    return path


def read_lock(path: Path) -> Lock:
    """Reads a lock file.

    Raises:
        ModelFileError: It is missing or not a lock file.
    """
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise ModelFileError(
            f"{path} cannot be read", found=f"{type(error).__name__}: {error.strerror}", fix="lensmount lock MODEL"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ModelFileError(
            f"{path} is not a lock file", found=str(error)[:200], fix="lensmount lock MODEL"
        ) from error
    if not isinstance(data, dict) or data.get("format_version") != VERSION:
        found = repr(data.get("format_version"))[:40] if isinstance(data, dict) else type(data).__name__
        raise ModelFileError(f"{path} is not a lock file of this version", found=found, expected=str(VERSION))
    models = {
        model: {
            package: {
                name: from_dict(LockedArtifact, file, f"{path}: {model}/{package}/{name}")
                for name, file in _items(files, path)
            }
            for package, files in _items(packages, path)
        }
        for model, packages in _items(data.get("models"), path)
    }
    return Lock(models)


def _items(data: Any, path: Path) -> list[tuple[str, Any]]:
    if not isinstance(data, dict):
        raise ModelFileError(f"{path} is not a lock file", found=type(data).__name__, expected="an object")
    return list(data.items())
