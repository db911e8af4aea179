"""What an engine may be told when it is built, and the shapes that it is built for. Imports no TensorRT."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lensmount.errors import OptionError
from lensmount.specs.options import build_options, flag, is_whole
from lensmount_tensorrt.manifest import Shape

DEFAULT_BATCH = (1, 4, 16)
"""Smallest, best and largest batch of an engine from a graph with a dynamic batch."""

Shapes = tuple[Shape, Shape, Shape]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSettings:
    """Settings of a build.

    Attributes:
        batch: Smallest, best and largest batch; one number for exactly that; None for (1, 4, 16), or the graph's own.
        shapes: Smallest, best and largest shape of inputs by name, or `"1x3x320x320,8x3x640x640,16x3x960x960"`; for
            inputs with dynamic sizes other than the batch.
        timing_cache: File that the builder's timings are read from and added to; makes the next build faster.
        workspace: Bytes that tactics may use as scratch memory; None for all that is free.
        optimization_level: 0 (builds fastest) to 5 (runs fastest).
        version_compatible: Bring TensorRT's lean runtime along, so that later versions run the engine. It is host code.
        hardware_compatible: Run on every GPU from Ampere on, at some cost in speed.
    """

    batch: Any = None
    shapes: Mapping[str, Any] = field(default_factory=dict)
    timing_cache: Any = None
    workspace: int | None = None
    optimization_level: int = 3
    version_compatible: bool = False
    hardware_compatible: bool = False

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        set_(self, "batch", None if self.batch is None else _batch(self.batch))
        set_(self, "shapes", {name: _shapes(name, value) for name, value in self.shapes.items()})
        set_(self, "timing_cache", None if self.timing_cache is None else Path(self.timing_cache).expanduser())
        flag("version_compatible", self.version_compatible)
        flag("hardware_compatible", self.hardware_compatible)
        if self.optimization_level not in range(6):
            raise OptionError(
                "optimization_level is out of range", found=repr(self.optimization_level), expected="0 to 5"
            )
        if self.workspace is not None and (not is_whole(self.workspace) or self.workspace < 1):
            raise OptionError("workspace is not valid", found=repr(self.workspace), expected="a number of bytes")


def settings_of(values: Mapping[str, Any]) -> BuildSettings:
    """Settings by name.

    Raises:
        UnknownOptionError: A name that does not exist.
        OptionError: A value that is not valid.
    """
    return build_options(BuildSettings, values, "building a TensorRT engine")


def _batch(value: Any) -> tuple[int, int, int]:
    sizes = tuple(value) if isinstance(value, Sequence) else (value,) * 3
    if len(sizes) != 3 or not all(is_whole(size) for size in sizes) or not 1 <= sizes[0] <= sizes[1] <= sizes[2]:
        raise OptionError(
            "batch is not valid", found=repr(value), expected="one size, or three with 1 <= smallest <= best <= largest"
        )
    return int(sizes[0]), int(sizes[1]), int(sizes[2])


def _shapes(name: str, value: Any) -> Shapes:
    parts: Sequence[Any] = value.split(",") if isinstance(value, str) else value
    shapes = [_shape(part) for part in parts]
    if len(shapes) == 1:
        shapes *= 3
    ordered = (
        len(shapes) == 3 and all(shapes) and all(low <= best <= high for low, best, high in zip(*shapes, strict=False))
    )
    if not ordered or len({len(shape) for shape in shapes}) != 1:
        raise OptionError(
            f"shapes of input {name!r} are not valid",
            found=repr(value),
            expected="one shape, or the smallest, the best and the largest: 1x3x320x320,8x3x640x640,16x3x960x960",
        )
    return shapes[0], shapes[1], shapes[2]


def _shape(part: Any) -> Shape:
    if isinstance(part, str):
        return tuple(int(size) for size in part.split("x")) if re.fullmatch(r"\d+(x\d+)*", part.strip()) else ()
    return tuple(int(size) for size in part)


def profile_shapes(
    inputs: Mapping[str, Shape], settings: BuildSettings, image_size: tuple[int, int] | None, subject: str
) -> dict[str, Shapes]:
    """The shapes to build for.

    Args:
        inputs: Every input's shape in the graph, -1 where dynamic.
        settings: Batch and shapes asked for.
        image_size: `(height, width)` of the package's pictures, for inputs (B, C, H, W).
        subject: The graph, in words.

    Returns:
        Smallest, best and largest shape of every input; three times the same for a static one.

    Raises:
        OptionError: A size is not known, contradicts the graph, or names an input that there is not.
    """
    unknown = sorted(set(settings.shapes) - set(inputs))
    if unknown:
        raise OptionError(f"{subject} has no input {unknown[0]!r}", expected=", ".join(inputs))
    found: dict[str, Shapes] = {}
    for name, shape in inputs.items():
        if name in settings.shapes:
            found[name] = settings.shapes[name]
        else:
            sizes = dict(zip((2, 3), image_size, strict=True)) if image_size and len(shape) == 4 else {}
            found[name] = tuple(
                _filled(name, shape, batch, sizes, subject) for batch in settings.batch or DEFAULT_BATCH
            )  # type: ignore[assignment]  # three batches, three shapes
        for wanted in found[name]:
            if len(wanted) != len(shape) or any(size not in (-1, got) for size, got in zip(shape, wanted, strict=True)):
                raise OptionError(
                    f"{subject} does not take such an input {name!r}", found=str(wanted), expected=_words(shape)
                )
    # The batch that was asked for is the one that is built, or nothing is.
    static = {shape[0] for shape in inputs.values() if shape}
    if settings.batch and not settings.shapes and -1 not in static and {*settings.batch} != static:
        raise OptionError(
            f"{subject} has a static batch",
            found=f"batch {','.join(map(str, settings.batch))}",
            expected=f"batch {static.pop()}",
            fix="export a graph with a dynamic batch: lensmount export MODEL --to onnx --dynamic",
        )
    return found


def _filled(name: str, shape: Shape, batch: int, sizes: Mapping[int, int], subject: str) -> Shape:
    filled = []
    for axis, size in enumerate(shape):
        value = size if size != -1 else batch if axis == 0 else sizes.get(axis)
        if value is None:
            raise OptionError(
                f"{subject} leaves sizes of input {name!r} open, and nothing says which to build for",
                found=_words(shape),
                fix=f"say the smallest, the best and the largest: --shape {name}=MIN,BEST,MAX, each like 1x3x640x640",
            )
        filled.append(value)
    return tuple(filled)


def _words(shape: Shape) -> str:
    return "x".join("?" if size == -1 else str(size) for size in shape)
