"""Blocks of v9 (Wang et al., "YOLOv9: Learning What You Want to Learn Using Programmable Gradient Information", 2024).

Layer aggregation (GELAN), its downsampling blocks, and the connections of the version with an auxiliary branch (e).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lensmount_networks import Layer, ops
from lensmount_networks.layers import Tensor
from lensmount_yolo.networks.base import Block, halves


class RepConv(Block):
    """A 3x3 and a 1x1 convolution side by side, one convolution after folding (Ding et al., "RepVGG", 2021)."""

    optional = ("bn", "act", "conv")
    conv1: Layer
    conv2: Layer
    bn: Layer | None
    act: Layer | None
    conv: Layer | None  # a folded file has it instead of the branches

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(B, C, H, W)` as a 3x3 convolution does."""
        if self.conv is not None:
            out = self.conv(x)
        else:
            out = self.conv1(x) + self.conv2(x)
            out = out if self.bn is None else out + self.bn(x)
        return out if self.act is None else self.act(out)


class RepNCSPELAN4(Block):
    """Layer aggregation: halves, two chained stages, all joined. `ELAN1` is the same with plain convolutions."""

    cv1: Layer
    cv2: Layer
    cv3: Layer
    cv4: Layer

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the size of `x`."""
        first, second = halves(self.cv1(x))
        third = self.cv2(second)
        return self.cv4(ops.concat((first, second, third, self.cv3(third)), 1))


class SPPELAN(Block):
    """Spatial pyramid pooling by three chained poolings, as an aggregation block."""

    cv1: Layer
    cv2: Layer
    cv3: Layer
    cv4: Layer
    cv5: Layer

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the size of `x`."""
        levels = [self.cv1(x)]
        for pool in (self.cv2, self.cv3, self.cv4):
            levels.append(pool(levels[-1]))
        return self.cv5(ops.concat(levels, 1))


class AConv(Block):
    """Halves the size: mean of 2x2 neighbours at stride 1, then a convolution at stride 2."""

    cv1: Layer

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(B, C, H, W)` to `(B, C', H / 2, W / 2)`."""
        return self.cv1(ops.avg_pool2d(x, 2, 1))


class ADown(Block):
    """Halves the size: smoothed, then half the channels through a convolution, half through max-pooling."""

    cv1: Layer
    cv2: Layer

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(B, C, H, W)` to `(B, C', H / 2, W / 2)`."""
        near, far = halves(ops.avg_pool2d(x, 2, 1))
        return ops.concat((self.cv1(near), self.cv2(ops.max_pool2d(far, 3, 2, 1))), 1)


class CBLinear(Block):
    """A 1x1 convolution whose output is split into maps for several `CBFuse` (Liu et al., "CBNet", 2019)."""

    conv: Layer

    def configure(self, settings: Mapping[str, Any]) -> None:
        """`c2s` holds the widths of the parts."""
        self.widths: list[int] = [int(width) for width in settings["c2s"]]

    def forward(self, x: Tensor) -> Sequence[Tensor]:
        """Maps `(B, C, H, W)` to one `(B, width, H, W)` per width."""
        made: Sequence[Tensor] = self.conv(x).split(self.widths, 1)
        return made


class CBFuse(Block):
    """Adds one part of each `CBLinear` to a map, at its size."""

    def configure(self, settings: Mapping[str, Any]) -> None:
        """`idx` says which part of each."""
        self.parts: list[int] = [int(index) for index in settings["idx"]]

    def forward(self, inputs: Sequence[Any]) -> Tensor:
        """Maps parts `[(B, C, h_i, w_i), …]` and, last, `(B, C, H, W)` to `(B, C, H, W)`."""
        total = inputs[-1]
        size = total.shape[2:]
        for source, index in zip(inputs[:-1], self.parts, strict=True):
            total = total + ops.resize(source[index], size)
        return total
