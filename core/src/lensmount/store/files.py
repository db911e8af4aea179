"""Files written whole or not at all: atomic writes, links, hashes, and what the operating system's refusals mean."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lensmount.errors import ArtifactNotFoundError, IntegrityError, SourceError, StoreError

CHUNK = 1 << 20
_FULL = {errno.ENOSPC, errno.EDQUOT} if hasattr(errno, "EDQUOT") else {errno.ENOSPC}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}


def store_error(error: OSError, path: Path, doing: str) -> StoreError:
    """Says what an `OSError` on a file of the store means and what to do about it."""
    found = f"{type(error).__name__}: {error.strerror or error}"
    if error.errno in _FULL:
        return StoreError(
            f"no room left while {doing} {path}",
            found=found,
            fix="free some space (`lensmount cache prune` lists what can go) or set LENSMOUNT_HOME to a larger disk, "
            "and run again: the download goes on where it stopped",
        )
    if error.errno in _REFUSED:
        return StoreError(
            f"no permission while {doing} {path}",
            found=found,
            fix="make the folder writable, or set LENSMOUNT_HOME to one that is",
        )
    return StoreError(f"the store failed while {doing} {path}", found=found, fix="set LENSMOUNT_HOME to another folder")


@contextmanager
def storing(path: Path, doing: str) -> Iterator[None]:
    """Turns what the file system refuses into the error of `store_error`; our own errors pass."""
    try:
        yield
    except SourceError:
        raise
    except OSError as error:
        raise store_error(error, path, doing) from error


def size_error(needed: int, free: int, folder: Path) -> StoreError:
    """There is not enough room; found out before anything was downloaded."""
    return StoreError(
        f"not enough room in {folder}",
        found=f"{free:,} bytes free",
        expected=f"{needed:,} bytes",
        fix="free some space (`lensmount cache prune` lists what can go) or set LENSMOUNT_HOME to a larger disk",
    )


def sync_folder(folder: Path) -> None:
    """Makes a rename in a folder survive a power cut, where the system can."""
    if os.name == "nt":
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass  # some network file systems refuse; the file itself is synced
    finally:
        os.close(handle)


def safe_name(text: str) -> str:
    """The text as one part of a path, on any system."""
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in text).strip(".") or "file"


def temporary_beside(path: Path) -> Path:
    """A name in the same folder that no other process writes."""
    return path.with_name(f".{path.name[:80]}.{uuid.uuid4().hex[:12]}.tmp")


def write_atomic(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Writes a whole file or none.

    Raises:
        OSError: The file system refused; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    try:
        with temporary.open("wb") as handle:
            handle.write(content)
            handle.flush()
            if durable:
                os.fsync(handle.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def hash_file(path: Path) -> tuple[str, int]:
    """The sha256 of a file, and the number of bytes that were hashed."""
    return _hashed(path, hashlib.sha256())


def _hashed(path: Path, digest: hashlib._Hash) -> tuple[str, int]:
    size = 0
    with path.open("rb", buffering=0) as handle:
        while chunk := handle.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size


def check_md5(path: Path, expected: str) -> None:
    """Compares a file with an md5, for providers that publish nothing better.

    Raises:
        IntegrityError: They differ.
    """
    found, _ = _hashed(path, hashlib.md5(usedforsecurity=False))
    if found != expected.lower():
        raise broken_promise(str(path), f"md5 {found}", f"md5 {expected}", "bring the file again")


def broken_promise(what: str, found: str, expected: str, fix: str) -> IntegrityError:
    """The error for a file whose size or hash is another than was promised."""
    return IntegrityError(f"{what} is not what was promised", found=found, expected=expected, fix=fix)


def copy_verified(source: Path, target: Path, sha256: str | None = None) -> str:
    """Copies a file, hashing what is written; the target appears whole or not at all.

    Returns:
        The sha256 of what was written.

    Raises:
        IntegrityError: It is not the `sha256` asked for.
        OSError: The file system refused.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(target)
    digest = hashlib.sha256()
    try:
        with source.open("rb", buffering=0) as reader, temporary.open("wb") as writer:
            while chunk := reader.read(CHUNK):
                digest.update(chunk)
                writer.write(chunk)
            writer.flush()
            os.fsync(writer.fileno())
        if sha256 is not None and digest.hexdigest() != sha256:
            raise IntegrityError(f"{source} is damaged", found=f"sha256 {digest.hexdigest()}", expected=sha256)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(target.parent)
    return digest.hexdigest()


def link_or_copy(source: Path, target: Path, kinds: Iterable[str] = ("hard", "soft", "copy")) -> str | None:
    """Makes `target` stand for `source`: the first of `kinds` that the file system allows.

    Returns:
        The kind that worked (`hard`, `soft`, `copy`), or None when none did.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for kind in kinds:
        temporary = temporary_beside(target)
        try:
            if kind == "hard":
                os.link(source, temporary)
            elif kind == "soft":
                temporary.symlink_to(source)
            else:
                shutil.copyfile(source, temporary)
            temporary.replace(target)
        except (OSError, NotImplementedError):
            temporary.unlink(missing_ok=True)
            continue
        # rename() of one hard link onto another of the same file does nothing and leaves both
        temporary.unlink(missing_ok=True)
        return kind
    return None


def remove(path: Path) -> None:
    """Removes a file, read-only or not (Windows asks for the difference)."""
    try:
        path.unlink(missing_ok=True)
    except PermissionError:
        path.chmod(stat.S_IWRITE | stat.S_IREAD)
        path.unlink(missing_ok=True)


def require_file(path: Path, what: str) -> None:
    """Refuses what is not a regular file.

    Raises:
        SourceError: Missing, a folder or a device.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise ArtifactNotFoundError(
            f"{what} does not exist", found=f"nothing at {path}", fix="check the path"
        ) from None
    except OSError as error:
        raise SourceError(
            f"{what} cannot be read", found=f"{path}: {error.strerror}", fix="check who may read it"
        ) from error
    if not stat.S_ISREG(mode):
        raise SourceError(f"{what} is not a file", found=str(path), expected="a regular file")
