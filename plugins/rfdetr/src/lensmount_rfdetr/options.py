"""Load options of the RF-DETR architecture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lensmount.specs.options import flag, positive
from lensmount_vision.models.class_options import first_column, listed_names


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """What `registry.load` takes for an RF-DETR model in addition to the common options.

    Attributes:
        input_size: Network input in pixels, one number or `(height, width)`, for weights of format `torch`; a multiple
            of patch size times attention windows (32 for nano to large, 56 for base). None for the size that the
            package says, else the one that the weights were trained at.
        whole_masks: Leave masks whole instead of cutting them to their boxes, as the authors' own code does; slower,
            and the same wherever a mask lies inside its box.
        reduced_decode: Decode JPEGs that are much larger than the network's input at 1/2, 1/4 or 1/8 of their sides, as
            long as that leaves all the pixels that the network sees. Quicker, and not the same pixels; results stay in
            those of the whole picture. Refused for packages with a static crop or contrast normalisation.
        classes: Class names in the place of the file's own, in its order; a text is cut at commas. They begin where the
            file's layout says, or at column 0 where that is not sure. None for the file's.
        class_offset: Column of the first name, 0 or more: 1 for a file whose column 0 is the background, as rfdetr up
            to 1.4.1 left it. None for what the file says; files that fit two layouts are refused without.
    """

    input_size: int | tuple[int, int] | None = None
    whole_masks: bool = False
    reduced_decode: bool = False
    classes: Sequence[str] | None = None
    class_offset: int | None = None

    def __post_init__(self) -> None:
        for side in self.size or ():
            positive("input_size", side)
        flag("whole_masks", self.whole_masks)
        flag("reduced_decode", self.reduced_decode)
        if self.classes is not None:
            object.__setattr__(self, "classes", listed_names(self.classes))
        if self.class_offset is not None:
            object.__setattr__(self, "class_offset", first_column(self.class_offset))

    @property
    def size(self) -> tuple[int, int] | None:
        """`input_size` as `(height, width)`."""
        if self.input_size is None or isinstance(self.input_size, tuple):
            return self.input_size
        return (self.input_size, self.input_size)
