"""What an encoded image says of itself before it is decoded: format, size, orientation, whether it is all there.

A few hundred bytes of parsing per format, so that an absurd size is refused before memory is asked for, and so that
the EXIF orientation is the same whatever OpenCV is installed (OpenCV 4.8 ignores it in WebP).

Sources: ISO/IEC 10918-1 (JPEG), the PNG specification (3rd edition), GIF89a, TIFF 6.0, RFC 9649 (WebP), EXIF 2.32.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lensmount_vision.images.tiff import directories, of_bytes

FORMATS = ("JPEG", "PNG", "WebP", "GIF", "BMP", "TIFF", "PNM", "JPEG 2000", "AVIF")

#: A marker that ends entropy-coded data: neither a stuffed 0xFF nor a restart (ISO/IEC 10918-1, B.1.1.5).
_MARKER = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]", re.DOTALL)
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# each separator can match in one way only, so that the time is linear in the file's length
_PNM = re.compile(rb"P([1-6])(?:\s|#[^\n]*\n)+(\d{1,9})(?:\s|#[^\n]*\n)+(\d{1,9})\s")


@dataclass(frozen=True, slots=True)
class Header:
    """Facts from an encoded image's header.

    Attributes:
        format: One of `FORMATS`.
        size: `(height, width)` in pixels as stored, before orientation; None where the header does not say.
        orientation: EXIF orientation, 1..8; 1 when there is none.
        complete: False when the file is certainly cut short.
        tile: `(height, width)` of the tiles of a TIFF, which decoders hold whole, whatever the picture's size.
    """

    format: str
    size: tuple[int, int] | None
    orientation: int = 1
    complete: bool = True
    tile: tuple[int, int] | None = None


def read_header(data: bytes) -> Header | None:
    """Reads the header of an encoded image.

    Args:
        data: The whole file.

    Returns:
        Its facts, or None when the bytes are no image of a known format. Never raises on malformed data: what cannot
        be read is `size=None`, and the decoder has the last word.
    """
    for name, matches, reader in _READERS:
        if matches(data):
            try:
                return reader(data)
            except (struct.error, IndexError, ValueError, OverflowError):  # the last: an offset beyond 2**63
                return Header(name, None, complete=False)
    return None


def _jpeg(data: bytes) -> Header:
    size: tuple[int, int] | None = None
    orientation = 1
    position, end = 2, len(data)
    while position + 2 <= end:
        if data[position] != 0xFF:
            break
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker == 0xD9:
            return Header("JPEG", size, orientation)
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            position += 2
            continue
        (length,) = struct.unpack_from(">H", data, position + 2)
        body = position + 4
        if marker in _SOF and size is None:
            height, width = struct.unpack_from(">HH", data, body + 1)
            size = (height, width)
        elif marker == 0xE1 and data[body : body + 6] == b"Exif\0\0":
            orientation = _exif_orientation(data[body + 6 : position + 2 + length])
        position += 2 + length
        if marker == 0xDA:
            # In entropy-coded data 0xFF is always stuffed, so an end marker after the first scan's start is a real one;
            # from the end, since that is where it is in nearly every file.
            return Header("JPEG", size, orientation, complete=data.rfind(b"\xff\xd9", position) >= 0)
    return Header("JPEG", size, orientation, complete=False)


def _png(data: bytes) -> Header:
    width, height = struct.unpack_from(">II", data, 16)
    orientation, position = 1, 8
    complete = False
    while position + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        kind = data[position + 4 : position + 8]
        if kind == b"eXIf":
            orientation = _exif_orientation(data[position + 8 : position + 8 + length])
        position += 12 + length
        if kind == b"IEND":
            complete = position <= len(data)
            break
    return Header("PNG", (height, width), orientation, complete)


def _webp(data: bytes) -> Header:
    (declared,) = struct.unpack_from("<I", data, 4)
    size: tuple[int, int] | None = None
    orientation = 1
    for kind, body in _riff_chunks(data):
        if kind == b"VP8X":
            width = int.from_bytes(body[4:7], "little") + 1
            size = (int.from_bytes(body[7:10], "little") + 1, width)
        elif kind == b"VP8 " and size is None:
            width, height = struct.unpack_from("<HH", body, 6)
            size = (height & 0x3FFF, width & 0x3FFF)
        elif kind == b"VP8L" and size is None:
            (bits,) = struct.unpack_from("<I", body, 1)
            size = (((bits >> 14) & 0x3FFF) + 1, (bits & 0x3FFF) + 1)
        elif kind == b"EXIF":
            orientation = _exif_orientation(body.removeprefix(b"Exif\0\0"))
    return Header("WebP", size, orientation, complete=declared + 8 <= len(data))


def _riff_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 12
    while position + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, position)
        # Only the head of a picture's data is needed; metadata are read whole.
        keep = length if kind == b"EXIF" else min(length, 16)
        yield kind, data[position + 8 : position + 8 + keep]
        position += 8 + length + (length & 1)


def _gif(data: bytes) -> Header:
    width, height = struct.unpack_from("<HH", data, 6)
    return Header("GIF", (height, width))


def _bmp(data: bytes) -> Header:
    (header_size,) = struct.unpack_from("<I", data, 14)
    if header_size == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return Header("BMP", (abs(height), abs(width)))


def _tiff(data: bytes) -> Header:
    first = next(directories(of_bytes(data)), None)
    # OpenCV turns TIFFs itself, whatever the flags: no orientation is reported, lest it be applied twice.
    return Header("TIFF", first.size, tile=first.tile) if first is not None else Header("TIFF", None, complete=False)


def _pnm(data: bytes) -> Header:
    found = _PNM.match(data)
    return Header("PNM", (int(found[3]), int(found[2])) if found else None)


def _jpeg2000(data: bytes) -> Header:
    start = data.find(b"\xff\x4f\xff\x51", 0, 1 << 16)
    if start < 0:
        return Header("JPEG 2000", None)
    right, bottom, left, top = struct.unpack_from(">IIII", data, start + 8)
    return Header("JPEG 2000", (bottom - top, right - left))


def _avif(data: bytes) -> Header:
    # A picture made of tiles names the size of these as well; the whole is the largest.
    starts = [found.start() for found in re.finditer(b"ispe", data[: 1 << 16])]
    sizes = [struct.unpack_from(">II", data, start + 8) for start in starts]
    if not sizes:
        return Header("AVIF", None)
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    return Header("AVIF", (height, width))


def _exif_orientation(tiff: bytes) -> int:
    try:
        first = next(directories(of_bytes(tiff)), None)
    except (struct.error, ValueError, OverflowError):
        return 1
    return first.orientation if first is not None else 1


def count_scans(data: bytes, enough: int) -> int:
    """How many scans a JPEG has: each is a pass over all blocks of the picture, however few bytes it takes.

    Args:
        data: The whole file.
        enough: Where to stop counting.
    """
    if data.count(b"\xff\xda") <= enough:  # quick, and never too few
        return data.count(b"\xff\xda")
    position, scans = 2, 0
    while scans <= enough and (found := _MARKER.search(data, position)) is not None:
        position, marker = found.end(), data[found.end() - 1]
        if marker == 0xD9:  # what comes after the end is another file: MPO, a phone's film
            break
        scans += marker == 0xDA
        if marker not in (0x01, 0xD8):  # these have no length
            position += int.from_bytes(data[position : position + 2], "big")
    return scans


_READERS: tuple[tuple[str, Callable[[bytes], bool], Callable[[bytes], Header]], ...] = (
    ("JPEG", lambda d: d[:3] == b"\xff\xd8\xff", _jpeg),
    ("PNG", lambda d: d[:8] == b"\x89PNG\r\n\x1a\n", _png),
    ("WebP", lambda d: d[:4] == b"RIFF" and d[8:12] == b"WEBP", _webp),
    ("GIF", lambda d: d[:6] in (b"GIF87a", b"GIF89a"), _gif),
    ("BMP", lambda d: d[:2] == b"BM" and len(d) >= 26, _bmp),
    ("TIFF", lambda d: d[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), _tiff),
    ("PNM", lambda d: d[:1] == b"P" and _PNM.match(d) is not None, _pnm),
    ("JPEG 2000", lambda d: d[:12] == b"\0\0\0\x0cjP  \r\n\x87\n" or d[:4] == b"\xff\x4f\xff\x51", _jpeg2000),
    ("AVIF", lambda d: d[4:8] == b"ftyp" and d[8:12] in (b"avif", b"avis"), _avif),
)
