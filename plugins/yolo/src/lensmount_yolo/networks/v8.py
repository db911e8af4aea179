"""YOLO v8: layer lists and scales, as published."""

from __future__ import annotations

from .build import Layer, Scale

SCALES = {
    "n": Scale(0.33, 0.25, 1024),
    "s": Scale(0.33, 0.50, 1024),
    "m": Scale(0.67, 0.75, 768),
    "l": Scale(1.00, 1.00, 512),
    "x": Scale(1.00, 1.25, 512),
}

_BODY = (
    Layer(-1, 1, "Conv", (64, 3, 2)),
    Layer(-1, 1, "Conv", (128, 3, 2)),
    Layer(-1, 3, "C2f", (128, True)),
    Layer(-1, 1, "Conv", (256, 3, 2)),
    Layer(-1, 6, "C2f", (256, True)),
    Layer(-1, 1, "Conv", (512, 3, 2)),
    Layer(-1, 6, "C2f", (512, True)),
    Layer(-1, 1, "Conv", (1024, 3, 2)),
    Layer(-1, 3, "C2f", (1024, True)),
    Layer(-1, 1, "SPPF", (1024, 5)),
    Layer(-1, 1, "Upsample"),
    Layer((-1, 6), 1, "Concat"),
    Layer(-1, 3, "C2f", (512,)),
    Layer(-1, 1, "Upsample"),
    Layer((-1, 4), 1, "Concat"),
    Layer(-1, 3, "C2f", (256,)),
    Layer(-1, 1, "Conv", (256, 3, 2)),
    Layer((-1, 12), 1, "Concat"),
    Layer(-1, 3, "C2f", (512,)),
    Layer(-1, 1, "Conv", (512, 3, 2)),
    Layer((-1, 9), 1, "Concat"),
    Layer(-1, 3, "C2f", (1024,)),
)

DETECT = (*_BODY, Layer((15, 18, 21), 1, "Detect"))
SEGMENT = (*_BODY, Layer((15, 18, 21), 1, "Segment", (32, 256)))
