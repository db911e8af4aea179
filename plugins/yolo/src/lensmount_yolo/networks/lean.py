"""Blocks of v10 (Wang et al., "YOLOv10: Real-Time End-to-End Object Detection", 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lensmount_networks import Layer, ops
from lensmount_networks.layers import Tensor
from lensmount_yolo.networks.base import Block


class SCDown(Block):
    """Halves the size in two steps: a 1x1 convolution across channels, a depthwise one across space."""

    cv1: Layer
    cv2: Layer

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(B, C, H, W)` to `(B, C', H / 2, W / 2)`."""
        return self.cv2(self.cv1(x))


class CIB(Block):
    """Compact inverted block: depthwise and 1x1 convolutions by turns, with a residual."""

    cv1: Layer

    def configure(self, settings: Mapping[str, Any]) -> None:
        """The file says whether the input is added."""
        self.add = bool(settings.get("add", False))

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the size of `x`."""
        y = self.cv1(x)
        return x + y if self.add else y


class RepVGGDW(Block):
    """Depthwise 7x7 and 3x3 convolutions side by side, one convolution after folding."""

    optional = ("conv1", "act")
    conv: Layer
    conv1: Layer | None
    act: Layer | None

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape of `x`."""
        y = self.conv(x)
        y = y if self.conv1 is None else y + self.conv1(x)
        return ops.silu(y) if self.act is None else self.act(y)
