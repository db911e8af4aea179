"""Pictures to network input, one implementation for every model.

`prepare` crops, normalises contrast, resizes, swaps colours *after* shrinking, pads and normalises in one pass into
the output. On uint8 pixels scale, mean and std are one 256-entry table per channel, computed in float32 in the order
`value * scale`, `- mean`, `/ std` (a `scale` of 1/255 divides by 255): equal to the same steps in torch bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lensmount.errors import InputError, OptionError
from lensmount.specs import Preprocess
from lensmount_vision.images.contrast import adjust_contrast, to_grey
from lensmount_vision.images.decoding import check_size, import_cv2, pixel_limit
from lensmount_vision.images.geometry import Geometry, plan
from lensmount_vision.images.image import Image
from lensmount_vision.images.reduced_decode import plan_reduced
from lensmount_vision.images.resample import Window, resize

DType = Literal["float32", "float16", "uint8"]
Layout = Literal["nchw", "nhwc"]


def prepare(
    images: Sequence[Image],
    spec: Preprocess,
    *,
    size: tuple[int, int] | None = None,
    dtype: DType = "float32",
    layout: Layout = "nchw",
    out: NDArray[Any] | None = None,
) -> tuple[NDArray[Any], list[Geometry]]:
    """Makes a batch of pictures into a network's input.

    Args:
        images: Pictures, from `lensmount_vision.images.loading.load`; not changed.
        spec: How the package wants its input.
        size: `(height, width)` that overrides `spec.size`, for graphs of dynamic size.
        dtype: `float32` or `float16` values after scale, mean and std; `uint8` gives the pixels as they are, for
            graphs that normalise themselves.
        layout: `nchw` or `nhwc`.
        out: Array of the right shape and dtype to write into; None to make one.

    Returns:
        The batch `(N, C, H, W)` or `(N, H, W, C)`, and one geometry per picture.

    Raises:
        InputError: No pictures, pictures whose network sizes differ, or an `out` that does not fit.
        OptionError: The spec cannot be carried out.
        ImageTooLargeError: `pad-square` would make a picture beyond the limit on pixels.
    """
    check_spec(spec, dtype, layout)
    geometries, (height, width) = plan_batch(images, spec, size)
    item = (spec.channels, height, width) if layout == "nchw" else (height, width, spec.channels)
    shape = (len(images), *item)
    if out is None:
        out = np.empty(shape, dtype)
    elif out.shape != shape or out.dtype != dtype or not out.flags.c_contiguous:
        raise InputError(
            "the array to write into does not fit", found=f"{out.dtype} {out.shape}", expected=f"{dtype} {shape}"
        )
    for image, geometry, target in zip(images, geometries, out, strict=True):
        _write(image, geometry, spec, target, layout)
    return out, geometries


def plan_batch(
    images: Sequence[Image], spec: Preprocess, size: tuple[int, int] | None = None
) -> tuple[list[Geometry], tuple[int, int]]:
    """Geometries of pictures that share a batch, and the `(height, width)` of their network frame.

    Raises:
        InputError: No pictures, or pictures whose network sizes differ.
        OptionError: The spec cannot be carried out.
    """
    if not images:
        raise InputError("there are no images to prepare", found="an empty sequence", expected="one image or more")
    wanted = 3 if spec.channels in (1, 3) else spec.channels
    if any(image.channels != wanted for image in images):
        raise OptionError(
            "the channels of the pictures are not those of the network",
            found=", ".join(sorted({str(image.channels) for image in images})),
            expected=str(wanted),
            fix=f"images.load(..., channels={spec.channels}), of an array or tensor with as many",
        )
    geometries = [
        plan(image.size, spec, size) if image.reduced is None else plan_reduced(image.reduced, spec, size)
        for image in images
    ]
    frames = {geometry.network_size for geometry in geometries}
    if len(frames) > 1:
        raise InputError(
            "these images have different network sizes and cannot share a batch",
            found=", ".join(f"{h}x{w}" for h, w in sorted(frames)),
            fix="pass size=(height, width), or prepare them in groups of one size (images.geometry.plan tells it)",
        )
    return geometries, frames.pop()


def check_spec(spec: Preprocess, dtype: str, layout: str = "nchw") -> None:
    """Refuses what cannot be carried out.

    Raises:
        OptionError: Dtype, layout, channels, mean or std is not valid.
    """
    if dtype not in ("float32", "float16", "uint8"):
        raise OptionError("dtype is not valid", found=repr(dtype), expected="float32, float16 or uint8")
    if layout not in ("nchw", "nhwc"):
        raise OptionError("layout is not valid", found=repr(layout), expected="nchw or nhwc")
    if spec.channels < 1:
        raise OptionError("the network's channels are not valid", found=str(spec.channels), expected="1 or more")
    if spec.channels not in (1, 3) and (spec.grayscale or spec.contrast is not None):
        raise OptionError(
            "a network of many channels takes them as they are",
            found="grayscale" if spec.grayscale else f"contrast {spec.contrast!r}",
            expected=f"neither, for {spec.channels} channels",
        )
    for name, values in (("mean", spec.mean), ("std", spec.std)):
        if values is not None and len(values) not in (1, spec.channels):
            raise OptionError(
                f"{name} does not fit the channels", found=str(values), expected=f"{spec.channels} numbers, or one"
            )
    if spec.std is not None and not all(spec.std):
        raise OptionError("std is not valid", found=str(spec.std), expected="numbers other than 0")


def placed(geometry: Geometry, spec: Preprocess) -> tuple[tuple[int, int], tuple[int, int, int, int], Window]:
    """Where a picture's resized content comes to lie in the network's frame.

    Returns:
        `(height, width)` of the whole resized picture; `x0, y0, x1, y1` of its part that falls into the frame; and
        that part's `(top, bottom, left, right)` within the resized picture.
    """
    frame_height, frame_width = geometry.network_size
    height, width = geometry.padded_size if spec.resize == "pad-square" else geometry.resized_size
    left, top = int(geometry.offset[0]), int(geometry.offset[1])
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + width, frame_width), min(top + height, frame_height)
    return (height, width), (x0, y0, x1, y1), (y0 - top, y1 - top, x0 - left, x1 - left)


def cropped(pixels: Any, image: Image, geometry: Geometry) -> Any:
    """The part of a picture's pixels `(H, W, 3)` that its static crop leaves; reduced ones are taken as they are."""
    if image.reduced is not None:
        return pixels
    (x, y), (height, width) = geometry.crop_origin, geometry.crop_size
    return pixels[y : y + height, x : x + width]


