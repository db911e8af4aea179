"""Options of the SAM 2 architecture: at load, and of `Sam2.generate`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any

from lensmount.errors import OptionError
from lensmount.specs.options import flag, fraction, positive


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """What `registry.load` takes for a SAM 2 model in addition to the common options.

    Attributes:
        image_size: Side of the square that pictures are squashed to, in pixels, a multiple of 32. None for what the
            package says, else 1024. Smaller is faster and coarser; weights were trained at 1024.
    """

    image_size: int | None = None

    def __post_init__(self) -> None:
        if self.image_size is not None and positive("image_size", self.image_size) % 32:
            raise OptionError("image_size is not valid", found=str(self.image_size), expected="a multiple of 32")


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateOptions:
    """What `Sam2.generate` takes.

    Attributes:
        points_per_side: The grid has this many points along each side.
        points_per_batch: Points decoded at once; fewer take less memory.
        predicted_iou_threshold: Masks whose estimated IoU is lower are dropped.
        stability_threshold: Masks that change more than this with the threshold are dropped: IoU of the masks at
            `mask_threshold` plus and minus `stability_offset`. Measured on the low-resolution logits.
        stability_offset: See above.
        mask_threshold: Logit above which a pixel is mask.
        box_iou_threshold: Of two masks whose boxes overlap more, the worse is dropped.
        min_region_area: Islands and holes of fewer pixels are removed; 0 leaves them.
        multi_mask_output: Three masks per point, else one.
        use_embeddings_cache: As in `embed_images`.
        color: Channel order of an array or tensor.
    """

    points_per_side: int = 32
    points_per_batch: int = 64
    predicted_iou_threshold: float = 0.8
    stability_threshold: float = 0.95
    stability_offset: float = 1.0
    mask_threshold: float = 0.0
    box_iou_threshold: float = 0.7
    min_region_area: int = 0
    multi_mask_output: bool = True
    use_embeddings_cache: bool = True
    color: Any = None

    def __post_init__(self) -> None:
        for name in ("points_per_side", "points_per_batch"):
            positive(name, getattr(self, name))
        for name in ("predicted_iou_threshold", "stability_threshold", "box_iou_threshold"):
            fraction(name, getattr(self, name))
        for name in ("multi_mask_output", "use_embeddings_cache"):
            flag(name, getattr(self, name))
        for name in ("stability_offset", "mask_threshold", "min_region_area"):
            value = getattr(self, name)
            number = not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(float(value))
            if not number or (name != "mask_threshold" and value < 0):
                raise OptionError(f"{name} is not valid", found=repr(value), expected="a number from 0")
