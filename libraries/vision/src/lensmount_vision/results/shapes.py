"""What a result gives to be drawn, so that drawing knows no result class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from lensmount_vision.images.checks import Floats
from lensmount_vision.results.masks import Masks


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Shapes:
    """The objects of one result, best first.

    Attributes:
        numbers: One per object: which colour it gets. The same number always has the same colour.
        names: One per object, the text of its label; may be empty.
        scores: float32 `(N,)`, written behind the names.
        boxes: float32 `(N, 4)` corners of the boxes at which labels stand; None lists the labels in the image's corner.
        outlined: Whether outlines are drawn: `corners` where there are any, else `boxes`.
        corners: float32 `(N, 4, 2)` of rotated boxes.
        masks: One per object. They can be left out of a drawing that has outlines.
        keypoints: float32 `(N, K, 3)`: x, y and confidence; or `(N, K, 2)`.
        skeleton: Pairs of point numbers to join.
    """

    numbers: Sequence[int]
    names: Sequence[str]
    scores: Floats
    boxes: Floats | None = None
    outlined: bool = False
    corners: Floats | None = None
    masks: Masks | None = None
    keypoints: Floats | None = None
    skeleton: Sequence[tuple[int, int]] = ()


@runtime_checkable
class Drawable(Protocol):
    """A result that can be drawn on its image."""

    @property
    def image_size(self) -> tuple[int, int]:
        """`(height, width)` of the image it belongs to."""

    def shapes(self) -> Shapes:
        """What is drawn."""
