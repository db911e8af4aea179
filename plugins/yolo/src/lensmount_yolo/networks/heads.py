"""Heads of the YOLO networks: raw maps per level for a loss, decoded predictions for use.

Boxes are predicted as four distances from a sampling point (the centre of a cell) to the sides, each distance as a
distribution over `reg_max` bins of one stride (Li et al., "Generalized Focal Loss", 2020). One class score per cell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from .base import Block, halves
from .blocks import Conv

#: Bins per side in every released v8 file; `dfl.conv.weight` holds one number for each.
REG_MAX = 16
#: Prototypes, and coefficients per box, in every released segmentation file.
MASK_CHANNELS = 32
#: Rows that a head without suppression gives.
END_TO_END_ROWS = 300


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


class DFL(Block):
    """Mean of a distribution over bins 0, 1, …, as a convolution whose fixed weights are the bins' values."""

    conv: nn.Conv2d

    def __init__(self, reg_max: int = REG_MAX) -> None:
        super().__init__()
        self.reg_max = reg_max
        self.conv = nn.Conv2d(reg_max, 1, 1, bias=False).requires_grad_(False)
        self.conv.weight.data = torch.arange(reg_max, dtype=torch.float32).view(1, reg_max, 1, 1)

    def configure(self, settings: Mapping[str, Any]) -> None:
        """The convolution says how many bins there are."""
        self.reg_max = self.conv.in_channels

    def forward(self, logits: Tensor) -> Tensor:
        """Maps `(B, 4 * reg_max, N)` logits to `(B, 4, N)` expected distances in cells."""
        batch, _, count = logits.shape
        bins = logits.view(batch, 4, self.reg_max, count).transpose(1, 2).softmax(1)
        weight = self.conv.weight.to(bins.dtype)  # the bins' numbers are exact in half precision too
        return nn.functional.conv2d(bins, weight).view(batch, 4, count)


