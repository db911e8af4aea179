"""Encoded bytes to pixels: header first, then OpenCV, with what OpenCV gets wrong put right."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lensmount.errors import ImageError, ImageTooLargeError, MissingDependencyError, OptionError
from lensmount_vision.images.counting import notice
from lensmount_vision.images.headers import FORMATS, Header, count_scans, read_header
from lensmount_vision.images.reduced_decode import Reduced, denominator

if TYPE_CHECKING:
    from lensmount.specs import Preprocess

DEFAULT_MAX_PIXELS = 200_000_000
MAX_PIXELS_VARIABLE = "LENSMOUNT_MAX_PIXELS"

#: Scans of a JPEG: never more than this many; and, from `_SCANS` on, no more than so many passes over a picture of the
#: pixel limit. Progressive encoders write about ten, an optimiser's search (jpegrescan, mozjpeg) up to a few dozen.
MAX_SCANS = 200
_SCANS, _PASSES = 24, 20

_TRANSPOSED = frozenset([5, 6, 7, 8])
#: What is flipped after transposing, horizontally and vertically, by EXIF orientation (EXIF 2.32, tag 0x0112).
_FLIPPED = {2: (True, False), 3: (True, True), 4: (False, True), 6: (True, False), 7: (True, True), 8: (False, True)}


def import_cv2() -> Any:
    """Imports OpenCV, and explains a failure.

    Returns:
        The `cv2` module.

    Raises:
        MissingDependencyError: OpenCV is not installed, or is the desktop build on a machine without libGL.
    """
    try:
        import cv2
    except ImportError as error:
        reason = str(error)
        if any(library in reason for library in ("libGL", "libgthread", "libglib", "libSM", "libXext", "libxcb")):
            raise MissingDependencyError(
                "OpenCV is installed in its desktop build, which needs graphics libraries that this machine lacks",
                found=reason,
                expected="opencv-python-headless, which needs none",
                fix="pip uninstall -y opencv-python opencv-contrib-python && "
                "pip install --force-reinstall opencv-python-headless",
            ) from error
        raise MissingDependencyError(
            "OpenCV cannot be imported", found=reason, fix="pip install opencv-python-headless"
        ) from error
    return cv2


def pixel_limit(max_pixels: int | None = None) -> int:
    """The most pixels an encoded image may have.

    Args:
        max_pixels: The caller's limit; None for `LENSMOUNT_MAX_PIXELS`, else 200 million.

    Raises:
        OptionError: The limit is not a positive integer.
    """
    value: object = max_pixels if max_pixels is not None else os.environ.get(MAX_PIXELS_VARIABLE) or DEFAULT_MAX_PIXELS
    try:
        limit = int(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else 0
    except ValueError:
        limit = 0
    if limit < 1:
        raise OptionError(
            "the limit on an image's pixels is not valid", found=repr(value), expected="a positive integer"
        )
    return limit


def check_size(size: tuple[int, int], name: str, limit: int) -> None:
    """Refuses an image that has more pixels than the limit.

    Raises:
        ImageTooLargeError: It has.
    """
    height, width = size
    if height * width > limit:
        raise ImageTooLargeError(
            f"{name} is larger than the limit; nothing was decoded",
            found=f"{width}x{height} = {height * width / 1e6:,.0f} million pixels",
            expected=f"at most {limit / 1e6:,.0f} million pixels",
            fix=f"shrink it, or raise the limit: {MAX_PIXELS_VARIABLE}={height * width}",
        )


def decode(
    data: bytes, name: str, limit: int, reduced_for: Preprocess | None = None, *, told: bool = False
) -> tuple[NDArray[np.uint8], Reduced | None]:
    """Decodes an image file's bytes.

    Alpha is dropped, 16-bit values keep their high bits, grey and palette become three channels, CMYK is converted,
    of an animation the first frame is taken, and the EXIF orientation is applied.

    Args:
        data: The whole file.
        name: What to call it in errors.
        limit: Most pixels allowed, checked on the header.
        reduced_for: How the network wants its input, where a JPEG may be decoded at a fraction of its size.
        told: Whether the caller knows that the file may hold more pictures than the first; else a notice says so.

    Returns:
        `(H, W, 3)` uint8, BGR; and what reduced pixels show, None for the whole picture.

    Raises:
        ImageError: Empty, not an image, truncated or corrupt.
        ImageTooLargeError: The header declares more pixels than `limit`, or a JPEG has absurdly many scans.
        MissingDependencyError: The installed OpenCV does not read this format and Pillow is not installed.
    """
    if not data:
        raise ImageError(f"{name} is empty", found="0 bytes", expected="an encoded image")
    header = read_header(data)
    if header is None:
        raise ImageError(
            f"{name} is not an image",
            found=f"{len(data)} bytes that begin with {data[:12]!r}",
            expected="one of " + ", ".join(FORMATS),
        )
    if header.size is not None:
        if min(header.size) < 1:
            raise _unreadable(name, header, f"a header of size {header.size[1]}x{header.size[0]}")
        check_size(header.size, name, limit)
        _check_work(data, header, name, limit)
    if not header.complete:
        raise ImageError(
            f"{name} is truncated",
            found=f"a {header.format} of {len(data)} bytes that ends before its data do",
            expected="a whole file",
            fix="copy or download it again",
        )
    if header.size is None:
        raise _unreadable(name, header, f"a {header.format} of {len(data)} bytes whose header gives no size")
    if not told:
        notice(data, header.format, name)
    if reduced_for is not None and header.format == "JPEG":
        found = _decode_reduced(data, header, reduced_for)
        if found is not None:
            return found
    # OpenCV ignores AVIF's orientation, so that format always goes to Pillow.
    pixels = None if header.format == "AVIF" else _decode_cv2(data, header)
    if pixels is None and header.format in ("AVIF", "GIF", "WebP"):
        pixels = _decode_pillow(data, name, header)
    if pixels is None:
        raise _unreadable(name, header, f"a {header.format} of {len(data)} bytes that OpenCV cannot decode")
    check_size((pixels.shape[0], pixels.shape[1]), name, limit)
    return oriented(pixels, header.orientation), None


def _check_work(data: bytes, header: Header, name: str, limit: int) -> None:
    """Refuses what a decoder would work or allocate for far beyond the picture's pixels."""
    assert header.size is not None
    if header.tile is not None:
        check_size(header.tile, f"a tile of {name}", limit)
    if header.format != "JPEG":
        return
    pixels = header.size[0] * header.size[1]
    most = min(MAX_SCANS, max(_SCANS, _PASSES * limit // max(pixels, 1)))
    if count_scans(data, most) > most:
        raise ImageTooLargeError(
            f"{name} would take too long to decode; nothing was decoded",
            found=f"a JPEG of {pixels / 1e6:,.1f} million pixels in more than {most} scans, each a pass over all of it",
            expected=f"at most {most} scans for this size; encoders write about ten",
            fix="open it in an image editor and save it again",
        )


def _decode_reduced(data: bytes, header: Header, spec: Preprocess) -> tuple[NDArray[np.uint8], Reduced] | None:
    """A JPEG at a fraction of its size; None where it is not that much larger, or cannot be decoded so."""
    if header.size is None:
        return None
    size = header.size[::-1] if header.orientation in _TRANSPOSED else header.size
    step = denominator(size, spec)
    if step == 1:
        return None
    cv2 = import_cv2()
    pixels = _decode_cv2(data, header, getattr(cv2, f"IMREAD_REDUCED_COLOR_{step}"))
    if pixels is None:
        return None
    # A decoder that rounds otherwise than libjpeg, or a header whose size is not the picture's, is decoded in full.
    if pixels.shape[:2] != tuple(-(-side // step) for side in header.size):
        return None
    pixels = oriented(pixels, header.orientation)
    covered = (pixels.shape[0] * step, pixels.shape[1] * step)
    flip_x, flip_y = _FLIPPED.get(header.orientation, (False, False))
    origin = (size[1] - covered[1] if flip_x else 0, size[0] - covered[0] if flip_y else 0)
    return pixels, Reduced(size, step, covered, origin)


def _unreadable(name: str, header: Header, found: str) -> ImageError:
    return ImageError(
        f"{name} is corrupt or of a kind of {header.format} that cannot be read",
        found=found,
        expected=f"a whole {header.format} with 8 or 16 bits per channel",
        fix="open it in an image editor and save it as PNG, or pass it as a numpy array",
    )


def _decode_cv2(data: bytes, header: Header, flags: int | None = None) -> NDArray[np.uint8] | None:
    cv2 = import_cv2()
    flags = cv2.IMREAD_COLOR if flags is None else flags
    if header.format != "TIFF":
        flags |= cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None
    if pixels is None or pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        return None
    result: NDArray[np.uint8] = pixels
    return result


def _decode_pillow(data: bytes, name: str, header: Header) -> NDArray[np.uint8] | None:
    """For formats that some OpenCV builds lack: GIF and animated WebP before 4.12, AVIF."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise MissingDependencyError(
            f"{name} is corrupt, or a kind of {header.format} that the installed OpenCV {import_cv2().__version__} "
            "does not read",
            found=f"a {header.format} of {len(data)} bytes",
            fix="pip install pillow",
        ) from error
    try:
        with Image.open(io.BytesIO(data)) as image:
            # Elsewhere `decode` turns the pixels by the header's own orientation.
            turned = ImageOps.exif_transpose(image) if header.format == "AVIF" else image
            return np.ascontiguousarray(np.asarray(turned.convert("RGB"))[..., ::-1])
    except MemoryError:
        raise
    except Exception:  # each of Pillow's decoders raises what it likes of a damaged picture: AVIF's a RuntimeError
        return None


def oriented(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Applies an EXIF orientation."""
    if orientation == 1:
        return pixels
    cv2 = import_cv2()
    if orientation in _TRANSPOSED:
        pixels = cv2.transpose(pixels)
    flipped = _FLIPPED.get(orientation)
    if flipped is None:
        return pixels
    code = -1 if all(flipped) else int(flipped[0])
    return cv2.flip(pixels, code)  # type: ignore[no-any-return]  # OpenCV is taken as untyped here
