"""Load options of the YOLO architecture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lensmount.errors import OptionError
from lensmount.specs.options import flag, one_of, positive
from lensmount_vision.models.class_options import first_column, listed_names


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """What `registry.load` takes for a YOLO model in addition to the common options.

    Attributes:
        input_size: Network input in pixels, one number or `(height, width)`, for weights and graphs of dynamic size;
            a multiple of the largest stride. None for the size the package says.
        rectangular: Letterbox to the smallest multiple of the stride that holds the picture instead of a full
            square; faster on wide pictures, for networks of dynamic size.
        antialias: Smooth pictures while they are scaled down, as Pillow does and the authors' pipeline does not; for
            weights that were trained so. None for what the package says.
        max_candidates: Boxes that may enter non-maximum suppression, best first.
        end_to_end: For weights whose head has branches that need no suppression (v10, 26): True runs those, False the
            ones that need it. None for what the package says, else for those that need it, as ultralytics does;
            graphs are what they were exported as.
        suppression: `"greedy"`: a box goes that overlaps a better one which stays. `"fast"`: a box goes that overlaps
            any better one; fewer stay where they lie in chains. None for what ultralytics does: fast for oriented
            boxes, greedy for the others. Of no use to graphs and heads that give final rows.
        empty_masks: Keep objects whose mask has no pixel inside their box; they are left out otherwise, as in
            ultralytics.
        reduced_decode: Decode JPEGs that are much larger than the network's input at 1/2, 1/4 or 1/8 of their sides, as
            long as that leaves all the pixels that the network sees. Quicker, and not the same pixels; results stay in
            those of the whole picture. Refused for packages with a static crop or contrast normalisation.
        activation: What makes probabilities of a classifier's outputs: `softmax`, `sigmoid`, or `none` where they are
            some already. None for what the graph ends without: softmax where it gives logits.
        classes: Class names in the place of the file's own, from column 0 (or `class_offset`) on; a text is cut at
            commas. None for the file's.
        class_offset: Column of the first name, 0 or more. None for what the file says; files whose names fit the
            network's columns in two ways are refused without.
    """

    input_size: int | tuple[int, int] | None = None
    rectangular: bool = False
    antialias: bool | None = None
    max_candidates: int = 30_000
    end_to_end: bool | None = None
    suppression: Literal["greedy", "fast"] | None = None
    empty_masks: bool = False
    reduced_decode: bool = False
    activation: str | None = None
    classes: Sequence[str] | None = None
    class_offset: int | None = None

    def __post_init__(self) -> None:
        positive("max_candidates", self.max_candidates)
        flag("rectangular", self.rectangular)
        flag("empty_masks", self.empty_masks)
        flag("reduced_decode", self.reduced_decode)
        if self.activation is not None:
            one_of("activation", self.activation, ("softmax", "sigmoid", "none"))
        for name in ("antialias", "end_to_end"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, bool):
                raise OptionError(f"{name} should be a flag", found=repr(value), expected="True, False or None")
        if self.classes is not None:
            object.__setattr__(self, "classes", listed_names(self.classes))
        if self.class_offset is not None:
            object.__setattr__(self, "class_offset", first_column(self.class_offset))
        if self.suppression is not None:
            one_of("suppression", self.suppression, ("greedy", "fast"))
        for side in self.size or ():
            positive("input_size", side)

    @property
    def size(self) -> tuple[int, int] | None:
        """`input_size` as `(height, width)`."""
        if self.input_size is None or isinstance(self.input_size, tuple):
            return self.input_size
        return (self.input_size, self.input_size)