class Detect(Block):
    """Anchor-free detection head: one branch for boxes, one for classes, per level.

    Heads of v10 and 26 have a second pair of branches, trained to answer once per object; then those alone are used,
    and the best rows come out as they are (Wang et al., "YOLOv10", 2024).

    Args:
        classes: Number of classes.
        channels: Channels of each level's feature map, finest first.
        strides: Network pixels per cell of each level.
        reg_max: Bins of each distance; 1 when the distance itself is predicted.
    """

    cv2: nn.ModuleList
    cv3: nn.ModuleList
    one2one_cv2: nn.ModuleList
    one2one_cv3: nn.ModuleList
    dfl: nn.Module

    def __init__(
        self, classes: int, channels: tuple[int, ...], strides: tuple[int, ...] = (8, 16, 32), reg_max: int = REG_MAX
    ) -> None:
        super().__init__()
        self.classes = classes
        self.strides = strides
        self.reg_max = reg_max
        self.end_to_end = False
        box_width = max(16, channels[0] // 4, 4 * reg_max)
        self.cv2 = nn.ModuleList(branch(width, box_width, 4 * reg_max) for width in channels)
        score_width = max(channels[0], min(classes, 100))
        self.cv3 = nn.ModuleList(branch(width, score_width, classes) for width in channels)
        self.dfl = DFL(reg_max)

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Classes, bins and strides; a head with second branches needs no suppression."""
        self.classes = int(settings["nc"])
        self.reg_max = int(settings.get("reg_max", REG_MAX))
        self.strides = tuple(int(stride) for stride in settings["strides"])
        self.end_to_end = hasattr(self, "one2one_cv2") and hasattr(self, "one2one_cv3")
        if len(self.strides) != len(self.one2one_cv2 if self.end_to_end else self.cv2):
            raise ValueError(f"the head has another number of levels than strides: {self.strides}")

    def raw(self, maps: list[Tensor]) -> RawOutputs:
        """Predictions before decoding, from the levels' feature maps."""
        single = self.end_to_end and not self.training
        boxes, scores = (self.one2one_cv2, self.one2one_cv3) if single else (self.cv2, self.cv3)
        return RawOutputs(
            distances=[conv(x) for conv, x in zip(boxes, maps, strict=True)],
            scores=[conv(x) for conv, x in zip(scores, maps, strict=True)],
            strides=self.strides,
            coefficients=[],
        )

    def sides(self, raw: RawOutputs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Distances to left and top `(B, 2, N)`, to right and bottom, points and strides, all in cells."""
        points, strides = sampling_points(raw.distances, raw.strides)
        near, far = halves(self.dfl(flatten_levels(raw.distances)))
        return near, far, points, strides

    def decode(self, raw: RawOutputs) -> Tensor:
        """Boxes and scores of every cell.

        Returns:
            `(B, 4 + classes, N)`: centre x, centre y, width and height in network pixels (the two corners for heads
            that need no suppression), then scores in 0..1.
        """
        near, far, points, strides = self.sides(raw)
        if self.end_to_end:
            boxes = torch.cat((points - near, points + far), 1)
        else:
            boxes = torch.cat((points + (far - near) / 2, near + far), 1)
        return torch.cat((boxes * strides, flatten_levels(raw.scores).sigmoid()), 1)

    def extras(self, raw: RawOutputs) -> Tensor | None:
        """What the task adds to each cell, `(B, extra, N)`."""
        return None

    def readied(self, raw: RawOutputs) -> RawOutputs:
        """The maps in float32, whatever the network computes in: pixels of boxes do not fit into half precision."""
        return replace(
            raw,
            distances=[level.float() for level in raw.distances],
            scores=[level.float() for level in raw.scores],
            coefficients=[level.float() for level in raw.coefficients],
        )

    def predictions(self, raw: RawOutputs) -> Tensor:
        """The main output: `(B, 4 + classes + extra, N)`, or rows `(B, 300, 6 + extra)` of final boxes."""
        decoded = self.decode(raw)
        extras = self.extras(raw)
        if self.end_to_end:
            return best_rows(decoded, self.classes, extras)
        return decoded if extras is None else torch.cat((decoded, extras), 1)

    def forward(self, maps: list[Tensor]) -> RawOutputs | Tensor | tuple[Tensor, ...]:
        """`RawOutputs` in training mode; what the official exports return otherwise."""
        raw = self.raw(maps)
        return raw if self.training else self.predictions(self.readied(raw))


def best_rows(decoded: Tensor, classes: int, extras: Tensor | None, count: int = END_TO_END_ROWS) -> Tensor:
    """The best pairs of cell and class, without suppression.

    First the cells with the best scores, then, among those, the best pairs: one cell may answer for two classes.

    Args:
        decoded: `(B, 4 + classes, N)`: x1, y1, x2, y2, scores.
        classes: Number of classes.
        extras: `(B, extra, N)` to be carried along.
        count: Rows wanted.

    Returns:
        `(B, count, 6 + extra)`: x1, y1, x2, y2, score, class and the extras, best first; zero rows where cells run out.
    """
    # A graph of dynamic size may meet fewer cells than the picture that it was traced with.
    if torch.onnx.is_in_onnx_export() or decoded.shape[2] < count:
        decoded = nn.functional.pad(decoded, (0, count))
        extras = None if extras is None else nn.functional.pad(extras, (0, count))
    boxes, scores = torch.split(decoded.transpose(1, 2), [4, classes], 2)
    first = scores.amax(2).topk(count, 1).indices.unsqueeze(2)
    flat = scores.gather(1, first.expand(-1, -1, classes)).flatten(1)
    values, places = flat.topk(count, 1)
    chosen = first.gather(1, torch.div(places, classes, rounding_mode="floor").unsqueeze(2))
    rows = [boxes.gather(1, chosen.expand(-1, -1, 4)), values.unsqueeze(2)]
    rows.append((places % classes).unsqueeze(2).to(decoded.dtype))
    if extras is not None:
        rows.append(extras.transpose(1, 2).gather(1, chosen.expand(-1, -1, extras.shape[1])))
    return torch.cat(rows, 2)


class Proto(Block):
    """Mask prototypes from the finest level, at twice its resolution (Bolya et al., "YOLACT", 2019).

    Args:
        in_channels: Channels of the finest level.
        hidden: Channels of the inner convolutions.
        out_channels: Number of prototypes.
    """

    cv1: nn.Module
    upsample: nn.Module
    cv2: nn.Module
    cv3: nn.Module

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

    cv4: nn.ModuleList
    proto: nn.Module

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

    def extras(self, raw: RawOutputs) -> Tensor:
        """Mask coefficients `(B, 32, N)`."""
        return flatten_levels(raw.coefficients)

    def forward(self, maps: list[Tensor]) -> RawOutputs | Tensor | tuple[Tensor, ...]:
        """`RawOutputs` in training mode; otherwise `(B, 4 + classes + 32, N)` and `(B, 32, H / 4, W / 4)`."""
        raw = self.raw(maps)
        if self.training:
            return raw
        assert raw.prototypes is not None
        return self.predictions(self.readied(raw)), raw.prototypes


def branch(in_channels: int, hidden: int, out_channels: int) -> nn.Sequential:
    """Two 3x3 convolutions and a plain 1x1: a prediction branch of one level."""
    return nn.Sequential(Conv(in_channels, hidden, 3), Conv(hidden, hidden, 3), nn.Conv2d(hidden, out_channels, 1))
