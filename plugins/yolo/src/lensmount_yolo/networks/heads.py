"""Heads of the YOLO networks: raw maps per level for a loss, decoded predictions for use.

Boxes are predicted as four distances from a sampling point (the centre of a cell) to the sides, each distance as a
distribution over `reg_max` bins of one stride (Li et al., "Generalized Focal Loss", 2020). One class score per cell.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .blocks import Conv

#: Bins per side in every released v8 file; `dfl.conv.weight` holds one number for each.
REG_MAX = 16
#: Prototypes, and coefficients per box, in every released segmentation file.
MASK_CHANNELS = 32


@dataclass
class RawOutputs:
    """What a head predicts before decoding; lists run over the levels, finest first.

    Attributes:
        distances: `(B, 4 * reg_max, h, w)` logits of the distance bins: left, top, right, bottom.
        scores: `(B, classes, h, w)` class logits.
        strides: Network pixels per cell.
        coefficients: `(B, 32, h, w)` mask coefficients; empty for detection.
        prototypes: `(B, 32, H / 4, W / 4)`; None for detection.
    """

    distances: list[Tensor]
    scores: list[Tensor]
    strides: tuple[int, ...]
    coefficients: list[Tensor]
    prototypes: Tensor | None = None


def sampling_points(maps: list[Tensor], strides: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Centres of all cells of all levels, row by row.

    Args:
        maps: One `(B, C, h, w)` per level; their sizes alone are used.
        strides: Network pixels per cell of each level.

    Returns:
        Points `(2, N)`, x and y in cells of their own level, and strides `(1, N)`, in the maps' dtype.
    """
    points, scales = [], []
    for level, stride in zip(maps, strides, strict=True):
        height, width = level.shape[-2:]
        x = torch.arange(width, device=level.device).to(level.dtype) + 0.5
        y = torch.arange(height, device=level.device).to(level.dtype) + 0.5
        grid_x = x.view(1, -1).expand(height, width).reshape(1, -1)
        grid_y = y.view(-1, 1).expand(height, width).reshape(1, -1)
        points.append(torch.cat((grid_x, grid_y), 0))
        scales.append(torch.full_like(grid_x, stride))
    return torch.cat(points, 1), torch.cat(scales, 1)


def flatten_levels(maps: list[Tensor]) -> Tensor:
    """Maps `[(B, C, h, w)]` to `(B, C, N)`, in the order of `sampling_points`."""
    return torch.cat([level.flatten(2) for level in maps], 2)


class DFL(nn.Module):
    """Mean of a distribution over bins 0, 1, …, as a convolution whose fixed weights are the bins' values."""

    def __init__(self, reg_max: int = REG_MAX) -> None:
        super().__init__()
        self.reg_max = reg_max
        self.conv = nn.Conv2d(reg_max, 1, 1, bias=False).requires_grad_(False)
        self.conv.weight.data = torch.arange(reg_max, dtype=torch.float32).view(1, reg_max, 1, 1)

    def forward(self, logits: Tensor) -> Tensor:
        """Maps `(B, 4 * reg_max, N)` logits to `(B, 4, N)` expected distances in cells."""
        batch, _, count = logits.shape
        bins = logits.view(batch, 4, self.reg_max, count).transpose(1, 2).softmax(1)
        out: Tensor = self.conv(bins).view(batch, 4, count)
        return out


