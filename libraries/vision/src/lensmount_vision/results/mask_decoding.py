"""Instance masks at image resolution from what networks give: prototypes and coefficients, or small logit maps."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from lensmount.errors import InputError, OptionError
from lensmount_vision.images.checks import as_array, as_boxes, check_fraction
from lensmount_vision.results.mask_sampling import GeometryLike, Stretch, axes, pixel_ranges, sample
from lensmount_vision.results.masks import Crop, Masks, checked_size


def decode_prototypes(
    coefficients: ArrayLike, prototypes: ArrayLike, boxes: ArrayLike, geometry: GeometryLike, *, threshold: float = 0.5
) -> Masks:
    """Masks at image resolution from mask coefficients and prototypes (YOLACT, arXiv 1904.02689; YOLO's seg heads).

    A mask's logits, `coefficients @ prototypes`, are computed where its box reaches and sampled bilinearly at the
    image's pixels through the geometry, in one step; neither a network-sized nor an image-sized mask is made.

    Args:
        coefficients: `(N, K)`.
        prototypes: `(K, h, w)`, covering the network's frame.
        boxes: `(N, 4)` xyxy in *image* pixels; a mask is cut to its box.
        geometry: How the image lies in the network's frame.
        threshold: Probability above which a pixel is mask.

    Returns:
        N masks.

    Raises:
        InputError: Shapes do not fit.
        OptionError: The threshold is not between 0 and 1.
    """
    probability = check_fraction(threshold, "threshold")
    if probability in (0, 1):
        raise OptionError("threshold is out of range", found=repr(threshold), expected="more than 0 and less than 1")
    level = math.log(probability / (1 - probability))
    weights, bases = as_array(coefficients, "mask coefficients"), as_array(prototypes, "prototypes")
    areas = as_boxes(boxes)
    if bases.ndim != 3 or 0 in bases.shape:
        raise InputError("prototypes have the wrong shape", found=str(bases.shape), expected="(K, h, w)")
    if not len(areas) and weights.size == 0:
        return Masks.empty(geometry.original_size)
    if weights.shape != (len(areas), len(bases)):
        raise InputError(
            "mask coefficients have the wrong shape",
            found=str(weights.shape),
            expected=f"{(len(areas), len(bases))}: boxes, prototypes",
        )
    rows, columns = axes(geometry, (bases.shape[1], bases.shape[2]))
    ranges = pixel_ranges(areas, geometry.original_size)

    def decode(index: int) -> Crop:
        x0, y0, x1, y1 = box = ranges[index].tolist()
        if x0 == x1 or y0 == y1:
            return np.zeros((0, 0), np.bool_), (0, 0)
        (left, right), (top, bottom) = columns.reach(x0, x1), rows.reach(y0, y1)
        # einsum's own loops: a BLAS product over so few numbers gains nothing, and its threads cost tens of
        # milliseconds on a busy machine.
        logits = np.einsum("k,khw->hw", weights[index], bases[:, top:bottom, left:right])
        return sample(logits, rows, columns, box, (left, top), level)

    return Masks.from_crops([decode(index) for index in range(len(ranges))], geometry.original_size)


def resize_logits_in_boxes(
    mask_logits: ArrayLike,
    boxes: ArrayLike | None,
    geometry: GeometryLike | tuple[int, int],
    *,
    threshold: float = 0.0,
) -> Masks:
    """Masks at image resolution from one low-resolution logit map per instance (RF-DETR, SAM).

    Args:
        mask_logits: `(N, h, w)`, covering the network's frame.
        boxes: `(N, 4)` xyxy in image pixels that the masks are cut to; None leaves them whole, and still samples only
            around the logits above the threshold.
        geometry: How the image lies in the network's frame, or `(height, width)` of an image that was stretched to it.
        threshold: Logit above which a pixel is mask.

    Returns:
        N masks, equal to `interpolate(mode="bilinear", align_corners=False) > threshold` inside the boxes.

    Raises:
        InputError: Shapes do not fit.
    """
    logits = as_array(mask_logits, "mask logits")
    if logits.ndim != 3:
        raise InputError("mask logits have the wrong shape", found=str(logits.shape), expected="(N, h, w)")
    if isinstance(geometry, tuple):
        geometry = Stretch(checked_size(geometry), (max(logits.shape[1], 1), max(logits.shape[2], 1)))
    height, width = geometry.original_size
    whole = np.tile(np.array([[0, 0, width, height]], np.float32), (len(logits), 1))
    areas = whole if boxes is None else as_boxes(boxes)
    if len(areas) != len(logits):
        raise InputError("boxes and mask logits differ in number", found=f"{len(areas)} and {len(logits)}")
    if not len(logits):
        return Masks.empty((height, width))
    rows, columns = axes(geometry, (logits.shape[1], logits.shape[2]))
    ranges = pixel_ranges(areas, (height, width))
    if boxes is None:
        # Between four logits at or below the threshold there is nothing above it.
        for index, above in enumerate(logits > np.float32(threshold)):
            if above.any():
                (left, right), (top, bottom) = columns.support(above.any(axis=0)), rows.support(above.any(axis=1))
                ranges[index] = left, top, right, bottom
            else:
                ranges[index] = 0

    def decode(index: int) -> Crop:
        x0, y0, x1, y1 = box = ranges[index].tolist()
        if x0 == x1 or y0 == y1:
            return np.zeros((0, 0), np.bool_), (0, 0)
        (left, right), (top, bottom) = columns.reach(x0, x1), rows.reach(y0, y1)
        part = logits[index, top:bottom, left:right]
        return sample(part, rows, columns, box, (left, top), threshold)

    return Masks.from_crops([decode(index) for index in range(len(ranges))], (height, width))
