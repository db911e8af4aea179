"""Load options of the SAM 2 architecture."""

from __future__ import annotations

from dataclasses import dataclass

from lensmount.errors import OptionError
from lensmount.specs.options import positive


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
