"""One member of a zip archive (a wheel, mostly), copied out as it is. Nothing else in it is unpacked or run."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

from lensmount.errors import ModelFileError, UnsafeFileError
from lensmount_reading.mapped import MappedFile
from lensmount_reading.text import printable
from lensmount_reading.zipdir import DEFLATED, STORED, ZipEntry, read_directory

MAX_MEMBER = 8 << 30
"""Bytes of a member, unless the caller says less."""

_CHUNK = 1 << 20


def copy_member(
    archive: str | os.PathLike[str], name: str, target: str | os.PathLike[str], *, limit: int = MAX_MEMBER
) -> tuple[int, str]:
    """Copies a member of a zip archive to a file; where anything is wrong, no file is left.

    The archive's directory is read strictly (`zipdir`), and no more is unpacked than it promises for this member.

    Args:
        archive: Path of the archive.
        name: The member's whole name, with forward slashes.
        target: The file to write; it must not exist.
        limit: Bytes that the member may have at most.

    Returns:
        Its size in bytes and its sha256 as hex digits.

    Raises:
        KeyError: The archive has no such member; the message lists the nearest names.
        ModelFileError: The archive or the member is damaged, or packed in a way that is not read.
        UnsafeFileError: An archive that no honest writer makes, or a member larger than `limit`.
        OSError: The target cannot be written.
    """
    file = MappedFile(archive)
    entries = read_directory(file)
    if name not in entries:
        near = difflib.get_close_matches(name, entries, n=3, cutoff=0.3)
        raise KeyError(", ".join(printable(other) for other in near) or f"{len(entries)} others")
    entry = entries[name]
    if entry.size > limit:
        raise UnsafeFileError(
            f"{file.path} is refused: {printable(name)} is too large",
            found=f"{entry.size:,} bytes",
            expected=f"at most {limit:,} bytes",
        )
    digest = hashlib.sha256()
    size = 0
    with Path(target).open("xb") as out:
        try:
            for chunk in _unpacked(file, name, entry):
                size += len(chunk)
                digest.update(chunk)
                out.write(chunk)
            if size != entry.size:
                raise _damaged(file, name, f"{size:,} bytes instead of {entry.size:,}")
        except BaseException:
            out.close()
            with contextlib.suppress(OSError):
                Path(target).unlink()
            raise
    return size, digest.hexdigest()


def _unpacked(file: MappedFile, name: str, entry: ZipEntry) -> Iterator[bytes]:
    position, end = entry.start, entry.start + entry.stored_size
    if entry.method == STORED:
        for start in range(position, end, _CHUNK):
            yield file.data[start : min(start + _CHUNK, end)]
        return
    if entry.method != DEFLATED:
        raise ModelFileError(
            f"{file.path}: {printable(name)} is packed in a way that is not read",
            found=f"method {entry.method}",
            expected="stored or deflated",
            fix="ask the publisher for an ordinary wheel",
        )
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    left = entry.size + 1  # one more than promised is enough to see that there is more
    rest = b""
    while left > 0 and not unpacker.eof:
        if not rest:
            rest = file.data[position : min(position + _CHUNK, end)]
            position += len(rest)
        try:
            chunk = unpacker.decompress(rest, min(left, _CHUNK))
        except zlib.error as error:
            raise _damaged(file, name, printable(error)) from error
        rest = unpacker.unconsumed_tail
        if not chunk and not rest and position >= end:
            return
        left -= len(chunk)
        yield chunk


def _damaged(file: MappedFile, name: str, problem: str) -> ModelFileError:
    return ModelFileError(f"{file.path}: {printable(name)} is damaged", found=problem, fix="download the archive again")
