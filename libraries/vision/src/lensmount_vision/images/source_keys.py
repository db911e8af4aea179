"""Keys of pictures: of decoded ones, and of those that a cache looks up before any work is done."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lensmount.caches.keys import make_key
from lensmount.errors import ImageError
from lensmount_vision.images.requests import from_request

if TYPE_CHECKING:
    from lensmount_vision.images.image import Color, Image

_ROW = 4096  # words hashed at once: weights and row stay in the L1 cache
_OFFSETS = (0, 3, 6)
_FAST = 1 << 16  # bytes from which `array_digest` pays


def image_key(image: Image) -> str:
    """The key of a decoded picture's content: shape, pixels and colour order, wherever it came from."""
    on_host = getattr(image, "on_host", None)  # a picture on a device has the key of the same one on the host
    return make_key(image if on_host is None else on_host())


def source_key(source: Any, color: Color | None = None) -> str:
    """The key of whatever `lensmount_vision.images.loading.load` takes, without decoding it.

    A local file counts by path, size and time of modification; an address by itself; encoded bytes, arrays, tensors and
    PIL images by their content, with shape, dtype, mode and colour order. Keys hold within this process only (see
    `array_digest`); `content_key` gives ones that last.

    Args:
        source: One picture.
        color: Channel order that it will be loaded with.

    Returns:
        40 hex digits.

    Raises:
        ImageError: A file that is not there.
        InputError: Nothing that has a content.
    """
    source = from_request(source)
    if isinstance(source, str | os.PathLike):
        text = os.fspath(source)
        if isinstance(text, str) and text.startswith("data:"):
            return make_key("data", text)
        if isinstance(text, str) and "://" in text and not text.startswith("file://"):
            return make_key("address", text)
        path = Path(os.fsdecode(text).removeprefix("file://")).absolute()
        try:
            status = path.stat()
        except (OSError, ValueError) as error:
            raise ImageError(f"{os.fsdecode(text)} does not exist", found=str(error)) from error
        return make_key("file", str(path), status.st_size, status.st_mtime_ns)
    return make_key("pixels", _plain(source), color)


def content_key(source: Any, color: Color | None = None) -> str:
    """The key of a picture's content, the same in every process: a file counts by its bytes, not by its name.

    Raises:
        ImageError: A file that cannot be read.
        InputError: Nothing that has a content.
    """
    source = from_request(source)
    if isinstance(source, str | os.PathLike):
        text = os.fsdecode(os.fspath(source))
        if text.startswith("data:"):
            return make_key("data", text)
        if "://" in text and not text.startswith("file://"):
            return make_key("address", text)
        try:
            with Path(text.removeprefix("file://")).open("rb") as file:
                digest = hashlib.sha256()
                while block := file.read(1 << 20):
                    digest.update(block)
        except OSError as error:
            raise ImageError(f"{text} cannot be read", found=str(error)) from error
        return make_key("encoded", digest.digest())
    if isinstance(source, bytes | bytearray | memoryview):
        return make_key("encoded", hashlib.sha256(source).digest())
    return make_key("pixels", _plain(source, lasting=True), color)


def _plain(source: Any, *, lasting: bool = False) -> Any:
    """A form that `make_key` takes; large arrays as their digest."""
    from lensmount_vision.images.image import Image

    if isinstance(source, Image):
        shows = () if source.reduced is None else (source.reduced.size, source.reduced.origin)
        return ("image", source.color, _plain(source.pixels, lasting=lasting), *shows)
    if isinstance(source, np.ndarray) and not source.dtype.hasobject:
        if lasting or source.nbytes < _FAST:
            return source
        return ("array", source.dtype.str, source.shape, array_digest(source))
    if callable(getattr(source, "tobytes", None)) and hasattr(source, "mode"):  # PIL
        return ("pil", source.mode, source.size, _plain(np.frombuffer(source.tobytes(), np.uint8), lasting=lasting))
    return source


def array_digest(array: NDArray[Any]) -> bytes:
    """A digest of an array's bytes at the speed of memory, for caches of this process.

    Three sums of products with secret random odd weights, modulo 2**64, over each row of 4,096 words; the words of each
    sum begin at another byte, so that a difference in a word's highest byte, which a product all but loses, is in a
    lower one elsewhere. Two given arrays have the same digest with a probability below 2**-64, over the choice of
    weights. Shape and dtype are not in it. SHA-1 takes five times as long.

    Args:
        array: Any array of plain data.

    Returns:
        20 bytes, which mean nothing in another process.
    """
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    digest = hashlib.blake2b(digest_size=20)
    for offset, weights in zip(_OFFSETS, _weights(), strict=True):
        rows = (len(data) - offset) // (8 * _ROW)
        end = offset + rows * 8 * _ROW
        words = data[offset:end].view(np.uint64).reshape(rows, _ROW)
        digest.update(np.einsum("ij,j->i", words, weights).tobytes())
        digest.update(data[:offset].tobytes())
        digest.update(data[end:].tobytes())
    return digest.digest()


@lru_cache(maxsize=1)
def _weights() -> NDArray[np.uint64]:
    size = (len(_OFFSETS), _ROW)
    drawn = np.frombuffer(os.urandom(size[0] * size[1] * 8), np.uint64).reshape(size)
    odd: NDArray[np.uint64] = drawn | np.uint64(1)
    return odd
