"""Looking after the store: what is in it, how big, whether it is sound, what can go. Nothing is removed unasked."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lensmount.errors import ModelNotFoundError
from lensmount.store.fetch import RECORD
from lensmount.store.files import hash_file, remove, store_error
from lensmount.store.lease import abandoned
from lensmount.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedPackage:
    """A package folder in the store.

    Attributes:
        id: Model id.
        package: Package name.
        folder: Where.
        size: Bytes of its files, wherever they lie (blobs may be shared with other packages).
        sha256s: Hex digests by artifact name.
        complete: Whether every file is there.
    """

    id: str
    package: str
    folder: Path
    size: int
    sha256s: tuple[tuple[str, str], ...]
    complete: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSize:
    """Bytes on disk. Files in Hugging Face's cache are not counted: they are not the store's."""

    root: Path
    blobs: int
    partials: int
    records: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.blobs + self.partials + self.records


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The outcome of checking one file.

    Attributes:
        path: The file.
        state: `sound`, `damaged` (its content is not what its name says) or `unreadable`.
        detail: What was found.
    """

    path: Path
    state: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """What was removed, or with `dry_run` would be.

    Attributes:
        paths: Files and folders.
        size: Bytes that this frees.
        dry_run: Whether nothing was touched.
    """

    paths: tuple[Path, ...]
    size: int
    dry_run: bool


def list_packages(store: Store) -> tuple[CachedPackage, ...]:
    """The packages in the store, by model id."""
    found = []
    for record in sorted((store.root / "models").rglob(RECORD)):
        try:
            data = json.loads(record.read_bytes())
            artifacts = {name: (str(facts["sha256"]), int(facts["size"])) for name, facts in data["artifacts"].items()}
            model, package = str(data["id"]), str(data["package"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        folder = record.parent
        found.append(
            CachedPackage(
                id=model,
                package=package,
                folder=folder,
                size=sum(size for _, size in artifacts.values()),
                sha256s=tuple((name, sha256) for name, (sha256, _) in artifacts.items()),
                complete=all(folder.joinpath(*name.split("/")).is_file() for name in artifacts),
            )
        )
    return tuple(found)


def size(store: Store) -> StoreSize:
    """Bytes on disk, by kind; a blob that packages link to counts once."""
    parts = {name: _size_of(store.root / name) for name in ("blobs", "partials", "verified", "references", "locks")}
    copies = records = 0
    for path in _files(store.root / "models"):
        with contextlib.suppress(OSError):
            status = path.lstat()
            if path.name == RECORD or path.is_symlink():
                records += status.st_size
            elif status.st_nlink == 1:  # where links failed; a hard link is counted as the blob that it is
                copies += status.st_size
    return StoreSize(
        root=store.root,
        blobs=parts["blobs"] + copies,
        partials=parts["partials"],
        records=records + parts["verified"] + parts["references"] + parts["locks"],
    )


def verify(store: Store) -> tuple[Finding, ...]:
    """Hashes every blob again; nothing is removed (`remove_damaged` does that)."""
    findings = []
    for path in _files(store.root / "blobs" / "sha256"):
        if path.name.startswith("."):
            continue
        try:
            status = path.stat()
            sha256, _ = hash_file(path)
        except OSError as error:
            findings.append(Finding(path=path, state="unreadable", detail=str(error)))
            continue
        if sha256 == path.name:
            store.ledger.stamp(f"blob:{sha256}", path, sha256, status)
            findings.append(Finding(path=path, state="sound"))
        else:
            findings.append(Finding(path=path, state="damaged", detail=f"sha256 {sha256}"))
    return tuple(findings)


def remove_damaged(findings: Iterable[Finding], *, dry_run: bool = True) -> Removal:
    """Removes what `verify` found damaged, so that the next load brings it again."""
    return _remove([finding.path for finding in findings if finding.state == "damaged"], dry_run)


def remove_model(store: Store, model: str, *, dry_run: bool = True) -> Removal:
    """Removes a model's folders, and the blobs that no other package uses; with `dry_run` only says what would go.

    Raises:
        ModelNotFoundError: The store does not have it.
        StoreError: A file cannot be removed.
    """
    packages = list_packages(store)
    mine = [package for package in packages if package.id == model]
    if not mine:
        raise ModelNotFoundError(
            f"{model!r} is not in the store {store.root}",
            found=", ".join(sorted({package.id for package in packages})) or "an empty store",
            fix="`lensmount cache ls` lists what is; models in Hugging Face's cache are removed by `hf cache`",
        )
    others = {sha256 for package in packages if package.id != model for _, sha256 in package.sha256s}
    own = {sha256 for package in mine for _, sha256 in package.sha256s} - others
    blobs = [path for path in map(store.blob_path, sorted(own)) if path.exists()]
    return _remove([*(package.folder for package in mine), *blobs], dry_run)


def prune(store: Store, *, dry_run: bool = True, min_age: float = 3600.0) -> Removal:
    """Removes what nothing uses: partials whose owners are gone, blobs of no package, folders of no use, old records.

    Blobs that were brought by address alone (no package uses them) go too; their addresses stay known, so that what
    comes again is still compared with the first download.

    Args:
        store: Where.
        dry_run: Only say what would go.
        min_age: Seconds; younger blobs stay, since a load that runs now may be about to use them.

    Raises:
        StoreError: A file cannot be removed.
    """
    packages = list_packages(store)
    used = {sha256 for package in packages if package.complete for _, sha256 in package.sha256s}
    paths: list[Path] = [package.folder for package in packages if not package.complete]
    for part in abandoned(store.root / "partials"):
        paths += [path for path in (part, part.with_suffix(".lease")) if path.exists()]
    blobs = [path for path in _files(store.root / "blobs" / "sha256") if path.name not in used]
    paths += [path for path in blobs if _age(path) >= min_age]
    paths += [record for record, about in store.ledger.stamps() if not about.exists()]
    return _remove(paths, dry_run)


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_ctime
    except OSError:
        return 0.0


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_symlink() or path.is_file())


def _size_of(folder: Path) -> int:
    total = 0
    for path in _files(folder):
        with contextlib.suppress(OSError):
            total += path.lstat().st_size
    return total


def _freed(paths: Iterable[Path]) -> int:
    """Bytes that go, each hard-linked file once, and only if its last link goes."""
    links: dict[tuple[int, int], tuple[int, int, int]] = {}
    total = 0
    for path in paths:
        for file in _files(path) if path.is_dir() and not path.is_symlink() else [path]:
            try:
                status = file.lstat()
            except OSError:
                continue
            if status.st_nlink == 1 or not status.st_ino:
                total += status.st_size
                continue
            key = (status.st_dev, status.st_ino)
            links[key] = (links.get(key, (0, 0, 0))[0] + 1, status.st_nlink, status.st_size)
    return total + sum(size for seen, count, size in links.values() if seen >= count)


def _remove(paths: list[Path], dry_run: bool) -> Removal:
    removal = Removal(paths=tuple(paths), size=_freed(paths), dry_run=dry_run)
    if dry_run:
        return removal
    for path in paths:
        try:
            if path.is_dir() and not path.is_symlink():
                for file in _files(path):
                    remove(file)
                shutil.rmtree(path)
            else:
                remove(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            problem = store_error(error, path, "removing")
            problem.fix = "close the programs that use the model, and check the permissions"
            raise problem from error
        with contextlib.suppress(OSError):
            path.parent.rmdir()  # only when empty
    return removal
