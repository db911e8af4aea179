"""Building blocks of the YOLO networks.

Attribute names (`conv`, `bn`, `cv1`, `m`, …) are those of the official files' tensors. Every block takes and returns
feature maps `(B, C, H, W)`, except `Concat`, which takes a list of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lensmount_networks import Layer, ops
from lensmount_networks.layers import Layers, Tensor
from lensmount_yolo.networks.base import Block, halves


class Conv(Block):
    """Convolution, batch normalisation, activation; files saved after folding have no `bn`."""

    optional = ("bn", "act")
    conv: Layer
    bn: Layer | None
    act: Layer | None

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(B, in, H, W)` to `(B, out, ceil(H / stride), ceil(W / stride))`."""
        x = self.conv(x)
        x = x if self.bn is None else self.bn(x)
        return x if self.act is None else self.act(x)


class Bottleneck(Block):
    """Two convolutions with a residual connection where the widths agree (He et al., 2015)."""

    cv1: Layer
    cv2: Layer

    def configure(self, settings: Mapping[str, Any]) -> None:
        """The file says whether the input is added."""
        self.add = bool(settings.get("add", False))

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the size of `x`."""
        y = self.cv2(self.cv1(x))
        return x + y if self.add else y


class C2f(Block):
    """Cross-stage partial block of v8: half the channels pass through a chain whose every stage is kept and merged."""

    cv1: Layer
    cv2: Layer
    m: Layers

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the size of `x`."""
        kept = list(halves(self.cv1(x)))
        for stage in self.m:
            kept.append(stage(kept[-1]))
        return self.cv2(ops.concat(kept, 1))


class SPPF(Block):
    """Spatial pyramid pooling (He et al., 2014) by chained max-poolings of one kernel."""

    cv1: Layer
    cv2: Layer
    m: Layer

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
        out = self.cv2(ops.concat(levels, 1))
        return x + out if self.add else out


class C3(Block):
    """Cross-stage partial block of v5 (Wang et al., "CSPNet", 2019): a chain and a bypass, joined."""

    cv1: Layer
    cv2: Layer
    cv3: Layer
    m: Layer

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the size of `x`."""
        return self.cv3(ops.concat((self.m(self.cv1(x)), self.cv2(x)), 1))


class Concat(Block):
    """Joins feature maps of one size along the channels."""

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Refuses other axes than the channels'."""
        if settings.get("d", 1) != 1:
            raise ValueError("Concat joins along another axis than the channels")

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps `[(B, C_i, H, W)]` to `(B, sum C_i, H, W)`."""
        return ops.concat(maps, 1)
