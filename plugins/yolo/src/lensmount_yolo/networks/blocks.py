"""Building blocks of the YOLO networks.

Attribute names (`conv`, `bn`, `cv1`, `m`, …) are those of the official files' tensors: a state dict loads by name.
Every block takes and returns feature maps `(B, C, H, W)`, except `Concat`, which takes a list of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .base import Block, halves

#: The released weights were trained with these; torch's own defaults differ.
BATCH_NORM_EPS = 1e-3
BATCH_NORM_MOMENTUM = 0.03


class Conv(Block):
    """Convolution, batch normalisation, SiLU; padded so that stride 1 keeps the size.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: Side of the square kernel.
        stride: Stride.
        groups: Groups of the convolution.
        act: Whether SiLU follows; otherwise nothing does.
    """

    conv: nn.Conv2d
    #: Becomes an Identity when `fuse.fuse_conv_bn` has folded it into `conv`.
    bn: nn.Module
    act: nn.Module

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=BATCH_NORM_EPS, momentum=BATCH_NORM_MOMENTUM)
        self.act = nn.SiLU() if act else nn.Identity()

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Files saved after folding have no `bn`."""
        for name in ("bn", "act"):
            if not hasattr(self, name):
                self.add_module(name, nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(B, in, H, W)` to `(B, out, ceil(H / stride), ceil(W / stride))`."""
        out: Tensor = self.act(self.bn(self.conv(x)))
        return out


class Bottleneck(Block):
    """Two convolutions with a residual connection where the widths agree (He et al., 2015).

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        shortcut: Whether the input is added, if `in_channels == out_channels`.
        kernels: Kernel sides of the two convolutions.
        expansion: Hidden channels as a share of `out_channels`.
    """

    cv1: nn.Module
    cv2: nn.Module

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        shortcut: bool = True,
        kernels: tuple[int, int] = (3, 3),
        expansion: float = 0.5,
    ) -> None:
        super().__init__()
        hidden = int(out_channels * expansion)
        self.cv1 = Conv(in_channels, hidden, kernels[0])
        self.cv2 = Conv(hidden, out_channels, kernels[1])
        self.add = shortcut and in_channels == out_channels

    def configure(self, settings: Mapping[str, Any]) -> None:
        """The file says whether the input is added."""
        self.add = bool(settings.get("add", False))

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the size of `x`."""
        y: Tensor = self.cv2(self.cv1(x))
        return x + y if self.add else y


class C2f(Block):
    """Cross-stage partial block of v8: half the channels pass through a chain whose every stage is kept and merged.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        repeats: Number of bottlenecks in the chain.
        shortcut: Whether the bottlenecks are residual.
        expansion: Channels of the chain as a share of `out_channels`.
    """

    cv1: nn.Module
    cv2: nn.Module
    m: nn.ModuleList

    def __init__(
        self, in_channels: int, out_channels: int, repeats: int = 1, shortcut: bool = False, expansion: float = 0.5
    ) -> None:
        super().__init__()
        hidden = int(out_channels * expansion)
        self.cv1 = Conv(in_channels, 2 * hidden)
        self.cv2 = Conv((2 + repeats) * hidden, out_channels)
        self.m = nn.ModuleList(self.stage(hidden, shortcut) for _ in range(repeats))

    def stage(self, channels: int, shortcut: bool) -> nn.Module:
        """One stage of the chain; variants of the block override this alone."""
        return Bottleneck(channels, channels, shortcut, expansion=1.0)

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the size of `x`."""
        kept = list(halves(self.cv1(x)))
        for stage in self.m:
            kept.append(stage(kept[-1]))
        out: Tensor = self.cv2(torch.cat(kept, 1))
        return out


class SPPF(Block):
    """Spatial pyramid pooling (He et al., 2014) by chained max-poolings of one kernel.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: Side of the pooling window.
    """

    cv1: nn.Module
    cv2: nn.Module
    m: nn.Module

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 5) -> None:
        super().__init__()
        hidden = in_channels // 2
        self.cv1 = Conv(in_channels, hidden)
        self.cv2 = Conv(4 * hidden, out_channels)
        self.m = nn.MaxPool2d(kernel, 1, kernel // 2)
        self.repeats, self.add = 3, False

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Files before 26 say nothing: three poolings, no residual."""
        self.repeats = int(settings.get("n", 3))
        if not 1 <= self.repeats <= 64:
            raise ValueError(f"a number of poolings is out of range: {self.repeats}")
        self.add = bool(settings.get("add", False))

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the size of `x`."""
        levels = [self.cv1(x)]
        for _ in range(self.repeats):
            levels.append(self.m(levels[-1]))
        out: Tensor = self.cv2(torch.cat(levels, 1))
        return x + out if self.add else out


class C3(Block):
    """Cross-stage partial block of v5 (Wang et al., "CSPNet", 2019): a chain and a bypass, joined."""

    cv1: nn.Module
    cv2: nn.Module
    cv3: nn.Module
    m: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the size of `x`."""
        out: Tensor = self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))
        return out


class Concat(Block):
    """Joins feature maps of one size along the channels."""

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Refuses other axes than the channels'."""
        if settings.get("d", 1) != 1:
            raise ValueError("Concat joins along another axis than the channels")

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps `[(B, C_i, H, W)]` to `(B, sum C_i, H, W)`."""
        return torch.cat(maps, 1)
