"""The only place an input becomes an array of pixels.

One colour rule for every model: encoded images are decoded to BGR; a numpy array is taken as BGR and a tensor or PIL
image as RGB, unless `color=` says otherwise for arrays and tensors. Nothing is swapped here: an `Image` says which
order its pixels have, and the swap happens after shrinking (`lensmount.transforms`).
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, unquote_to_bytes

import numpy as np
from numpy.typing import NDArray

from lensmount.decoding import check_size, decode, import_cv2, pixel_limit
from lensmount.errors import ImageError, OptionError

__all__ = ["Color", "Image", "import_cv2", "load", "load_many"]

Color = Literal["bgr", "rgb"]


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """A decoded picture.

    Attributes:
        pixels: `(H, W, 3)` uint8, a read-only view. It may share the caller's memory.
        color: Order of the channels.
        path: Path or address it came from, None when it came as data.
    """

    pixels: NDArray[np.uint8]
    color: Color = "bgr"
    path: str | None = None

    @property
    def height(self) -> int:
        """Pixels from top to bottom."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Pixels from left to right."""
        return int(self.pixels.shape[1])

    @property
    def size(self) -> tuple[int, int]:
        """`(height, width)`."""
        return self.height, self.width

    def array(self, color: Color = "bgr") -> NDArray[np.uint8]:
        """A writable copy of the pixels in the channel order asked for."""
        pixels = self.pixels if color == self.color else self.pixels[..., ::-1]
        return np.array(pixels, order="C")


