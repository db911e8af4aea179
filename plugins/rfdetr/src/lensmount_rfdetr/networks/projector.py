"""The projector: features of the backbone to feature levels. Maps are kept channels-last, `(B, H, W, C)`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lensmount_rfdetr.layout import Layout


class ConvNorm(nn.Module):
    """3x3 convolution without bias, LayerNorm over channels, activation."""

    def __init__(
        self, inputs: int, outputs: int, eps: float, act: Callable[[Tensor], Tensor] = F.silu, stride: int = 1
    ) -> None:
        super().__init__()
        self.stride, self.act = stride, act
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 3, 3))
        self.norm = nn.LayerNorm(outputs, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """A map `(B, h, w, inputs)` to a map."""
        # Channels first: as fast on a CPU as channels last, at half the rounding error.
        x = F.conv2d(x.permute(0, 3, 1, 2).contiguous(), self.weight, stride=self.stride, padding=1)
        return self.act(self.norm(x.permute(0, 2, 3, 1)))


class MixNorm(nn.Module):
    """1x1 convolution over several maps side by side, LayerNorm, SiLU: one product per map, added up.

    The maps are not copied together, and shorter sums round less.
    """

    def __init__(self, widths: Sequence[int], outputs: int, eps: float) -> None:
        super().__init__()
        self.weights = nn.ParameterList(torch.empty(outputs, width) for width in widths)
        self.norm = nn.LayerNorm(outputs, eps=eps)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps `(B, h, w, width)` to one map `(B, h, w, outputs)`."""
        total = F.linear(maps[0], self.weights[0])
        for index in range(1, len(maps)):
            total = total + F.linear(maps[index], self.weights[index])
        return F.silu(self.norm(total))


class Stage(nn.Module):
    """One feature level: a C2f block and a LayerNorm, on features at the level's scale."""

    def __init__(self, layout: Layout, scale: float) -> None:
        super().__init__()
        self.scale = scale
        width, self.branch, eps = layout.width, layout.hidden // 2, layout.projector_eps
        if scale == 2.0:
            self.resample = nn.ModuleList(nn.ConvTranspose2d(width, width // 2, 2, 2) for _ in layout.stages)
            width //= 2
        elif scale == 0.5:
            self.resample = nn.ModuleList(ConvNorm(width, width, eps, F.relu, 2) for _ in layout.stages)
        self.cv1 = MixNorm([width] * len(layout.stages), 2 * self.branch, eps)
        self.m = nn.ModuleList(
            nn.Sequential(ConvNorm(self.branch, self.branch, eps), ConvNorm(self.branch, self.branch, eps))
            for _ in range(layout.bottlenecks)
        )
        self.cv2 = MixNorm([2 * self.branch] + [self.branch] * layout.bottlenecks, layout.hidden, eps)
        self.norm = nn.LayerNorm(layout.hidden, eps=1e-6)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Features of each used stage `(B, rows, columns, width)` to a map `(B, h, w, hidden)`."""
        if self.scale == 2.0:
            pairs = zip(self.resample, features, strict=True)
            features = [module(part.permute(0, 3, 1, 2)).permute(0, 2, 3, 1) for module, part in pairs]
        elif self.scale == 0.5:
            features = [module(part) for module, part in zip(self.resample, features, strict=True)]
        x = self.cv1(features)
        parts = [x]
        x = x[..., self.branch :]
        for bottleneck in self.m:
            x = bottleneck(x)
            parts.append(x)
        out: Tensor = self.norm(self.cv2(parts))
        return out
