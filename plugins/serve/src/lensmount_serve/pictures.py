"""What a request calls a picture, as pixels: base64, an uploaded file, an address where the operator allows it."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

import numpy as np

from lensmount_serve.failures import AnswerError
from lensmount_serve.fetching import fetch
from lensmount_serve.settings import Settings
from lensmount_vision.images import Image, import_cv2, load

_FETCH_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Source:
    """A picture that a request names.

    Attributes:
        kind: `base64`, `url`, `bytes`, or what else the client wrote.
        value: Text, or the bytes of an uploaded file.
        oriented: Whether the EXIF orientation is applied.
    """

    kind: str
    value: str | bytes
    oriented: bool = True


def check(source: Source, settings: Settings) -> None:
    """Refuses kinds of pictures that this server does not take, before anything is read.

    Raises:
        AnswerError: 400, with what it takes.
    """
    if source.kind == "numpy":
        raise AnswerError(400, "pictures of type 'numpy' are pickles, which can run code: send base64 of a PNG or JPEG")
    if source.kind == "url" and not settings.allow_urls:
        raise AnswerError(400, "pictures by address are off on this server (--allow-urls): send base64")
    if source.kind not in ("base64", "url", "bytes"):
        raise AnswerError(400, f"pictures of type {source.kind[:40]!r} are not known: send base64 or url")


def decode(source: Source, settings: Settings) -> Image:
    """A picture's pixels. Sizes are checked in its header, before memory is asked for.

    Raises:
        AnswerError: 400, for bytes that cannot be had.
        ImageError: The bytes are no picture, or one that is too large.
    """
    check(source, settings)
    data = _bytes(source, settings)
    picture = load(data, max_pixels=settings.max_pixels)
    return picture if source.oriented else _as_stored(data)


def _bytes(source: Source, settings: Settings) -> bytes:
    if isinstance(source.value, bytes):
        return source.value
    if source.kind == "url":
        return fetch(source.value, limit=settings.max_body, seconds=min(_FETCH_SECONDS, settings.timeout))
    text = source.value
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        # Some encoders break lines, and some leave out the padding.
        packed = "".join(text.split())
        return base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True)
    except (ValueError, binascii.Error) as error:
        raise AnswerError(400, "the picture is not valid base64") from error


def _as_stored(data: bytes) -> Image:
    """Pixels as they lie in the file; `load` has checked it before."""
    cv2 = import_cv2()
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise AnswerError(400, "this picture's format cannot be decoded without its orientation")
    return Image(pixels, "bgr")


def encode_jpeg(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    """A BGR picture as a JPEG."""
    cv2 = import_cv2()
    done, data = cv2.imencode(".jpg", pixels)
    if not done:
        raise AnswerError(500, "the picture cannot be encoded")
    return bytes(data)
