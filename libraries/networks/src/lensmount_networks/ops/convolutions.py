"""Convolutions, pooling, padding and resampling of feature maps `(B, C, H, W)`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from lensmount_networks.sizes import AnySize, Size
from lensmount_networks.values import Value, require_fit

Tensor = Any
Pair = int | tuple[int, int]


def _pair(number: Pair) -> tuple[int, int]:
    return (number, number) if isinstance(number, int) else number


def _window(size: AnySize, kernel: int, stride: int, padding: int, dilation: int = 1, ceil: bool = False) -> AnySize:
    """Places of a window along an axis."""
    left: Any = size + (2 * padding - dilation * (kernel - 1) - 1)
    if isinstance(left, int) and left < 0:
        raise TypeError(f"{size} elements are too few for a window of {kernel}, padding {padding}, dilation {dilation}")
    made: AnySize = (left + (stride - 1) * ceil) // stride + 1
    if ceil and isinstance(made, int) and isinstance(size, int) and (made - 1) * stride >= size + padding:
        made -= 1  # a window that begins in the padding at the end is left out
    return made


def _pads(padding: tuple[int, int]) -> list[int]:
    return [*padding, *padding]


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Tensor:
    """Convolution with weights `(O, C / groups, kH, kW)`."""
    if not isinstance(x, Value):
        import torch

        return torch.nn.functional.conv2d(x, weight, bias, stride, padding, dilation, groups)
    steps, pads, gaps = _pair(stride), _pair(padding), _pair(dilation)
    kernel = weight.shape[2:]
    require_fit("channels of a convolution", x.shape[1], weight.shape[1] * groups)
    require_fit("outputs of a convolution in groups", weight.shape[0] % groups, 0)
    sizes = [_window(x.shape[2 + i], kernel[i], steps[i], pads[i], gaps[i]) for i in (0, 1)]
    return x.graph.add(
        "Conv",
        [x, weight, bias],
        (x.shape[0], weight.shape[0], *sizes),
        kernel_shape=list(kernel),
        strides=list(steps),
        pads=_pads(pads),
        dilations=list(gaps),
        group=groups,
    )


def conv_transpose2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    output_padding: Pair = 0,
    groups: int = 1,
) -> Tensor:
    """Transposed convolution with weights `(C, O / groups, kH, kW)`."""
    if not isinstance(x, Value):
        import torch

        return torch.nn.functional.conv_transpose2d(x, weight, bias, stride, padding, output_padding, groups)
    steps, pads, more = _pair(stride), _pair(padding), _pair(output_padding)
    kernel = weight.shape[2:]
    require_fit("channels of a transposed convolution", x.shape[1], weight.shape[0])
    sizes = [(x.shape[2 + i] - 1) * steps[i] + (kernel[i] - 2 * pads[i] + more[i]) for i in (0, 1)]
    return x.graph.add(
        "ConvTranspose",
        [x, weight, bias],
        (x.shape[0], weight.shape[1] * groups, *sizes),
        kernel_shape=list(kernel),
        strides=list(steps),
        pads=_pads(pads),
        output_padding=list(more),
        group=groups,
    )


def max_pool2d(x: Tensor, kernel: Pair, stride: Pair | None = None, padding: Pair = 0, *, ceil: bool = False) -> Tensor:
    """The largest in each window."""
    if not isinstance(x, Value):
        import torch

        return torch.nn.functional.max_pool2d(x, kernel, stride, padding, 1, ceil)
    return _pool(x, "MaxPool", kernel, stride, padding, ceil)


def avg_pool2d(x: Tensor, kernel: Pair, stride: Pair | None = None, padding: Pair = 0) -> Tensor:
    """The mean of each window, padding counted."""
    if not isinstance(x, Value):
        import torch

        return torch.nn.functional.avg_pool2d(x, kernel, stride, padding)
    return _pool(x, "AveragePool", kernel, stride, padding, False, count_include_pad=1)


def _pool(x: Value, operator: str, kernel: Pair, stride: Pair | None, padding: Pair, ceil: bool, **more: Any) -> Value:
    window, pads = _pair(kernel), _pair(padding)
    steps = _pair(kernel if stride is None else stride)
    sizes = [_window(x.shape[2 + i], window[i], steps[i], pads[i], 1, ceil) for i in (0, 1)]
    return x.graph.add(
        operator,
        [x],
        (*x.shape[:2], *sizes),
        kernel_shape=list(window),
        strides=list(steps),
        pads=_pads(pads),
        ceil_mode=int(ceil),
        **more,
    )


def pad(
    x: Tensor,
    amounts: Sequence[AnySize],
    mode: Literal["constant", "reflect", "replicate"] = "constant",
    value: float = 0.0,
) -> Tensor:
    """Pads the last axes.

    Args:
        x: Any shape; `reflect` and `replicate` take feature maps.
        amounts: Before and after for the last axis, then for the one before it, and so on, as torch takes them.
        mode: What stands in the padding.
        value: With `constant`.
    """
    if not isinstance(x, Value):
        import torch

        more = {"value": value} if mode == "constant" else {}
        numbers: Any = tuple(amounts)
        return torch.nn.functional.pad(x, numbers, mode, **more)
    count = len(amounts) // 2
    before = [0] * (x.ndim - count) + [amounts[2 * i] for i in reversed(range(count))]
    after = [0] * (x.ndim - count) + [amounts[2 * i + 1] for i in reversed(range(count))]
    shape = [size + (b + a) for size, b, a in zip(x.shape, before, after, strict=True)]
    inputs = [x, x.graph.sizes([*before, *after])]
    if mode == "constant":
        inputs.append(x.graph.scalar(value, x.dtype))
    return x.graph.add("Pad", inputs, shape, mode="edge" if mode == "replicate" else mode)


def resize(
    x: Tensor,
    size: Sequence[AnySize] | None = None,
    *,
    scale: float | None = None,
    mode: Literal["nearest", "bilinear", "bicubic"] = "nearest",
    align_corners: bool = False,
) -> Tensor:
    """Resamples a feature map without antialiasing.

    Args:
        x: `(B, C, H, W)`.
        size: Height and width of the result; or
        scale: a factor for both: whole numbers on free sizes.
        mode: `nearest` rounds down, as torch's does.
        align_corners: Whether the corners' centres stay in place; not with `nearest`.
    """
    if not isinstance(x, Value):
        import torch

        aligned = None if mode == "nearest" else align_corners
        to: Any = None if size is None else tuple(size)
        return torch.nn.functional.interpolate(x, to, scale, mode, aligned)
    if size is None:
        factor: Any = int(scale) if scale is not None and float(scale).is_integer() else scale
        size = [s * factor if isinstance(s, Size) else int(s * factor) for s in x.shape[2:]]
    transform = {"nearest": "asymmetric"}.get(mode, "align_corners" if align_corners else "pytorch_half_pixel")
    own: dict[str, Any] = {"nearest_mode": "floor"} if mode == "nearest" else {}
    own |= {"cubic_coeff_a": -0.75} if mode == "bicubic" else {}
    kind = {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
    shape = (*x.shape[:2], *size)
    inputs: list[Value | None]
    if scale is not None:
        inputs = [x, None, x.graph.constant(_factors(scale), "scales")]
    else:
        inputs = [x, None, None, x.graph.sizes(shape)]
    return x.graph.add("Resize", inputs, shape, mode=kind, coordinate_transformation_mode=transform, **own)


def _factors(scale: float) -> Any:
    import numpy as np

    return np.array([1, 1, scale, scale], np.float32)


def grid_sample(
    x: Tensor,
    grid: Tensor,
    *,
    mode: Literal["bilinear", "nearest"] = "bilinear",
    padding: Literal["zeros", "border"] = "zeros",
    align_corners: bool = False,
) -> Tensor:
    """Samples `(B, C, H, W)` at places `(B, h, w, 2)`, x then y, from -1 to 1: `(B, C, h, w)`."""
    if isinstance(x, Value):
        shape = (*x.shape[:2], *grid.shape[1:3])
        return x.graph.add(
            "GridSample", [x, grid], shape, mode=mode, padding_mode=padding, align_corners=int(align_corners)
        )
    import torch

    return torch.nn.functional.grid_sample(x, grid, mode, padding, align_corners)
