"""The projector: features of the backbone to feature levels. Maps are kept channels-last, `(B, H, W, C)`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lensmount_rfdetr.layout import Layout


class ConvNorm(nn.Module):
    """Convolution without bias, LayerNorm over channels, activation; a 1x1 kernel is one matrix product."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, act: Callable[[Tensor], Tensor] = F.silu, stride: int = 1
    ) -> None:
        super().__init__()
        self.kernel, self.stride, self.act = kernel, stride, act
        shape = (outputs, inputs) if kernel == 1 else (outputs, inputs, kernel, kernel)
        self.weight = nn.Parameter(torch.empty(shape))
        self.norm = nn.LayerNorm(outputs, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel == 1:
            x = F.linear(x, self.weight)
        else:
            # Channels first: as fast on a CPU as channels last, at half the rounding error.
            x = x.permute(0, 3, 1, 2).contiguous()
            x = F.conv2d(x, self.weight, stride=self.stride, padding=self.kernel // 2).permute(0, 2, 3, 1)
        return self.act(self.norm(x))


class Stage(nn.Module):
    """One feature level: a C2f block and a LayerNorm, on features at the level's scale."""

    def __init__(self, layout: Layout, scale: float) -> None:
        super().__init__()
        self.scale, self.used = scale, len(layout.stages)
        width, half = layout.width, layout.hidden // 2
        if scale == 2.0:
            self.resample = nn.ModuleList(nn.ConvTranspose2d(width, width // 2, 2, 2) for _ in layout.stages)
            width //= 2
        elif scale == 0.5:
            self.resample = nn.ModuleList(ConvNorm(width, width, 3, F.relu, 2) for _ in layout.stages)
        self.half = half
        self.cv1 = ConvNorm(width * self.used, 2 * half, 1)
        self.m = nn.ModuleList(
            nn.Sequential(ConvNorm(half, half, 3), ConvNorm(half, half, 3)) for _ in range(layout.bottlenecks)
        )
        self.cv2 = ConvNorm((2 + layout.bottlenecks) * half, layout.hidden, 1)
        self.norm = nn.LayerNorm(layout.hidden, eps=1e-6)

    def forward(self, features: Tensor) -> Tensor:
        """Features `(B, rows, columns, stages * width)` to a map `(B, h, w, hidden)`."""
        if self.scale == 2.0:
            parts = [m(f.permute(0, 3, 1, 2)) for m, f in zip(self.resample, self._split(features), strict=True)]
            features = torch.cat(parts, 1).permute(0, 2, 3, 1)
        elif self.scale == 0.5:
            features = torch.cat([m(f) for m, f in zip(self.resample, self._split(features), strict=True)], 3)
        x = self.cv1(features)
        parts = [x]
        x = x[..., self.half :]
        for bottleneck in self.m:
            x = bottleneck(x)
            parts.append(x)
        out: Tensor = self.norm(self.cv2(torch.cat(parts, 3)))
        return out

    def _split(self, features: Tensor) -> tuple[Tensor, ...]:
        return features.chunk(self.used, 3)