def load(source: Any, *, color: Color | None = None, max_pixels: int | None = None) -> Image:
    """Turns one input into pixels.

    Args:
        source: A path (`str`, `Path`), an `http(s)://` URL, a `data:` URI, bytes, a binary file object, a PIL image,
            an ndarray `(H, W)`, `(H, W, 1)`, `(H, W, 3)` or `(H, W, 4)` uint8, a torch tensor `(H, W)` or `(C, H, W)`
            with 1, 3 or 4 channels, uint8 or floating in 0..1, on any device; or an `Image`, which is returned as it
            is. Alpha is dropped. EXIF orientation is applied to encoded images; a PIL image is taken as it lies in
            memory.
        color: Channel order of an array or tensor: None means BGR for arrays and RGB for tensors.
        max_pixels: Limit for encoded and PIL images, checked before decoding; None for `LENSMOUNT_MAX_PIXELS`, else
            200 million.

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
    if isinstance(source, Image):
        return source
    if isinstance(source, np.ndarray):
        return _from_array(source, color or "bgr", "the array")
    if _is_tensor(source):
        return _from_tensor(source, color or "rgb")
    limit = pixel_limit(max_pixels)
    if isinstance(source, (str, os.PathLike)):
        text = os.fspath(source)
        if isinstance(text, str):
            return _from_text(text, limit)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _image(decode(bytes(source), "the image", limit), "bgr")
    if _is_pil(source):
        return _from_pil(source, limit)
    if callable(getattr(source, "read", None)):
        return _from_file_object(source, limit)
    raise ImageError(
        "this is no image",
        found=f"{type(source).__module__}.{type(source).__qualname__}",
        expected="a path, URL, data URI, bytes, PIL image, numpy array (HWC uint8) or torch tensor (CHW)",
    )


def load_many(sources: Any, *, color: Color | None = None, max_pixels: int | None = None) -> list[Image]:
    """Turns one input, or several, into a list of pictures.

    Args:
        sources: Anything `load` takes, a list, tuple or generator of such, an NHWC array or an NCHW tensor.
        color: As in `load`.
        max_pixels: As in `load`.

    Returns:
        One picture per input; empty for an empty list.

    Raises:
        ImageError: An input cannot be used.
    """
    if isinstance(sources, np.ndarray) and sources.ndim == 4:
        return [load(item, color=color) for item in sources]
    if _is_tensor(sources) and sources.ndim == 4:
        return [load(item, color=color) for item in sources]
    single = isinstance(sources, (Image, str, bytes, bytearray, memoryview, os.PathLike, np.ndarray))
    if single or _is_tensor(sources) or _is_pil(sources) or callable(getattr(sources, "read", None)):
        return [load(sources, color=color, max_pixels=max_pixels)]
    if isinstance(sources, Iterable) and not isinstance(sources, (dict, set, frozenset)):
        return [load(item, color=color, max_pixels=max_pixels) for item in sources]
    return [load(sources, color=color, max_pixels=max_pixels)]


def _image(pixels: NDArray[np.uint8], color: Color, path: str | None = None) -> Image:
    view = pixels.view()
    view.flags.writeable = False
    return Image(view, color, path)


# --- text: paths, URLs, data URIs -------------------------------------------------------------------------------------


def _from_text(text: str, limit: int) -> Image:
    scheme = text.split(":", 1)[0].lower() if ":" in text[:32] else ""
    if scheme in ("http", "https"):
        from lensmount.image_sources import fetch

        return _image(decode(fetch(text, limit), text, limit), "bgr", text)
    if scheme == "data":
        return _image(decode(_data_uri(text), "the data URI", limit), "bgr")
    if text.startswith("file://"):
        text = unquote(text.removeprefix("file://"))
    elif "://" in text:
        raise ImageError(
            f"{text!r} is no image address",
            found=f"scheme {scheme!r}",
            expected="a path, http://, https:// or data:",
            fix="a stream is read with lensmount.image_sources.video_frames" if scheme in ("rtsp", "rtmp") else None,
        )
    return _image(decode(_read_file(text, limit), text, limit), "bgr", text)


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


def _read_file(text: str, limit: int) -> bytes:
    path = Path(text)
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError(
                f"{text} is a folder",
                expected="an image file",
                fix="pass the files in it: lensmount.image_sources.expand_sources(folder)",
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


def _from_file_object(source: Any, limit: int) -> Image:
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
    return _image(decode(data, name, limit), "bgr")


# --- arrays, tensors, PIL ---------------------------------------------------------------------------------------------


def _from_array(array: NDArray[Any], color: Color, what: str) -> Image:
    array = np.asarray(array)
    if array.dtype != np.uint8:
        raise _wrong_dtype(array, what)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim == 4:
        raise ImageError(f"{what} is a batch, not one image", found=f"shape {array.shape}", fix="pass its items")
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        planar = array.ndim == 3 and array.shape[0] in (1, 3, 4)
        raise ImageError(
            f"{what} has the wrong shape for an image",
            found=f"shape {array.shape}",
            expected="(H, W), (H, W, 1), (H, W, 3) or (H, W, 4)",
            fix="channels come last: array.transpose(1, 2, 0)" if planar else None,
        )
    if 0 in array.shape:
        raise ImageError(f"{what} has no pixels", found=f"shape {array.shape}")
    if array.shape[2] == 1:
        array = np.repeat(array, 3, axis=2)
    elif array.shape[2] == 4:
        array = array[..., :3]
    return _image(np.ascontiguousarray(array), color)


def _wrong_dtype(array: NDArray[Any], what: str) -> ImageError:
    found, fix = str(array.dtype), "np.clip(array, 0, 255).astype(np.uint8)"
    if array.dtype.kind == "f" and array.size:
        if not np.isfinite(array).all():
            return ImageError(
                f"{what} holds values that are no numbers",
                found=f"{array.dtype} with {int((~np.isfinite(array)).sum())} NaN or infinite values",
                expected="uint8, 0..255",
                fix="find where they come from, then convert to uint8",
            )
        low, high = float(array.min()), float(array.max())
        found = f"{array.dtype} from {low:.4g} to {high:.4g}"
        fix = "(array * 255).round().astype(np.uint8)" if low >= 0 and high <= 1 else "array.round().astype(np.uint8)"
    elif array.dtype == np.bool_:
        fix = "array.astype(np.uint8) * 255"
    elif array.dtype == np.uint16:
        fix = "(array >> 8).astype(np.uint8)"
    return ImageError(f"{what} is not uint8", found=found, expected="uint8, 0..255", fix=fix)


def _is_tensor(source: Any) -> bool:
    return any(kind.__name__ == "Tensor" and kind.__module__ == "torch" for kind in type(source).__mro__)


def _from_tensor(tensor: Any, color: Color) -> Image:
    shape = tuple(tensor.shape)
    if tensor.ndim == 2:
        tensor = tensor[None]
    if tensor.ndim == 4:
        raise ImageError("the tensor is a batch, not one image", found=f"shape {shape}", fix="pass its items")
    if tensor.ndim != 3 or tensor.shape[0] not in (1, 3, 4):
        interleaved = tensor.ndim == 3 and tensor.shape[2] in (1, 3, 4)
        raise ImageError(
            "the tensor has the wrong shape for an image",
            found=f"shape {shape}",
            expected="(C, H, W) with 1, 3 or 4 channels, or (H, W)",
            fix="channels come first: tensor.permute(2, 0, 1)" if interleaved else None,
        )
    host = tensor.detach().cpu().permute(1, 2, 0)
    if host.is_floating_point():
        array = host.float().numpy()
        if array.size and not (array.min() >= 0 and array.max() <= 1):  # also true of NaN
            low, high = float(array.min()), float(array.max())
            raise ImageError(
                "the floating tensor is not in 0..1",
                found=f"{tensor.dtype} from {low:.4g} to {high:.4g}",
                expected="uint8 in 0..255, or floating in 0..1 before any normalisation",
                fix="pass the image as it was before mean and std, or tensor.round().to(torch.uint8) for 0..255",
            )
        array = np.rint(array * np.float32(255)).astype(np.uint8)
    elif str(host.dtype) == "torch.uint8":
        array = host.numpy()
    else:
        raise ImageError(
            "the tensor has the wrong dtype",
            found=str(host.dtype),
            expected="torch.uint8, or floating in 0..1",
            fix="tensor.clamp(0, 255).to(torch.uint8)",
        )
    return _from_array(array, color, "the tensor")


def _is_pil(source: Any) -> bool:
    return any(kind.__name__ == "Image" and kind.__module__ == "PIL.Image" for kind in type(source).__mro__)


def _from_pil(source: Any, limit: int) -> Image:
    check_size((source.height, source.width), "the PIL image", limit)
    if source.mode in ("I", "F"):
        raise ImageError(
            f"the PIL image has mode {source.mode!r}, whose range is unknown",
            expected="RGB, RGBA, L, LA, P, 1, CMYK, YCbCr or I;16",
            fix="scale it to 0..255 and call image.convert('L')",
        )
    try:
        if source.mode.startswith("I;16"):
            array = (np.asarray(source) >> 8).astype(np.uint8)
        else:
            array = np.asarray(source if source.mode == "RGB" else source.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise ImageError("the PIL image cannot be read", found=str(error), fix="it may be truncated") from error
    image = _from_array(array, "rgb", "the PIL image")
    path = getattr(source, "filename", None)
    return Image(image.pixels, "rgb", path if isinstance(path, str) and path else None)
