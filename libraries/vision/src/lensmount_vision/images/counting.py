"""Whether a file holds more pictures than the first, by its structure alone; and what is said of those left out."""

from __future__ import annotations

import io
import os
import struct
import warnings
from typing import BinaryIO

from lensmount_vision.images.tiff import directories, of_file


class FirstPictureNotice(UserWarning):
    """A file holds several pictures, and only the first was taken. Said once for each format and process."""


_FORMATS = {"GIF": "GIF", "PNG": "APNG", "WebP": "WebP", "TIFF": "TIFF", "AVIF": "AVIF"}
_told: set[str] = set()


def notice(data: bytes, form: str, name: str) -> None:
    """Says that only the first picture of a file was taken, if there are more.

    Args:
        data: The whole file.
        form: A name of `headers.FORMATS`.
        name: What to call it.
    """
    if form in _told or form not in _FORMATS or not holds_several(io.BytesIO(data)):
        return
    _told.add(form)
    text = f"{name} holds several pictures ({_FORMATS[form]}), and only the first was taken: model.stream(path of the "
    text += "file) and lensmount predict take all of them (said once for each format)"
    warnings.warn(text, FirstPictureNotice, stacklevel=2)


def holds_several(file: BinaryIO) -> bool:
    """Whether a file has more than one picture, by its structure alone; False for what is no such file.

    Args:
        file: Open for reading at its start, with `seek`.
    """
    head = file.read(64)
    try:
        if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return sum(directory.page for directory, _ in zip(directories(of_file(file)), range(64), strict=False)) > 1
        if head[:6] in (b"GIF87a", b"GIF89a"):
            return _gif_pictures(file, 2) == 2
        if head[:8] == b"\x89PNG\r\n\x1a\n":
            return _apng(file)
        if head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X":
            return bool(head[20] & 2)  # RFC 9649, the flag of animations
    except (struct.error, ValueError, IndexError, OverflowError, OSError):
        return False  # damaged: the decoder says so
    return head[4:12] == b"ftypavis"


def _gif_pictures(file: BinaryIO, most: int) -> int:
    """Counts the image descriptors of a GIF (GIF89a, section 20), up to `most`."""
    file.seek(10)
    flags = file.read(3)[0]
    file.seek(13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0))
    found = 0
    while found < most:
        mark = file.read(1)
        if mark == b"!":
            file.seek(1, os.SEEK_CUR)
        elif mark == b",":
            found += 1
            flags = file.read(9)[8]
            file.seek((3 << (flags & 7) + 1 if flags & 0x80 else 0) + 1, os.SEEK_CUR)
        else:
            break
        while size := file.read(1)[0]:
            file.seek(size, os.SEEK_CUR)
    return found


def _apng(file: BinaryIO) -> bool:
    """Whether `acTL` stands before the pixels and speaks of more than one frame (PNG, 3rd edition)."""
    file.seek(8)
    while True:
        length, kind = struct.unpack(">I4s", file.read(8))
        if kind in (b"IDAT", b"IEND"):
            return False
        if kind == b"acTL":
            return bool(struct.unpack(">I", file.read(4))[0] > 1)
        file.seek(length + 4, os.SEEK_CUR)
