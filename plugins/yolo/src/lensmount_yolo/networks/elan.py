"""Blocks of v9 (Wang et al., "YOLOv9: Learning What You Want to Learn Using Programmable Gradient Information", 2024).

Layer aggregation (GELAN), its downsampling blocks, and the connections of the version with an auxiliary branch (e).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import Block, halves


class RepConv(Block):
    """A 3x3 and a 1x1 convolution side by side, one convolution after folding (Ding et al., "RepVGG", 2021)."""

    conv1: nn.Module
    conv2: nn.Module
    bn: nn.Module | None
    act: nn.Module
    conv: nn.Module | None

    def configure(self, settings: Mapping[str, Any]) -> None:
        """A folded file has `conv` instead of the branches."""
        for name in ("conv", "bn"):
            if not hasattr(self, name):
                setattr(self, name, None)
        if not hasattr(self, "act"):
            self.act = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(B, C, H, W)` as a 3x3 convolution does."""
        if self.conv is not None:
            merged: Tensor = self.act(self.conv(x))
            return merged
        branches = self.conv1(x) + self.conv2(x)
        out: Tensor = self.act(branches if self.bn is None else branches + self.bn(x))
        return out


class RepNCSPELAN4(Block):
    """Layer aggregation: halves, two chained stages, all joined. `ELAN1` is the same with plain convolutions."""

    cv1: nn.Module
    cv2: nn.Module
    cv3: nn.Module
    cv4: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the size of `x`."""
        first, second = halves(self.cv1(x))
        third = self.cv2(second)
        out: Tensor = self.cv4(torch.cat((first, second, third, self.cv3(third)), 1))
        return out


class SPPELAN(Block):
    """Spatial pyramid pooling by three chained poolings, as an aggregation block."""

    cv1: nn.Module
    cv2: nn.Module
    cv3: nn.Module
    cv4: nn.Module
    cv5: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the size of `x`."""
        levels = [self.cv1(x)]
        for pool in (self.cv2, self.cv3, self.cv4):
            levels.append(pool(levels[-1]))
        out: Tensor = self.cv5(torch.cat(levels, 1))
        return out


class AConv(Block):
    """Halves the size: mean of 2x2 neighbours at stride 1, then a convolution at stride 2."""

    cv1: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(B, C, H, W)` to `(B, C', H / 2, W / 2)`."""
        out: Tensor = self.cv1(F.avg_pool2d(x, 2, 1, 0))
        return out


class ADown(Block):
    """Halves the size: smoothed, then half the channels through a convolution, half through max-pooling."""

    cv1: nn.Module
    cv2: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(B, C, H, W)` to `(B, C', H / 2, W / 2)`."""
        near, far = halves(F.avg_pool2d(x, 2, 1, 0))
        return torch.cat((self.cv1(near), self.cv2(F.max_pool2d(far, 3, 2, 1))), 1)


class CBLinear(Block):
    """A 1x1 convolution whose output is split into maps for several `CBFuse` (Liu et al., "CBNet", 2019)."""

    conv: nn.Module

    def configure(self, settings: Mapping[str, Any]) -> None:
        """`c2s` holds the widths of the parts."""
        self.widths: list[int] = [int(width) for width in settings["c2s"]]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Maps `(B, C, H, W)` to one `(B, width, H, W)` per width."""
        return tuple(self.conv(x).split(self.widths, 1))


class CBFuse(Block):
    """Adds one part of each `CBLinear` to a map, at its size."""

    def configure(self, settings: Mapping[str, Any]) -> None:
        """`idx` says which part of each."""
        self.parts: list[int] = [int(index) for index in settings["idx"]]

    def forward(self, inputs: Sequence[Any]) -> Tensor:
        """Maps parts `[(B, C, h_i, w_i), …]` and, last, `(B, C, H, W)` to `(B, C, H, W)`."""
        total: Tensor = inputs[-1]
        size = total.shape[2:]
        for source, index in zip(inputs[:-1], self.parts, strict=True):
            total = total + F.interpolate(source[index], size=size, mode="nearest")
        return total
