"""The only place an input becomes an array of pixels.

One colour rule for every model: encoded images are decoded to BGR; a numpy array is taken as BGR and a tensor or PIL
image as RGB, unless `color=` says otherwise for arrays and tensors. Nothing is swapped here: an `Image` says which
order its pixels have, and the swap happens after shrinking (`lensmount_vision.images.transforms`).
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, unquote_to_bytes

import numpy as np
from numpy.typing import NDArray

from lensmount.errors import ImageError, OptionError
from lensmount_vision.images.arrays import (
    from_array,
    from_pil,
    from_tensor,
    is_array,
    is_device_array,
    is_pil,
    is_plain,
    is_tensor,
)
from lensmount_vision.images.decoding import decode, pixel_limit
from lensmount_vision.images.image import Color, Image
from lensmount_vision.images.reduced_decode import Reduced
from lensmount_vision.images.requests import from_request

if TYPE_CHECKING:
    from lensmount.specs import Preprocess


def load(
    source: Any,
    *,
    color: Color | None = None,
    max_pixels: int | None = None,
    reduced_for: Preprocess | None = None,
    channels: int = 3,
) -> Image:
    """Turns one input into pixels.

    Args:
        source: A path (`str`, `Path`), an `http(s)://` URL, a `data:` URI, bytes, a binary file object, a PIL image,
            an ndarray `(H, W)`, `(H, W, 1)`, `(H, W, 3)` or `(H, W, 4)` uint8, a torch tensor `(H, W)` or `(C, H, W)`
            with 1, 3 or 4 channels, uint8 or floating in 0..1; another library's array on a device (CuPy, JAX), taken
            as an ndarray is; `{"type": "url" | "base64" | "file", "value": …}`, as inference servers take it; or an
            `Image`, which is returned as it is. What lies on a device stays there. Alpha is dropped. EXIF orientation
            is applied to encoded images; a PIL image is taken as it lies in memory.
        color: Channel order of an array or tensor: None means BGR for arrays and RGB for tensors.
        max_pixels: Limit for encoded and PIL images, checked before decoding; None for `LENSMOUNT_MAX_PIXELS`, else
            200 million.
        reduced_for: How a network wants its input. A JPEG that is much larger is then decoded at 1/2, 1/4 or 1/8 of its
            sides, as long as that leaves the network all the pixels that it sees; `Image.reduced` tells. Quicker, and
            not the same pixels. None decodes in full.
        channels: Channels of the network's input. Where they are neither 1 nor 3, the picture is an array
            `(H, W, channels)` uint8 or a tensor `(channels, H, W)`, whose channels are in the network's order;
            `Image.pixels` has as many, and nothing is swapped.

    Returns:
        The picture. An array that is uint8, `(H, W, 3)` and contiguous is not copied.

    Raises:
        ImageError: It cannot be used; the message says what to change.
        ImageTooLargeError: An encoded image declares more pixels than the limit.
        OfflineError: A URL, while offline was asked for.
        OptionError: `color` is neither `bgr` nor `rgb`.
    """
    if color not in (None, "bgr", "rgb"):
        raise OptionError("color is not valid", found=repr(color), expected="'bgr', 'rgb' or None")
    source = from_request(source)
    if not is_plain(channels):
        _check_channels(source, color, channels)
    if isinstance(source, Image):
        return source
    if isinstance(source, np.ndarray):
        return _image(from_array(source, "the array", channels), color or "bgr")
    if is_tensor(source):
        if source.device.type == "cpu":
            return _image(from_tensor(source, channels), color or "rgb")
        from lensmount_vision.images import on_device as pictures

        return pictures.from_tensor(source, color or "rgb", channels)
    if is_device_array(source):
        from lensmount_vision.images import on_device as pictures

        return pictures.from_dlpack(source, color or "bgr", channels)
    limit = pixel_limit(max_pixels)
    if isinstance(source, (str, os.PathLike)):
        text = os.fspath(source)
        if isinstance(text, str):
            return _from_text(text, limit, reduced_for)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _decoded(bytes(source), "the image", limit, reduced_for)
    if is_pil(source):
        path = getattr(source, "filename", None)
        return _image(from_pil(source, limit), "rgb", path if isinstance(path, str) and path else None)
    if callable(getattr(source, "read", None)):
        return _from_file_object(source, limit, reduced_for)
    raise ImageError(
        "this is no image",
        found=f"{type(source).__module__}.{type(source).__qualname__}",
        expected="a path, URL, data URI, bytes, PIL image, numpy array (HWC uint8) or torch tensor (CHW)",
    )


def load_many(
    sources: Any,
    *,
    color: Color | None = None,
    max_pixels: int | None = None,
    reduced_for: Preprocess | None = None,
    channels: int = 3,
) -> list[Image]:
    """Turns one input, or several, into a list of pictures.

    Args:
        sources: Anything `load` takes, a list, tuple or generator of such, an NHWC array or an NCHW tensor.
        color: As in `load`.
        max_pixels: As in `load`.
        reduced_for: As in `load`.
        channels: As in `load`.

    Returns:
        One picture per input; empty for an empty list.

    Raises:
        ImageError: An input cannot be used.
    """
    return [
        load(item, color=color, max_pixels=max_pixels, reduced_for=reduced_for, channels=channels)
        for item in split(sources)
    ]


def split(sources: Any) -> Iterator[Any]:
    """The single inputs of what may be one or several, undecoded.

    Args:
        sources: As for `load_many`.

    Yields:
        Things for `load`.
    """
    inputs = several(sources)
    yield from [sources] if inputs is None else inputs


def several(sources: Any) -> Iterable[Any] | None:
    """The single inputs of an NHWC array, an NCHW tensor or an iterable; None for anything else."""
    if is_single(sources) or isinstance(sources, (set, frozenset)):
        return None
    return sources if isinstance(sources, Iterable) or is_array(sources) else None


def is_single(source: Any) -> bool:
    """Whether this is one input, and neither several nor something that is no picture."""
    if is_array(source):
        return bool(source.ndim != 4)
    known = isinstance(source, (Image, Mapping, str, bytes, bytearray, memoryview, os.PathLike)) or is_pil(source)
    return known or callable(getattr(source, "read", None))


def _check_channels(source: Any, color: Color | None, channels: int) -> None:
    """Refuses what has no channels but colours, for a network that takes another number of them.

    Raises:
        ImageError: A file, a PIL image or a picture of three channels.
        OptionError: `color`, of which such pictures have none.
    """
    expected = f"an array (H, W, {channels}) uint8, or a tensor ({channels}, H, W), its channels in the network's order"
    if color is not None:
        raise OptionError(
            f"color is for pictures in colours; this network takes {channels} channels",
            found=repr(color),
            expected=expected,
        )
    if is_array(source) or (isinstance(source, Image) and source.pixels.shape[2] == channels):
        return
    kind = type(source).__name__ if is_single(source) else f"{type(source).__module__}.{type(source).__qualname__}"
    raise ImageError(
        f"this network takes pictures of {channels} channels, which decoded pictures do not have",
        found=kind,
        expected=expected,
        fix="read the file with the tool that knows its channels (tifffile, rasterio), and pass the array",
    )


def _image(pixels: NDArray[np.uint8], color: Color, path: str | None = None, reduced: Reduced | None = None) -> Image:
    view = pixels.view()
    view.flags.writeable = False
    return Image(view, color, path, reduced)


def _decoded(data: bytes, name: str, limit: int, spec: Preprocess | None, path: str | None = None) -> Image:
    pixels, reduced = decode(data, name, limit, spec)
    return _image(pixels, "bgr", path, reduced)


# --- text: paths, URLs, data URIs -------------------------------------------------------------------------------------


def _from_text(text: str, limit: int, spec: Preprocess | None) -> Image:
    scheme = text.split(":", 1)[0].lower() if ":" in text[:32] else ""
    if scheme in ("http", "https"):
        from lensmount_vision.images.sources import fetch, shown

        return _decoded(fetch(text, limit), shown(text), limit, spec, text)
    if scheme == "data":
        return _decoded(_data_uri(text), "the data URI", limit, spec)
    if text.startswith("file://"):
        text = unquote(text.removeprefix("file://"))
    elif "://" in text:
        raise ImageError(
            f"{text!r} is no image address",
            found=f"scheme {scheme!r}",
            expected="a path, http://, https:// or data:",
            fix="a stream is read with lensmount_vision.images.video_frames" if scheme in ("rtsp", "rtmp") else None,
        )
    return _decoded(read_file(text, limit), text, limit, spec, text)


def _data_uri(text: str) -> bytes:
    head, comma, body = text.partition(",")
    try:
        if not comma:
            raise ValueError("no comma")
        if head.lower().endswith(";base64"):
            return base64.b64decode("".join(unquote(body).split()), validate=True)
        return unquote_to_bytes(body)
    except (ValueError, binascii.Error) as error:
        raise ImageError(
            "the data URI is not valid", found=f"{text[:40]!r}… ({error})", expected="data:image/png;base64,…"
        ) from error


def read_file(text: str, limit: int) -> bytes:
    """A picture's file, whole.

    Raises:
        ImageError: It is missing, no file, larger than any picture within the limit, or cannot be read.
    """
    path = Path(text)
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError(
                f"{text} is a folder",
                expected="an image file",
                fix="pass the files in it: lensmount_vision.images.expand_sources(folder)",
            )
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"{text} is no regular file", expected="an image file")
        _check_bytes(status.st_size, text, limit)
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ImageError(f"{text} does not exist", found=f"no such file from {Path.cwd()}") from error
    except (OSError, ValueError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"{text[:200]!r} cannot be read", found=str(error)) from error


def _check_bytes(size: int, name: str, limit: int) -> None:
    # No picture within the pixel limit needs more: 4 channels of 16 bits, uncompressed, and a mebibyte of metadata.
    if size > 8 * limit + (1 << 20):
        raise ImageError(f"{name} is too large for an image", found=f"{size} bytes", expected=f"at most {8 * limit}")


def _from_file_object(source: Any, limit: int, spec: Preprocess | None) -> Image:
    name = str(getattr(source, "name", "the file object"))
    try:
        data = source.read(8 * limit + (1 << 20) + 1)
    except OSError as error:
        raise ImageError(f"{name} cannot be read", found=str(error)) from error
    if not isinstance(data, bytes):
        raise ImageError(
            f"{name} is open as text", found=type(data).__name__, fix='open it in binary: open(path, "rb")'
        )
    _check_bytes(len(data), name, limit)
    return _decoded(data, name, limit, spec)