class Detect(nn.Module):
    """Anchor-free detection head of v8: one branch for boxes, one for classes, per level.

    Args:
        classes: Number of classes.
        channels: Channels of each level's feature map, finest first.
        strides: Network pixels per cell of each level.
        reg_max: Bins of each distance.
    """

    def __init__(
        self, classes: int, channels: tuple[int, ...], strides: tuple[int, ...] = (8, 16, 32), reg_max: int = REG_MAX
    ) -> None:
        super().__init__()
        self.classes = classes
        self.strides = strides
        self.reg_max = reg_max
        box_width = max(16, channels[0] // 4, 4 * reg_max)
        self.cv2 = nn.ModuleList(branch(width, box_width, 4 * reg_max) for width in channels)
        score_width = max(channels[0], min(classes, 100))
        self.cv3 = nn.ModuleList(branch(width, score_width, classes) for width in channels)
        self.dfl = DFL(reg_max)

    def raw(self, maps: list[Tensor]) -> RawOutputs:
        """Predictions before decoding, from the levels' feature maps."""
        return RawOutputs(
            distances=[conv(x) for conv, x in zip(self.cv2, maps, strict=True)],
            scores=[conv(x) for conv, x in zip(self.cv3, maps, strict=True)],
            strides=self.strides,
            coefficients=[],
        )

    def decode(self, raw: RawOutputs) -> Tensor:
        """Boxes and scores of every cell.

        Returns:
            `(B, 4 + classes, N)`: centre x, centre y, width and height in network pixels, then scores in 0..1.
        """
        points, strides = sampling_points(raw.distances, raw.strides)
        near, far = self.dfl(flatten_levels(raw.distances)).chunk(2, 1)
        centre = points + (far - near) / 2
        size = near + far
        return torch.cat((torch.cat((centre, size), 1) * strides, flatten_levels(raw.scores).sigmoid()), 1)

    def forward(self, maps: list[Tensor]) -> RawOutputs | Tensor | tuple[Tensor, ...]:
        """`RawOutputs` in training mode; what the official exports return otherwise."""
        raw = self.raw(maps)
        return raw if self.training else self.decode(raw)


class Proto(nn.Module):
    """Mask prototypes from the finest level, at twice its resolution (Bolya et al., "YOLACT", 2019).

    Args:
        in_channels: Channels of the finest level.
        hidden: Channels of the inner convolutions.
        out_channels: Number of prototypes.
    """

    def __init__(self, in_channels: int, hidden: int = 256, out_channels: int = MASK_CHANNELS) -> None:
        super().__init__()
        self.cv1 = Conv(in_channels, hidden, 3)
        self.upsample = nn.ConvTranspose2d(hidden, hidden, 2, 2, 0, bias=True)
        self.cv2 = Conv(hidden, hidden, 3)
        self.cv3 = Conv(hidden, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(B, C, h, w)` to `(B, 32, 2h, 2w)`."""
        out: Tensor = self.cv3(self.cv2(self.upsample(self.cv1(x))))
        return out


class Segment(Detect):
    """Detection head with mask coefficients per cell and prototypes per image.

    Args:
        classes: Number of classes.
        channels: Channels of each level's feature map, finest first.
        mask_channels: Number of prototypes.
        proto_width: Channels inside the prototype branch.
        strides: Network pixels per cell of each level.
        reg_max: Bins of each distance.
    """

    def __init__(
        self,
        classes: int,
        channels: tuple[int, ...],
        mask_channels: int = MASK_CHANNELS,
        proto_width: int = 256,
        strides: tuple[int, ...] = (8, 16, 32),
        reg_max: int = REG_MAX,
    ) -> None:
        super().__init__(classes, channels, strides, reg_max)
        self.proto = Proto(channels[0], proto_width, mask_channels)
        width = max(channels[0] // 4, mask_channels)
        self.cv4 = nn.ModuleList(branch(channel, width, mask_channels) for channel in channels)

    def raw(self, maps: list[Tensor]) -> RawOutputs:
        """Predictions before decoding, from the levels' feature maps."""
        raw = super().raw(maps)
        raw.coefficients = [conv(x) for conv, x in zip(self.cv4, maps, strict=True)]
        raw.prototypes = self.proto(maps[0])
        return raw

    def forward(self, maps: list[Tensor]) -> RawOutputs | Tensor | tuple[Tensor, ...]:
        """`RawOutputs` in training mode; otherwise `(B, 4 + classes + 32, N)` and `(B, 32, H / 4, W / 4)`."""
        raw = self.raw(maps)
        if self.training:
            return raw
        assert raw.prototypes is not None
        return torch.cat((self.decode(raw), flatten_levels(raw.coefficients)), 1), raw.prototypes


def branch(in_channels: int, hidden: int, out_channels: int) -> nn.Sequential:
    """Two 3x3 convolutions and a plain 1x1: a prediction branch of one level."""
    return nn.Sequential(Conv(in_channels, hidden, 3), Conv(hidden, hidden, 3), nn.Conv2d(hidden, out_channels, 1))
