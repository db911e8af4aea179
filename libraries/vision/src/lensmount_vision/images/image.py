"""A decoded picture, and the order of its channels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lensmount_vision.images.reduced_decode import Reduced

Color = Literal["bgr", "rgb"]


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """A decoded picture.

    Attributes:
        pixels: `(H, W, 3)` uint8, a read-only view; of networks that take neither 1 nor 3 channels, `(H, W, C)`. It
            may share the caller's memory.
        color: Order of the channels.
        path: Path or address it came from, None when it came as data.
        reduced: What the pixels show where they were decoded at a fraction of the picture's size, else None. `height`,
            `width` and `size` are the whole picture's either way.
    """

    pixels: NDArray[np.uint8]
    color: Color = "bgr"
    path: str | None = field(default=None, compare=False)  # whatever file it came from, the picture is the same
    reduced: Reduced | None = None

    @property
    def height(self) -> int:
        """Pixels from top to bottom."""
        return int(self.pixels.shape[0]) if self.reduced is None else self.reduced.size[0]

    @property
    def width(self) -> int:
        """Pixels from left to right."""
        return int(self.pixels.shape[1]) if self.reduced is None else self.reduced.size[1]

    @property
    def channels(self) -> int:
        """Channels of the pixels: 3, but for networks that take other pictures than those in colours."""
        return int(self.pixels.shape[2])

    @property
    def size(self) -> tuple[int, int]:
        """`(height, width)`."""
        return self.height, self.width

    def array(self, color: Color = "bgr") -> NDArray[np.uint8]:
        """A writable copy of the pixels in the channel order asked for."""
        pixels = self.pixels if color == self.color else self.pixels[..., ::-1]
        return np.array(pixels, order="C")
