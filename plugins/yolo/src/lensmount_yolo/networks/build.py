"""From a declarative layer list to a network.

A version of YOLO is a tuple of `Layer`s with the widths and repeats of its largest scale. `scale_layers` applies a
scale's multipliers; `measure_layers` reads widths and repeats off the tensors of a file instead, so that any scale,
released or home-made, can be rebuilt. `build_network` makes the modules.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from . import blocks, heads
from .assemble import Network


@dataclass(frozen=True)
class Layer:
    """One row of a network's description.

    Attributes:
        source: Rows whose outputs are the input; negative counts back from this row.
        repeats: Depth of a repeating block.
        block: Name in `BLOCKS`, or of a head in `HEADS`.
        args: Arguments of the block; the first is its output width, for the blocks in `BLOCKS` that have weights.
    """

    source: int | tuple[int, ...]
    repeats: int
    block: str
    args: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Scale:
    """Multipliers of one size of a version: depth, width, and the most channels before the width applies."""

    depth: float
    width: float
    max_channels: int = 1024

    def channels(self, count: int) -> int:
        """Scaled width, rounded up to a multiple of 8."""
        return math.ceil(min(count, self.max_channels) * self.width / 8) * 8

    def repeats(self, count: int) -> int:
        """Scaled depth; at least one."""
        return max(round(count * self.depth), 1) if count > 1 else count


Built = tuple[nn.Module, int]
#: Name -> function of (input widths, repeats, args) that makes the block and tells its output width.
BLOCKS: dict[str, Callable[[list[int], int, tuple[Any, ...]], Built]] = {
    "Conv": lambda widths, repeats, args: (blocks.Conv(widths[0], *args), args[0]),
    "C2f": lambda widths, repeats, args: (blocks.C2f(widths[0], args[0], repeats, *args[1:]), args[0]),
    "SPPF": lambda widths, repeats, args: (blocks.SPPF(widths[0], *args), args[0]),
    "Concat": lambda widths, repeats, args: (blocks.Concat(), sum(widths)),
    "Upsample": lambda widths, repeats, args: (nn.Upsample(scale_factor=2.0, mode="nearest"), widths[0]),
}
#: Blocks whose first argument is a width that scales.
WEIGHTED = frozenset({"Conv", "C2f", "SPPF"})

#: Name -> function of (classes, input widths, args) that makes the head.
HEADS: dict[str, Callable[[int, tuple[int, ...], tuple[Any, ...]], nn.Module]] = {
    "Detect": lambda classes, widths, args: heads.Detect(classes, widths),
    "Segment": lambda classes, widths, args: heads.Segment(classes, widths, *args),
}


class YoloNetwork(Network):
    """A network of a layer list.

    Args:
        layers: Rows with final widths and repeats; the last is the head.
        classes: Number of classes.
    """

    def __init__(self, layers: Sequence[Layer], classes: int) -> None:
        rows: list[nn.Module] = []
        widths: list[int] = []
        for row, layer in enumerate(layers):
            sources = layer.source if isinstance(layer.source, tuple) else (layer.source,)
            absolute = [row + index if index < 0 else index for index in sources]
            ins = [widths[index] if index >= 0 else 3 for index in absolute]
            if layer.block in HEADS:
                rows.append(HEADS[layer.block](classes, tuple(ins), layer.args))
                widths.append(0)
            else:
                module, width = BLOCKS[layer.block](ins, layer.repeats, layer.args)
                rows.append(module)
                widths.append(width)
        super().__init__(rows, [layer.source for layer in layers])
        self.layers = tuple(layers)
        self.classes = classes


def scale_layers(layers: Sequence[Layer], scale: Scale) -> tuple[Layer, ...]:
    """Applies a scale's multipliers to widths and repeats."""
    scaled = []
    for layer in layers:
        args = layer.args
        if layer.block in WEIGHTED:
            args = (scale.channels(args[0]), *args[1:])
        elif layer.block == "Segment":
            args = (args[0], scale.channels(args[1]))
        scaled.append(replace(layer, repeats=scale.repeats(layer.repeats), args=args))
    return tuple(scaled)


def measure_layers(layers: Sequence[Layer], shapes: Mapping[str, Sequence[int]]) -> tuple[Layer, ...]:
    """Takes widths and repeats from the shapes of a file's tensors.

    Args:
        layers: Rows of the version the file is of.
        shapes: Tensor name -> shape, names as in the official files.

    Raises:
        KeyError: A tensor that tells a width is not there: the file is of another version.
    """
    measured = []
    for row, layer in enumerate(layers):
        prefix = f"model.{row}."
        args, repeats = layer.args, layer.repeats
        if layer.block in WEIGHTED:
            last = "conv.weight" if layer.block == "Conv" else "cv2.conv.weight"
            args = (shapes[prefix + last][0], *args[1:])
        elif layer.block == "Segment":
            prototypes = shapes[prefix + "proto.cv3.conv.weight"]
            args = (prototypes[0], prototypes[1])
        if repeats > 1:
            repeats = len({name.split(".")[3] for name in shapes if name.startswith(prefix + "m.")})
        measured.append(replace(layer, repeats=repeats, args=args))
    return tuple(measured)


def build_network(layers: Sequence[Layer], classes: int, scale: Scale) -> YoloNetwork:
    """A network of a version at a scale, with fresh weights."""
    return YoloNetwork(scale_layers(layers, scale), classes)


def rebuild_network(layers: Sequence[Layer], shapes: Mapping[str, Sequence[int]]) -> YoloNetwork:
    """A network of a version that the tensors of a file fit, whatever its scale and number of classes.

    Raises:
        KeyError: The file is of another version.
    """
    head = f"model.{len(layers) - 1}.cv3.0.2.weight"
    return YoloNetwork(measure_layers(layers, shapes), shapes[head][0])
