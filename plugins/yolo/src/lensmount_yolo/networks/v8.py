"""YOLO v8 as published: the tensors of a network by task, number of classes and scale."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from lensmount_yolo.networks.heads import REG_MAX

Shapes = dict[str, tuple[int, ...]]
_MASKS = 32


@dataclass(frozen=True)
class Scale:
    """Multipliers of one size of a version: depth, width, and the most channels before the width applies."""

    depth: float
    width: float
    max_channels: int = 1024

    def channels(self, count: int) -> int:
        """Scaled width, rounded up to a multiple of 8."""
        return math.ceil(min(count, self.max_channels) * self.width / 8) * 8

    def repeats(self, count: int) -> int:
        """Scaled depth; at least one."""
        return max(round(count * self.depth), 1)


SCALES = {
    "n": Scale(0.33, 0.25, 1024),
    "s": Scale(0.33, 0.50, 1024),
    "m": Scale(0.67, 0.75, 768),
    "l": Scale(1.00, 1.00, 512),
    "x": Scale(1.00, 1.25, 512),
}


def v8(task: Literal["detect", "segment"], classes: int, scale: Scale) -> Shapes:
    """Shapes by official name (`model.0.conv.weight`), for `tensors.measure`; rows that join have no tensors."""
    made: Shapes = {}
    p1, p2, p3, p4, p5 = (scale.channels(width) for width in (64, 128, 256, 512, 1024))
    for row, (out, into) in {
        0: (p1, 3),
        1: (p2, p1),
        3: (p3, p2),
        5: (p4, p3),
        7: (p5, p4),
        16: (p3, p3),
        19: (p4, p4),
    }.items():
        _conv(made, f"model.{row}", out, into, 3)
    body = {2: (p2, p2, 3), 4: (p3, p3, 6), 6: (p4, p4, 6), 8: (p5, p5, 3)}
    neck = {12: (p4, p5 + p4, 3), 15: (p3, p4 + p3, 3), 18: (p4, p3 + p4, 3), 21: (p5, p4 + p5, 3)}
    for row, (out, into, repeats) in {**body, **neck}.items():
        half, stages = out // 2, scale.repeats(repeats)
        _conv(made, f"model.{row}.cv1", out, into)
        _conv(made, f"model.{row}.cv2", out, (2 + stages) * half)
        for stage in range(stages):
            for name in ("cv1", "cv2"):
                _conv(made, f"model.{row}.m.{stage}.{name}", half, half, 3)
    _conv(made, "model.9.cv1", p5 // 2, p5)
    _conv(made, "model.9.cv2", p5, 2 * p5)
    branches = {"cv2": (max(16, p3 // 4, 4 * REG_MAX), 4 * REG_MAX), "cv3": (max(p3, min(classes, 100)), classes)}
    if task == "segment":
        branches["cv4"] = (max(p3 // 4, _MASKS), _MASKS)
        hidden = scale.channels(256)
        _conv(made, "model.22.proto.cv1", hidden, p3, 3)
        made["model.22.proto.upsample.weight"], made["model.22.proto.upsample.bias"] = (hidden, hidden, 2, 2), (hidden,)
        _conv(made, "model.22.proto.cv2", hidden, hidden, 3)
        _conv(made, "model.22.proto.cv3", _MASKS, hidden)
    for name, (hidden, out) in branches.items():
        for level, width in enumerate((p3, p4, p5)):
            _conv(made, f"model.22.{name}.{level}.0", hidden, width, 3)
            _conv(made, f"model.22.{name}.{level}.1", hidden, hidden, 3)
            made[f"model.22.{name}.{level}.2.weight"], made[f"model.22.{name}.{level}.2.bias"] = (
                (out, hidden, 1, 1),
                (out,),
            )
    made["model.22.dfl.conv.weight"] = (1, REG_MAX, 1, 1)
    return made


def _conv(made: Shapes, name: str, out: int, into: int, kernel: int = 1) -> None:
    made[f"{name}.conv.weight"] = (out, into, kernel, kernel)
    made.update({f"{name}.bn.{part}": (out,) for part in ("weight", "bias", "running_mean", "running_var")})
