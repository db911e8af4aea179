"""Blocks of v10 (Wang et al., "YOLOv10: Real-Time End-to-End Object Detection", 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from .base import Block


class SCDown(Block):
    """Halves the size in two steps: a 1x1 convolution across channels, a depthwise one across space."""

    cv1: nn.Module
    cv2: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(B, C, H, W)` to `(B, C', H / 2, W / 2)`."""
        out: Tensor = self.cv2(self.cv1(x))
        return out


class CIB(Block):
    """Compact inverted block: depthwise and 1x1 convolutions by turns, with a residual."""

    cv1: nn.Module

    def configure(self, settings: Mapping[str, Any]) -> None:
        """The file says whether the input is added."""
        self.add = bool(settings.get("add", False))

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the size of `x`."""
        y: Tensor = self.cv1(x)
        return x + y if self.add else y


class RepVGGDW(Block):
    """Depthwise 7x7 and 3x3 convolutions side by side, one convolution after folding."""

    conv: nn.Module
    conv1: nn.Module | None
    act: nn.Module

    def configure(self, settings: Mapping[str, Any]) -> None:
        """A folded file has no 3x3 branch."""
        if not hasattr(self, "conv1"):
            self.conv1 = None
        if not hasattr(self, "act"):
            self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape of `x`."""
        y = self.conv(x)
        out: Tensor = self.act(y if self.conv1 is None else y + self.conv1(x))
        return out
