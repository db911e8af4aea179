"""Heads for keypoints, oriented boxes and classification."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lensmount_networks import Layer, ops
from lensmount_networks.layers import Tensor
from lensmount_reading import printable
from lensmount_yolo.networks.base import Block, halves
from lensmount_yolo.networks.heads import RawOutputs, WithCoefficients, flatten_levels, sampling_points


class Pose(WithCoefficients):
    """Detection head with keypoints per cell."""

    def configure(self, settings: Mapping[str, Any]) -> None:
        """`kpt_shape` is `(keypoints, values)`: x, y and, with three values, how sure the point is to be seen."""
        super().configure(settings)
        count, values = settings["kpt_shape"]
        if not (1 <= int(count) <= 10_000 and int(values) in (2, 3)):
            raise ValueError(f"kpt_shape should be a count and 2 or 3, not {settings['kpt_shape']}")
        self.keypoints = (int(count), int(values))

    def extras(self, raw: RawOutputs) -> Tensor:
        """`(B, keypoints * values, N)`: x and y in network pixels, how sure in 0..1."""
        count, values = self.keypoints
        flat = flatten_levels(raw.coefficients)
        batch, _, cells = flat.shape
        points, strides = sampling_points(raw.coefficients, raw.strides)
        table = flat.reshape(batch, count, values, cells)
        # An offset of 0.5 stands for the cell's centre, hence the corner (point - 0.5) as the origin.
        offsets, *sure = table.split([2, values - 2], 2) if values == 3 else [table]
        places = (offsets * 2 + (points - 0.5)) * strides
        return ops.concat((places, *(ops.sigmoid(part) for part in sure)), 2).reshape(batch, count * values, cells)


class OBB(WithCoefficients):
    """Detection head whose boxes are turned by an angle per cell."""

    def configure(self, settings: Mapping[str, Any]) -> None:
        """One angle per cell."""
        super().configure(settings)
        if settings.get("ne", 1) != 1:
            raise ValueError(f"an oriented box has one angle, not {printable(settings.get('ne'))}")

    def extras(self, raw: RawOutputs) -> Tensor:
        """Angles `(B, 1, N)` in radians, from -pi/4 to 3 pi/4, clockwise in the picture."""
        return (ops.sigmoid(flatten_levels(raw.coefficients)) - 0.25) * math.pi

    def decode(self, raw: RawOutputs) -> Tensor:
        """Boxes and scores of every cell: centre x, centre y, width and height before turning, in network pixels."""
        near, far, points, strides = self.sides(raw)
        angle = self.extras(raw)
        cos, sin = ops.cos(angle), ops.sin(angle)
        x, y = halves((far - near) / 2)
        centre = ops.concat((x * cos - y * sin, x * sin + y * cos), 1) + points
        boxes = ops.concat((centre, near + far), 1) * strides
        return ops.concat((boxes, ops.sigmoid(flatten_levels(raw.scores))), 1)


class Classify(Block):
    """Classification head: convolution, mean over the map, a linear layer."""

    conv: Layer
    pool: Layer
    linear: Layer

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(B, C, H, W)` to probabilities `(B, classes)`; to logits in training mode."""
        logits = self.linear(self.pool(self.conv(x)).flatten(1))
        return logits if self.training else ops.softmax(logits, 1)
