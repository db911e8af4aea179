"""Arrays, tensors and PIL images to `(H, W, 3)` uint8; nothing ambiguous is guessed at.

Neither torch nor Pillow is imported: their objects are recognised by the names of their classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lensmount.backend.tensors import is_tensor
from lensmount.errors import ImageError
from lensmount_vision.images.decoding import check_size

__all__ = ["from_array", "from_pil", "from_tensor", "is_array", "is_device_array", "is_pil", "is_tensor"]

_HOST = 1  # kDLCPU of DLPack


def is_plain(channels: int) -> bool:
    """Whether a network of so many channels takes pictures as people see them: grey or in colours."""
    return channels in (1, 3)


def from_array(array: NDArray[Any], what: str, channels: int = 3) -> NDArray[np.uint8]:
    """Checks an array and gives it the channels that a network takes.

    Args:
        array: `(H, W)` or `(H, W, C)` uint8 with 1, 3 or 4 channels; alpha is dropped. Where the network takes another
            number of channels than 1 or 3: `(H, W, channels)`.
        what: What to call it in errors.
        channels: Channels of the network's input.

    Returns:
        `(H, W, 3)` uint8, or `(H, W, channels)` where that is neither 1 nor 3; contiguous, and the array itself where
        it is that already.

    Raises:
        ImageError: Its dtype or shape is another; the message says how to convert it.
    """
    array = np.asarray(array)
    if array.dtype != np.uint8:
        raise _wrong_dtype(array, what)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim == 4:
        raise ImageError(f"{what} is a batch, not one image", found=f"shape {array.shape}", fix="pass its items")
    if not is_plain(channels):
        return _of_channels(array, what, channels)
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
    return np.ascontiguousarray(array)


def _of_channels(array: NDArray[np.uint8], what: str, channels: int) -> NDArray[np.uint8]:
    """A multi-channel picture as it is: in the network's own order of channels, of which nothing is swapped."""
    if array.ndim != 3 or array.shape[2] != channels or 0 in array.shape:
        planar = array.ndim == 3 and array.shape[0] == channels
        raise ImageError(
            f"{what} has not the channels of this network",
            found=f"shape {array.shape}",
            expected=f"(H, W, {channels}), the channels in the order that the network was trained with",
            fix="channels come last: array.transpose(1, 2, 0)" if planar else None,
        )
    return np.ascontiguousarray(array)


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


def from_tensor(tensor: Any, channels: int = 3) -> NDArray[np.uint8]:
    """Brings a torch tensor to the host as an interleaved array.

    Args:
        tensor: `(H, W)` or `(C, H, W)` with 1, 3 or 4 channels, uint8 or floating in 0..1, on any device.
        channels: As for `from_array`.

    Returns:
        `(H, W, 3)`, or as for `from_array`, uint8, contiguous; floats are rounded to the nearest of 255 steps.

    Raises:
        ImageError: Its dtype, range or shape is another; the message says how to convert it.
    """
    host = check_tensor(tensor, channels).detach().cpu().permute(1, 2, 0)
    if host.is_floating_point():
        array = host.float().numpy()
        if array.size and not (array.min() >= 0 and array.max() <= 1):  # also true of NaN
            raise wrong_range(tensor, float(array.min()), float(array.max()))
        array = np.rint(array * np.float32(255)).astype(np.uint8)
    else:
        array = host.numpy()
    return from_array(array, "the tensor", channels)


def check_tensor(tensor: Any, channels: int = 3) -> Any:
    """A torch tensor as `(C, H, W)`, where it can be a picture, for so many channels, by shape and dtype.

    Raises:
        ImageError: It cannot.
    """
    shape = tuple(tensor.shape)
    if tensor.ndim == 2:
        tensor = tensor[None]
    if tensor.ndim == 4:
        raise ImageError("the tensor is a batch, not one image", found=f"shape {shape}", fix="pass its items")
    taken = (1, 3, 4) if is_plain(channels) else (channels,)
    if tensor.ndim != 3 or tensor.shape[0] not in taken:
        interleaved = tensor.ndim == 3 and tensor.shape[2] in taken
        raise ImageError(
            "the tensor has the wrong shape for an image",
            found=f"shape {shape}",
            expected="(C, H, W) with 1, 3 or 4 channels, or (H, W)"
            if is_plain(channels)
            else f"({channels}, H, W), the channels in the order that the network was trained with",
            fix="channels come first: tensor.permute(2, 0, 1)" if interleaved else None,
        )
    if 0 in shape:
        raise ImageError("the tensor has no pixels", found=f"shape {shape}")
    if not tensor.is_floating_point() and str(tensor.dtype) != "torch.uint8":
        raise ImageError(
            "the tensor has the wrong dtype",
            found=str(tensor.dtype),
            expected="torch.uint8, or floating in 0..1",
            fix="tensor.clamp(0, 255).to(torch.uint8)",
        )
    return tensor


def wrong_range(tensor: Any, low: float, high: float) -> ImageError:
    """The error for a floating tensor that is not in 0..1."""
    return ImageError(
        "the floating tensor is not in 0..1",
        found=f"{tensor.dtype} from {low:.4g} to {high:.4g}",
        expected="uint8 in 0..255, or floating in 0..1 before any normalisation",
        fix="pass the image as it was before mean and std, or tensor.round().to(torch.uint8) for 0..255",
    )


def is_device_array(source: Any) -> bool:
    """Whether this is another library's array (CuPy, JAX, …) outside host memory, as DLPack says."""
    describe = getattr(source, "__dlpack_device__", None)
    if describe is None or isinstance(source, np.ndarray | np.generic) or is_tensor(source):
        return False
    return int(describe()[0]) != _HOST


def is_array(source: Any) -> bool:
    """Whether this holds pixels in rows: a numpy array, a torch tensor, another library's array on a device."""
    return isinstance(source, np.ndarray) or is_tensor(source) or is_device_array(source)


def is_pil(source: Any) -> bool:
    """Whether a value is a PIL image."""
    return any(kind.__name__ == "Image" and kind.__module__ == "PIL.Image" for kind in type(source).__mro__)


def from_pil(source: Any, limit: int) -> NDArray[np.uint8]:
    """Reads a PIL image's current frame as it lies in memory, without turning it by its EXIF orientation.

    Args:
        source: The image, in any mode whose range is known.
        limit: Most pixels allowed, checked before it is decoded.

    Returns:
        `(H, W, 3)` uint8 RGB, contiguous.

    Raises:
        ImageError: It is truncated, or its mode has no known range.
        ImageTooLargeError: It has more pixels than `limit`.
    """
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
    return from_array(array, "the PIL image")
