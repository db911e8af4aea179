"""Heads of the YOLO networks: raw maps per level for a loss, decoded predictions for use.

Boxes are predicted as four distances from a sampling point (the centre of a cell) to the sides, each distance as a
distribution over `reg_max` bins of one stride (Li et al., "Generalized Focal Loss", 2020). One class score per cell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lensmount_networks import Layer, ops
from lensmount_networks.layers import Conv2d, Layers, Tensor
from lensmount_yolo.networks.base import Block, halves

#: Bins per side in every released v8 file; `dfl.conv.weight` holds one number for each.
REG_MAX = 16
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
    strides: Sequence[int]
    coefficients: list[Tensor] = field(default_factory=list)
    prototypes: Tensor | None = None


def sampling_points(maps: Sequence[Tensor], strides: Sequence[int]) -> tuple[Tensor, Tensor]:
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
        x, y = (ops.arange(size, like=level) + 0.5 for size in (width, height))
        grid_x = x.reshape(1, -1).expand(height, width).reshape(1, height * width)
        grid_y = y.reshape(-1, 1).expand(height, width).reshape(1, height * width)
        points.append(ops.concat((grid_x, grid_y), 0))
        scales.append(ops.full((1, height * width), stride, like=level))
    return ops.concat(points, 1), ops.concat(scales, 1)


def flatten_levels(maps: Sequence[Tensor]) -> Tensor:
    """Maps `[(B, C, h, w)]` to `(B, C, N)`, in the order of `sampling_points`."""
    return ops.concat([level.flatten(2) for level in maps], 2)


class DFL(Block):
    """Mean of a distribution over bins 0, 1, …, as a convolution whose fixed weights are the bins' values."""

    conv: Conv2d

    def forward(self, logits: Tensor) -> Tensor:
        """Maps `(B, 4 * reg_max, N)` logits to `(B, 4, N)` expected distances in cells."""
        batch, width, count = logits.shape
        bins = ops.softmax(logits.reshape(batch, 4, width // 4, count).transpose(1, 2), 1)
        weight = ops.cast(self.conv.weight, "float32")  # the bins' numbers are exact in half precision too
        return ops.conv2d(bins, weight).reshape(batch, 4, count)


class Detect(Block):
    """Anchor-free detection head: one branch for boxes, one for classes, per level.

    Heads of v10 and 26 have a second pair of branches, trained to answer once per object; then those alone are used,
    and the best rows come out as they are (Wang et al., "YOLOv10", 2024).
    """

    cv2: Layers
    cv3: Layers
    one2one_cv2: Layers
    one2one_cv3: Layers
    dfl: Layer

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Classes, bins and strides; a head with second branches needs no suppression."""
        self.classes = int(settings["nc"])
        self.reg_max = int(settings.get("reg_max", REG_MAX))
        self.strides = tuple(int(stride) for stride in settings["strides"])
        self.end_to_end = hasattr(self, "one2one_cv2") and hasattr(self, "one2one_cv3")
        if len(self.strides) != len(self.one2one_cv2 if self.end_to_end else self.cv2):
            raise ValueError(f"the head has another number of levels than strides: {self.strides}")

    def raw(self, maps: Sequence[Tensor]) -> RawOutputs:
        """Predictions before decoding, from the levels' feature maps."""
        single = self.end_to_end and not self.training
        boxes, scores = (self.one2one_cv2, self.one2one_cv3) if single else (self.cv2, self.cv3)
        return RawOutputs(_each(boxes, maps), _each(scores, maps), self.strides)

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
            boxes = ops.concat((points - near, points + far), 1)
        else:
            boxes = ops.concat((points + (far - near) / 2, near + far), 1)
        return ops.concat((boxes * strides, ops.sigmoid(flatten_levels(raw.scores))), 1)

    def extras(self, raw: RawOutputs) -> Tensor | None:
        """What the task adds to each cell, `(B, extra, N)`."""
        return None

    def predictions(self, raw: RawOutputs) -> Tensor:
        """The main output: `(B, 4 + classes + extra, N)`, or rows `(B, 300, 6 + extra)` of final boxes."""
        decoded = self.decode(raw)
        extras = self.extras(raw)
        if self.end_to_end:
            return best_rows(decoded, self.classes, extras)
        return decoded if extras is None else ops.concat((decoded, extras), 1)

    def forward(self, maps: Sequence[Tensor]) -> RawOutputs | Tensor | tuple[Tensor, ...]:
        """`RawOutputs` in training mode; what the official exports return otherwise, with prototypes where there are.

        The maps are decoded in float32, whatever the network computes in: pixels of boxes do not fit into half
        precision.
        """
        raw = self.raw(maps)
        if self.training:
            return raw
        distances, scores, more = (
            [ops.cast(level, "float32") for level in levels] for levels in (raw.distances, raw.scores, raw.coefficients)
        )
        rows = self.predictions(RawOutputs(distances, scores, raw.strides, more))
        return rows if raw.prototypes is None else (rows, raw.prototypes)


def _each(branches: Layers, maps: Sequence[Tensor]) -> list[Tensor]:
    return [branch(x) for branch, x in zip(branches, maps, strict=True)]


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
    cells = decoded.shape[2]
    if not isinstance(cells, int) or cells < count:  # a graph of free size may meet a small picture
        decoded = ops.pad(decoded, (0, count))
        extras = None if extras is None else ops.pad(extras, (0, count))
    boxes, scores = decoded.transpose(1, 2).split([4, classes], 2)
    first = ops.topk(scores.amax(2), count, 1)[1].unsqueeze(2)
    flat = ops.gather(scores, 1, first.expand(-1, -1, classes)).flatten(1)
    values, places = ops.topk(flat, count, 1)
    chosen = ops.gather(first, 1, (places // classes).unsqueeze(2))
    rows = [ops.gather(boxes, 1, chosen.expand(-1, -1, 4)), values.unsqueeze(2)]
    rows.append(ops.cast((places % classes).unsqueeze(2), "float32"))
    if extras is not None:
        rows.append(ops.gather(extras.transpose(1, 2), 1, chosen.expand(-1, -1, extras.shape[1])))
    return ops.concat(rows, 2)


class Proto(Block):
    """Mask prototypes from the finest level, at twice its resolution (Bolya et al., "YOLACT", 2019)."""

    cv1: Layer
    upsample: Layer
    cv2: Layer
    cv3: Layer

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(B, C, h, w)` to `(B, 32, 2h, 2w)`."""
        return self.cv3(self.cv2(self.upsample(self.cv1(x))))


class WithCoefficients(Detect):
    """Detection head with a third branch, of values that the task adds to each cell."""

    cv4: Layers

    def raw(self, maps: Sequence[Tensor]) -> RawOutputs:
        """Predictions before decoding, from the levels' feature maps."""
        raw = super().raw(maps)
        raw.coefficients = _each(self.cv4, maps)
        return raw

    def extras(self, raw: RawOutputs) -> Tensor:
        """The values as they are, `(B, extra, N)`."""
        return flatten_levels(raw.coefficients)


class Segment(WithCoefficients):
    """Detection head with mask coefficients per cell and prototypes per image, `(B, 32, H / 4, W / 4)`."""

    proto: Layer

    def raw(self, maps: Sequence[Tensor]) -> RawOutputs:
        """Predictions before decoding, from the levels' feature maps."""
        raw = super().raw(maps)
        raw.prototypes = self.proto(maps[0])
        return raw
