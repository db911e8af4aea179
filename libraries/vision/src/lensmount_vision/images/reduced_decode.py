"""JPEGs decoded at a fraction of their size: when that pays, and the exact way between reduced and original pixels.

libjpeg scales while it decodes: 1/2, 1/4 or 1/8 of each side is an inverse transform of 4x4, 2x2 or 1x1 instead of 8x8
coefficients (libjpeg's `scale_denom`). It rounds sides up, so that the last row and column may reach beyond the
picture, by less than one reduced pixel; turning the picture may bring them to the left or the top.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lensmount.errors import OptionError
from lensmount_vision.images.geometry import Geometry, plan

if TYPE_CHECKING:
    from lensmount.specs import Preprocess

DENOMINATORS = (8, 4, 2)


@dataclass(frozen=True, slots=True)
class Reduced:
    """What reduced pixels show, in pixels of the whole picture.

    Attributes:
        size: `(height, width)` of the whole picture.
        denominator: Pixels of the whole picture on each side of a reduced one: 2, 4 or 8.
        covered: `(height, width)` that the reduced pixels cover: `size`, or up to 7 more.
        origin: `(x, y)` of the first reduced pixel's corner: 0, or down to -7 where what they cover more than the
            picture lies at the left or the top.
    """

    size: tuple[int, int]
    denominator: int
    covered: tuple[int, int]
    origin: tuple[int, int] = (0, 0)


def check(spec: Preprocess) -> None:
    """Refuses reduced decoding where it would change more than the sharpness.

    Raises:
        OptionError: The spec cuts a static crop, whose edges lie on whole original pixels, or normalises contrast,
            which depends on all of them.
    """
    found = [f"{name}={getattr(spec, name)!r}" for name in ("static_crop", "contrast") if getattr(spec, name)]
    if found:
        raise OptionError(
            "reduced_decode does not go with this package",
            found=", ".join(found),
            expected="a package whose preparation takes the whole picture as it is",
            fix="leave reduced_decode out",
        )


def denominator(size: tuple[int, int], spec: Preprocess) -> int:
    """How far a picture can be reduced and still have at least the pixels that the network gets to see.

    Args:
        size: `(height, width)` of the picture, as it is looked at.
        spec: How the network wants its input.

    Returns:
        8, 4 or 2; 1 where it had better be decoded in full.

    Raises:
        OptionError: `spec` cannot be carried out.
    """
    rows, columns = plan(size, spec).resized_size
    fits = (d for d in DENOMINATORS if -(-size[0] // d) >= rows and -(-size[1] // d) >= columns)
    return next(fits, 1)


def plan_reduced(reduced: Reduced, spec: Preprocess, size: tuple[int, int] | None = None) -> Geometry:
    """The geometry of a reduced picture: the frame, the size and the place in it are those of the whole picture's.

    Only the scale differs, by what the reduced pixels cover beyond the picture, and the geometry says so.

    Args:
        reduced: What the pixels show.
        spec: How the network wants its input.
        size: `(height, width)` that overrides `spec.size`.

    Returns:
        The map between pixels of the *whole* picture and the network's.

    Raises:
        OptionError: The spec cannot be carried out on reduced pixels.
    """
    check(spec)
    whole = plan(reduced.size, spec, size)
    height, width = reduced.covered
    rows, columns = whole.resized_size
    if spec.resize == "pad-square":
        height = width = max(reduced.covered)
        rows, columns = whole.padded_size
    scale = (columns / width, rows / height)
    return replace(whole, scale=scale, crop_origin=reduced.origin, crop_size=reduced.covered)
