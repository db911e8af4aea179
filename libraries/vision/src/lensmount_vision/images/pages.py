"""Files that hold several pictures: GIF, APNG, animated WebP and AVIF, TIFF with pages.

As one picture, such a file is its first one, and a notice says so. A stream takes all of them, like frames of a video.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lensmount.errors import ImageError
from lensmount_vision.images.counting import holds_several
from lensmount_vision.images.decoding import check_size, decode, oriented, pixel_limit
from lensmount_vision.images.headers import read_header
from lensmount_vision.images.image import Image
from lensmount_vision.images.loading import read_file
from lensmount_vision.images.sources import Frame
from lensmount_vision.images.tiff import directories, of_bytes


def several_in(source: Any) -> bool:
    """Whether a source, as `loading.load` takes it, is a local file or bytes with several pictures."""
    try:
        if isinstance(source, (bytes, bytearray, memoryview)):
            return holds_several(io.BytesIO(source))
        if isinstance(source, (str, os.PathLike)):
            path = _path(source)
            if path is not None and path.is_file():
                with path.open("rb") as file:
                    return holds_several(file)
    except (OSError, ValueError):
        pass  # reading it as a picture says what is wrong
    return False


def _path(source: str | os.PathLike[str]) -> Path | None:
    from urllib.parse import unquote

    text = os.fspath(source)
    if not isinstance(text, str) or text.startswith("data:"):
        return None
    if text.startswith("file://"):
        return Path(unquote(text.removeprefix("file://")))
    return None if "://" in text else Path(text)


def pictures(source: Any, *, max_pixels: int | None = None) -> Iterator[Frame]:
    """All pictures of a file, one after another; the first is what `loading.load` gives.

    Args:
        source: A path, or the file's bytes.
        max_pixels: As for `loading.load`; each picture is held to it.

    Yields:
        The pictures with their number and, for animations, their time; pages of a TIFF are a second apart.

    Raises:
        ImageError: One cannot be decoded; or Pillow, which reads all but TIFF, is not installed.
        ImageTooLargeError: One has too many pixels.
    """
    limit = pixel_limit(max_pixels)
    if isinstance(source, (bytes, bytearray, memoryview)):
        data, name, path = bytes(source), "the image", None
    else:
        found = _path(source)
        name = path = os.fspath(source)
        data = read_file(str(found), limit)
    header = read_header(data)
    if header is not None and header.format == "TIFF":
        frames = _pages(data, name, limit)
    else:
        frames = _animation(data, name, limit, header.orientation if header is not None else 1)
    for number, (seconds, pixels) in enumerate(frames):
        pixels.flags.writeable = False
        yield Frame(number, seconds, Image(pixels, "bgr", path))


def _pages(data: bytes, name: str, limit: int) -> Iterator[tuple[float, Any]]:
    """Pages of a TIFF, each read by the decoder of single pictures: the file's first pointer leads to it."""
    changed = bytearray(data)
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    number = 0
    try:
        for directory in directories(of_bytes(data)):
            if not directory.page and number:
                continue
            struct.pack_into(order + ("Q" if big else "I"), changed, 8 if big else 4, directory.offset)
            label = f"page {number} of {name}" if number else name
            yield float(number), decode(bytes(changed), label, limit, told=True)[0]
            number += 1
    except (struct.error, OverflowError) as error:
        raise ImageError(
            f"{name} is damaged after its page {number}", found=str(error), fix="copy or download it again"
        ) from error


def _animation(data: bytes, name: str, limit: int, orientation: int) -> Iterator[tuple[float, Any]]:
    first, _ = decode(data, name, limit, told=True)
    yield 0.0, first
    try:
        from PIL import Image as Pillow
        from PIL import ImageOps
    except ImportError as error:
        raise ImageError(
            f"{name} has more pictures than the first, and they cannot be read here",
            found="Pillow is not installed",
            fix="pip install pillow",
        ) from error
    try:
        with Pillow.open(io.BytesIO(data)) as image:
            check_size((image.size[1], image.size[0]), name, limit)
            seconds = 0.0
            for number in range(getattr(image, "n_frames", 1)):
                image.seek(number)
                if number:
                    turned = ImageOps.exif_transpose(image) if image.format == "AVIF" else image
                    pixels = np.ascontiguousarray(np.asarray(turned.convert("RGB"))[..., ::-1])
                    yield seconds, pixels if image.format == "AVIF" else oriented(pixels, orientation)
                else:
                    image.load()  # some decoders know the time only then
                seconds += max(float(image.info.get("duration") or 0), 0.0) / 1000
    except (ImageError, MemoryError, GeneratorExit):
        raise
    except Exception as error:  # Pillow's decoders raise what they like of a damaged picture
        raise ImageError(
            f"{name} is damaged after its first picture",
            found=f"{type(error).__name__}: {error}"[:200],
            fix="copy or download it again",
        ) from error
