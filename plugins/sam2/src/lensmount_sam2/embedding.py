"""An encoded picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lensmount_vision.images.geometry import Geometry


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class ImageEmbedding:
    """What the image encoder makes of a picture: all that prompts need, whatever becomes of the picture.

    Attributes:
        maps: Embedding `(1, 256, h, w)` and the maps of high resolution `(1, 32, 4h, 4w)` and `(1, 64, 2h, 2w)`:
            tensors on the model's device (torch), or host arrays. Read-only.
        geometry: How the picture lies in the network's input.
        key: Identifies the picture's content.
        fingerprint: Identifies weights, input size, backend, device and precision; another model refuses it.
        path: Where the picture came from.
    """

    maps: tuple[Any, Any, Any]
    geometry: Geometry
    key: str
    fingerprint: str
    path: str | None = None

    @property
    def image_size(self) -> tuple[int, int]:
        """`(height, width)` of the picture."""
        return self.geometry.original_size

    def __repr__(self) -> str:
        height, width = self.image_size
        return f"<ImageEmbedding of a picture of {width}x{height}, {self.path or self.key[:12]}>"