def _write(image: Image, geometry: Geometry, spec: Preprocess, target: NDArray[Any], layout: Layout) -> None:
    """Renders one picture into its slot of the batch."""
    view = target if layout == "nhwc" else target.transpose(1, 2, 0)  # (H, W, C) either way
    frame_height, frame_width = geometry.network_size
    resized, (x0, y0, x1, y1), window = placed(geometry, spec)
    content = _content(image, geometry, spec, resized, window)
    swap = content.ndim == 3 and image.color != spec.color and spec.channels == 3
    padding = (y0, frame_height - y1, x0, frame_width - x1)
    if spec.resize == "letterbox-reflect" and any(padding):
        # Mirrored about the edge pixel, which is not repeated (numpy's and torch's "reflect").
        content = import_cv2().copyMakeBorder(content, *padding, import_cv2().BORDER_REFLECT_101)
        x0, y0, x1, y1 = 0, 0, frame_width, frame_height
    elif any(padding):
        _fill_padding(view, (x0, y0, x1, y1), spec)
    region = view[y0:y1, x0:x1]
    planes = [content] * spec.channels if content.ndim == 2 else list(import_cv2().split(content))
    for channel in range(spec.channels):
        _normalise(planes[2 - channel if swap else channel], region[..., channel], channel, spec)


def _content(image: Image, geometry: Geometry, spec: Preprocess, size: tuple[int, int], window: Window) -> NDArray[Any]:
    """The window of the cropped, adjusted and resized picture: `(h, w, 3)` in its own colour order, or `(h, w)`."""
    pixels: NDArray[Any] = cropped(image.pixels, image, geometry)
    height, width = pixels.shape[:2]
    if spec.contrast is not None:
        pixels = adjust_contrast(pixels, image.color, spec.contrast)
    if spec.grayscale or spec.channels == 1:
        pixels = to_grey(pixels, image.color)
    if spec.resize == "pad-square":
        cv2 = import_cv2()
        side = max(height, width)
        check_size((side, side), f"the square around a picture of {width}x{height}", pixel_limit())
        if spec.channels > 4:  # OpenCV's constant borders have four values
            after = ((0, side - height), (0, side - width), (0, 0))
            pixels = np.pad(pixels, after, constant_values=spec.padding_value)
        else:
            value = (spec.padding_value,) * 4
            pixels = cv2.copyMakeBorder(pixels, 0, side - height, 0, side - width, cv2.BORDER_CONSTANT, value=value)
    if spec.resample_dtype == "float32" and pixels.shape[:2] != size:
        pixels = pixels.astype(np.float32)
    return resize(pixels, size, spec.interpolation, antialias=spec.antialias, window=window)


def _fill_padding(view: NDArray[Any], box: tuple[int, int, int, int], spec: Preprocess) -> None:
    x0, y0, x1, y1 = box
    values = value_tables(spec, view.dtype.name)[:, spec.padding_value]
    for channel, value in enumerate(values):
        plane = view[..., channel]
        plane[:y0] = value
        plane[y1:] = value
        plane[y0:y1, :x0] = value
        plane[y0:y1, x1:] = value


def _normalise(plane: NDArray[Any], target: NDArray[Any], channel: int, spec: Preprocess) -> None:
    """Writes one channel's plane, uint8 or float32 in 0..255, through scale, mean and std."""
    if plane.dtype != np.uint8:
        target[...] = np.clip(np.rint(plane), 0, 255) if target.dtype == np.uint8 else _affine(plane, channel, spec)
        return
    if target.dtype == np.uint8:
        target[...] = plane
        return
    table = value_tables(spec, target.dtype.name)[channel]
    if target.dtype == np.float16:  # looked up as 16-bit integers, which every OpenCV knows
        table, target = table.view(np.int16), target.view(np.int16)
    if target.strides[1] == target.itemsize:
        import_cv2().LUT(plane, table, dst=target)
    else:
        target[...] = import_cv2().LUT(plane, table)


@lru_cache(maxsize=64)
def value_tables(spec: Preprocess, dtype: str) -> NDArray[Any]:
    """`(C, 256)`: what each grey value becomes."""
    values = np.arange(256, dtype=np.float32)
    if dtype == "uint8":
        tables = np.tile(values, (spec.channels, 1)).astype(np.uint8)
    else:
        tables = np.stack([_affine(values, channel, spec) for channel in range(spec.channels)]).astype(dtype)
    tables.flags.writeable = False
    return tables


def _affine(values: NDArray[np.float32], channel: int, spec: Preprocess) -> NDArray[np.float32]:
    # float32 all along, in torch's order: parity before the last bit of accuracy.
    result: NDArray[np.float32] = values / np.float32(255) if spec.scale == 1 / 255 else values * np.float32(spec.scale)
    if spec.mean is not None:
        result = result - np.float32(spec.mean[channel % len(spec.mean)])
    if spec.std is not None:
        result = result / np.float32(spec.std[channel % len(spec.std)])
    return result
