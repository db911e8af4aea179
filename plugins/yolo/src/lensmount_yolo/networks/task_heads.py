"""Heads for keypoints, oriented boxes and classification."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lensmount_reading import printable

from .base import Block, halves
from .heads import Detect, RawOutputs, flatten_levels, sampling_points


class Pose(Detect):
    """Detection head with keypoints per cell."""

    cv4: nn.ModuleList

    def configure(self, settings: Mapping[str, Any]) -> None:
        """`kpt_shape` is `(keypoints, values)`: x, y and, with three values, how sure the point is to be seen."""
        super().configure(settings)
        count, values = settings["kpt_shape"]
        if not (1 <= int(count) <= 10_000 and int(values) in (2, 3)):
            raise ValueError(f"kpt_shape should be a count and 2 or 3, not {settings['kpt_shape']}")
        self.keypoints = (int(count), int(values))

    def raw(self, maps: list[Tensor]) -> RawOutputs:
        """Predictions before decoding; keypoints as coefficients."""
        raw = super().raw(maps)
        raw.coefficients = [conv(x) for conv, x in zip(self.cv4, maps, strict=True)]
        return raw

    def extras(self, raw: RawOutputs) -> Tensor:
        """`(B, keypoints * values, N)`: x and y in network pixels, how sure in 0..1."""
        count, values = self.keypoints
        flat = flatten_levels(raw.coefficients)
        batch, _, cells = flat.shape
        points, strides = sampling_points(raw.coefficients, raw.strides)
        table = flat.view(batch, count, values, cells)
        # An offset of 0.5 stands for the cell's centre, hence the corner (point - 0.5) as the origin.
        offsets, *sure = torch.split(table, [2, values - 2] if values == 3 else [2], 2)
        places = (offsets * 2 + (points - 0.5)) * strides
        return torch.cat((places, *(part.sigmoid() for part in sure)), 2).reshape(batch, count * values, cells)


class OBB(Detect):
    """Detection head whose boxes are turned by an angle per cell."""

    cv4: nn.ModuleList

    def configure(self, settings: Mapping[str, Any]) -> None:
        """One angle per cell."""
        super().configure(settings)
        if settings.get("ne", 1) != 1:
            raise ValueError(f"an oriented box has one angle, not {printable(settings.get('ne'))}")

    def raw(self, maps: list[Tensor]) -> RawOutputs:
        """Predictions before decoding; angles as coefficients."""
        raw = super().raw(maps)
        raw.coefficients = [conv(x) for conv, x in zip(self.cv4, maps, strict=True)]
        return raw

    def extras(self, raw: RawOutputs) -> Tensor:
        """Angles `(B, 1, N)` in radians, from -pi/4 to 3 pi/4, clockwise in the picture."""
        angles: Tensor = (flatten_levels(raw.coefficients).sigmoid() - 0.25) * math.pi
        return angles

    def decode(self, raw: RawOutputs) -> Tensor:
        """Boxes and scores of every cell: centre x, centre y, width and height before turning, in network pixels."""
        near, far, points, strides = self.sides(raw)
        angle = self.extras(raw)
        cos, sin = angle.cos(), angle.sin()
        x, y = halves((far - near) / 2)
        centre = torch.cat((x * cos - y * sin, x * sin + y * cos), 1) + points
        return torch.cat((torch.cat((centre, near + far), 1) * strides, flatten_levels(raw.scores).sigmoid()), 1)


class Classify(Block):
    """Classification head: convolution, mean over the map, a linear layer."""

    conv: nn.Module
    pool: nn.Module
    linear: nn.Linear

    def configure(self, settings: Mapping[str, Any]) -> None:
        """The linear layer says how many classes there are."""
        self.classes = self.linear.out_features

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(B, C, H, W)` to probabilities `(B, classes)`; to logits in training mode."""
        logits: Tensor = self.linear(self.pool(self.conv(x)).flatten(1))
        return logits if self.training else logits.softmax(1)
