"""TFLite's operators in ONNX's words: those of MediaPipe's face models, and what is near them.

Fields and numbers are those of TensorFlow's `lite/schema/schema.fbs` (Apache-2.0).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lensmount_mediapipe.values import LAST_TO_FIRST, Tensors
from lensmount_networks import Value
from lensmount_networks.ops import clamp, concat, relu, sigmoid, tanh
from lensmount_reading import TfliteOperator

Write = Callable[[Tensors, TfliteOperator, int], None]

_SAME = 0
_ACTIVATIONS: Mapping[int, Callable[[Value], Any]] = {
    0: lambda x: x,
    1: relu,
    2: lambda x: clamp(x, -1.0, 1.0),
    3: lambda x: clamp(x, 0.0, 6.0),
}
"""Activations that other operators bring along, by the schema's numbers; LiteRT takes no others."""


def windows(size: int, kernel: int, stride: int, gap: int, same: bool) -> tuple[int, int, int]:
    """Places of a window along an axis, and the padding before and after that they need.

    With `same` there are as many places as strides, rounded up, and an odd pixel of padding goes to the end.
    """
    reach = (kernel - 1) * gap + 1
    if not same:
        return max((size - reach) // stride + 1, 0), 0, 0
    places = -(-size // stride)
    padding = max((places - 1) * stride + reach - size, 0)
    return places, padding // 2, padding - padding // 2


def _activated(tensors: Tensors, operator: TfliteOperator, made: Value, field: int) -> Value:
    number = tensors.option(operator, field, "int8")
    if number not in _ACTIVATIONS:
        tensors.wrong(operator, f"activation {number}", ", ".join(map(str, _ACTIVATIONS)))
    result: Value = _ACTIVATIONS[number](made)
    return result


def _picture(tensors: Tensors, operator: TfliteOperator, place: int = 0) -> Value:
    """An input of four axes, channels second."""
    number = operator.inputs[place] if place < len(operator.inputs) else -1
    if number < 0 or len(tensors.shape(number)) != 4:
        tensors.wrong(operator, "an input that is no picture", "(batch, height, width, channels)")
    return tensors.value(number, "first")


def _convolution(tensors: Tensors, operator: TfliteOperator, output: int, deep: bool) -> None:
    x, weights = _picture(tensors, operator), tensors.floats(operator, 1)
    channels = int(x.shape[1])
    if weights.ndim != 4 or 0 in weights.shape or (weights.shape[0] != 1 if deep else weights.shape[3] != channels):
        tensors.wrong(operator, f"weights {weights.shape} on {channels} channels", "weights for them")
    if deep and weights.shape[3] % channels:
        tensors.wrong(operator, f"weights {weights.shape} on {channels} channels", "a multiple of them")
    strides = tensors.steps(operator, 2, 1)
    gaps = tensors.steps(operator, 6, 5, default=1) if deep else tensors.steps(operator, 5, 4, default=1)
    kernel = weights.shape[1:3]
    same = tensors.option(operator, 0, "int8") == _SAME
    places = [windows(int(x.shape[2 + i]), kernel[i], strides[i], gaps[i], same) for i in (0, 1)]
    turned = weights.transpose(3, 0, 1, 2) if deep else weights.transpose(0, 3, 1, 2)
    inputs: list[Value | None] = [x, tensors.graph.constant(np.ascontiguousarray(turned), "weights")]
    if len(operator.inputs) > 2 and operator.inputs[2] >= 0:
        bias = tensors.floats(operator, 2)
        if bias.shape != turned.shape[:1]:
            tensors.wrong(operator, f"a bias {bias.shape}", f"{turned.shape[:1]}")
        inputs.append(tensors.graph.constant(bias, "bias"))
    made = tensors.graph.add(
        "Conv",
        inputs,
        (x.shape[0], turned.shape[0], places[0][0], places[1][0]),
        kernel_shape=list(kernel),
        strides=strides,
        dilations=gaps,
        pads=[places[0][1], places[1][1], places[0][2], places[1][2]],
        group=channels if deep else 1,
    )
    tensors.give(operator, output, _activated(tensors, operator, made, 4 if deep else 3), "first")


def _conv(tensors: Tensors, operator: TfliteOperator, output: int) -> None:
    _convolution(tensors, operator, output, deep=False)


def _depthwise(tensors: Tensors, operator: TfliteOperator, output: int) -> None:
    _convolution(tensors, operator, output, deep=True)


def _pool(kind: str, **more: Any) -> Write:
    def write(tensors: Tensors, operator: TfliteOperator, output: int) -> None:
        x = _picture(tensors, operator)
        strides, kernel = tensors.steps(operator, 2, 1), tensors.steps(operator, 4, 3)
        same = tensors.option(operator, 0, "int8") == _SAME
        places = [windows(int(x.shape[2 + i]), kernel[i], strides[i], 1, same) for i in (0, 1)]
        made = tensors.graph.add(
            kind,
            [x],
            (*x.shape[:2], places[0][0], places[1][0]),
            kernel_shape=kernel,
            strides=strides,
            pads=[places[0][1], places[1][1], places[0][2], places[1][2]],
            **more,
        )
        tensors.give(operator, output, _activated(tensors, operator, made, 5), "first")

    return write


def _pair(combine: Callable[[Value, Value], Value]) -> Write:
    """Arithmetic of two inputs, the smaller one repeated."""

    def write(tensors: Tensors, operator: TfliteOperator, output: int) -> None:
        numbers = operator.inputs
        if len(numbers) != 2 or min(numbers) < 0:
            tensors.wrong(operator, f"{len(numbers)} inputs", "two")
        rank = len(tensors.shape(output))
        first = rank == 4 and any(tensors.either(n)[1] == "first" for n in numbers if len(tensors.shape(n)) == 4)
        values = []
        for number in numbers:
            own = len(tensors.shape(number))
            constant = tensors.array(number)
            if own > rank or (own < rank and constant is None):
                tensors.wrong(operator, f"an input of {own} axes", f"{rank}")
            if not first or own == 4:
                values.append(tensors.value(number, "first" if first else "file"))
            else:
                assert constant is not None
                wide = tensors.floats(operator, numbers.index(number)).reshape((1,) * (4 - own) + constant.shape)
                values.append(tensors.graph.constant(np.ascontiguousarray(wide.transpose(LAST_TO_FIRST))))
        made = combine(*values)
        order = "first" if first else "file"
        tensors.give(operator, output, _activated(tensors, operator, made, 0), order)  # type: ignore[arg-type]

    return write


def _single(function: Callable[[Value], Any]) -> Write:
    """A function of single elements."""

    def write(tensors: Tensors, operator: TfliteOperator, output: int) -> None:
        x, order = tensors.either(operator.inputs[0])
        tensors.give(operator, output, function(x), order)

    return write


def _prelu(tensors: Tensors, operator: TfliteOperator, output: int) -> None:
    x, slope = _picture(tensors, operator), tensors.floats(operator, 1)
    channels = int(x.shape[1])
    if slope.size not in (1, channels) or slope.ndim > 4 or slope.shape[-1:] not in ((1,), (channels,)):
        tensors.wrong(operator, f"slopes {slope.shape}", f"one, or one for each of {channels} channels")
    slopes = tensors.graph.constant(np.ascontiguousarray(slope.reshape(-1, 1, 1)), "slopes")
    tensors.give(operator, output, tensors.graph.add("PRelu", [x, slopes]), "first")


def _pad(tensors: Tensors, operator: TfliteOperator, output: int) -> None:
    x, order = tensors.either(operator.inputs[0])
    amounts = np.array(tensors.integers(operator, 1), np.int64)
    if amounts.size != 2 * x.ndim or (amounts < 0).any() or (amounts > 1 << 15).any():
        tensors.wrong(operator, f"padding {amounts[:12].tolist()}", f"{2 * x.ndim} sizes of 0 to 32768")
    pairs = amounts.reshape(-1, 2)
    if order == "first":
        pairs = pairs[list(LAST_TO_FIRST)]
    shape = [int(size) + int(before + after) for size, (before, after) in zip(x.shape, pairs, strict=True)]
    inputs = [x, tensors.graph.integers(pairs.T.reshape(-1).tolist()), tensors.graph.scalar(0.0, "float32")]
    tensors.give(operator, output, tensors.graph.add("Pad", inputs, shape, mode="constant"), order)


def _resize(tensors: Tensors, operator: TfliteOperator, output: int) -> None:
    x, size = _picture(tensors, operator), tensors.integers(operator, 1)
    if len(size) != 2 or not all(0 < side <= 1 << 15 for side in size):
        tensors.wrong(operator, f"size {size[:4]}", "a height and a width")
    aligned, halves = (bool(tensors.option(operator, field, "bool")) for field in (2, 3))
    how = "align_corners" if aligned else "half_pixel" if halves else "asymmetric"
    shape = (*x.shape[:2], *size)
    inputs = [x, None, None, tensors.graph.sizes(shape)]
    made = tensors.graph.add("Resize", inputs, shape, mode="linear", coordinate_transformation_mode=how)
    tensors.give(operator, output, made, "first")


def _reshape(tensors: Tensors, operator: TfliteOperator, output: int) -> None:
    # The shape that the output declares is the one that is meant; elements are counted in the file's order.
    x = tensors.value(operator.inputs[0])
    shape = tensors.shape(output)
    if int(np.prod(shape, dtype=np.int64)) != int(np.prod([int(s) for s in x.shape], dtype=np.int64)):
        tensors.wrong(operator, f"{x.shape} into {shape}", "as many elements")
    tensors.give(operator, output, x.reshape(*shape))


def _concatenation(tensors: Tensors, operator: TfliteOperator, output: int) -> None:
    rank, axis = len(tensors.shape(output)), tensors.option(operator, 0)
    if not -rank <= axis < rank or not operator.inputs or min(operator.inputs) < 0:
        tensors.wrong(operator, f"axis {axis}, {len(operator.inputs)} inputs", f"an axis of {rank}")
    if any(len(tensors.shape(number)) != rank for number in operator.inputs):
        tensors.wrong(operator, "inputs of other ranks", str(rank))
    axis %= rank
    first = rank == 4 and any(tensors.either(number)[1] == "first" for number in operator.inputs)
    parts = [tensors.value(number, "first" if first else "file") for number in operator.inputs]
    made: Value = concat(parts, LAST_TO_FIRST.index(axis) if first else axis)
    others = [i for i in range(rank) if i != (LAST_TO_FIRST.index(axis) if first else axis)]
    if any(part.shape[i] != parts[0].shape[i] for part in parts for i in others):
        tensors.wrong(operator, str([part.shape for part in parts[:4]]), "sizes that fit")
    tensors.give(operator, output, _activated(tensors, operator, made, 1), "first" if first else "file")


def _depth_to_space(tensors: Tensors, operator: TfliteOperator, output: int) -> None:
    x, (block,) = _picture(tensors, operator), tensors.steps(operator, 0)
    batch, channels, height, width = (int(size) for size in x.shape)
    if channels % (block * block):
        tensors.wrong(operator, f"{channels} channels in blocks of {block}", "a multiple")
    shape = (batch, channels // (block * block), height * block, width * block)
    tensors.give(operator, output, tensors.graph.add("DepthToSpace", [x], shape, blocksize=block, mode="DCR"), "first")


def _constant(tensors: Tensors, operator: TfliteOperator, output: int) -> None:
    """What is done to weights before a run: stored in half, or sparsely."""
    found = tensors.array(operator.inputs[0])
    if found is None or found.shape != tensors.shape(output) or found.dtype not in (np.float16, np.float32):
        tensors.wrong(
            operator, "computed values" if found is None else f"{found.dtype} {found.shape}", "weights in float16"
        )
    half = operator.kind == "DENSIFY"  # keeps the type; DEQUANTIZE widens
    tensors.keep(output, found if half else found.astype(np.float32))


OPERATORS: Mapping[str, Write] = {
    "ADD": _pair(lambda a, b: a + b),
    "AVERAGE_POOL_2D": _pool("AveragePool", count_include_pad=0),
    "CONCATENATION": _concatenation,
    "CONV_2D": _conv,
    "DENSIFY": _constant,
    "DEPTHWISE_CONV_2D": _depthwise,
    "DEPTH_TO_SPACE": _depth_to_space,
    "DEQUANTIZE": _constant,
    "LOGISTIC": _single(sigmoid),
    "MAX_POOL_2D": _pool("MaxPool"),
    "MUL": _pair(lambda a, b: a * b),
    "PAD": _pad,
    "PRELU": _prelu,
    "RELU": _single(relu),
    "RELU6": _single(lambda x: clamp(x, 0.0, 6.0)),
    "RESHAPE": _reshape,
    "RESIZE_BILINEAR": _resize,
    "SUB": _pair(lambda a, b: a - b),
    "TANH": _single(tanh),
}
"""By the schema's names; each gives one output."""
