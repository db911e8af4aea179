"""Instance masks that stay small: each is a crop of the image, until `.dense()` is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lensmount.errors import InputError
from lensmount_vision.results import rle

Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]
Crop = tuple[Bools, tuple[int, int]]


class Masks:
    """Masks of one image, each kept as a bool crop and the place of its corner; outside the crop there is no mask.

    Args:
        crops: `(h, w)` arrays, bool or 0/1.
        origins: `(N, 2)` whole numbers x, y: where each crop's corner lies.
        image_size: `(height, width)`.

    Raises:
        InputError: Counts differ, or a crop does not lie inside the image.
    """

    __slots__ = ("_crops", "_image_size", "_origins")
    # Equal masks may be cropped differently, so there is no cheap hash that agrees with `==`.
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, crops: Sequence[NDArray[Any]], origins: ArrayLike, image_size: tuple[int, int]) -> None:
        height, width = checked_size(image_size)
        places = np.asarray(origins, np.int64).reshape(-1, 2)
        if len(places) != len(crops):
            raise InputError("crops and origins differ in number", found=f"{len(crops)} and {len(places)}")
        checked = []
        for index, (crop, (x, y)) in enumerate(zip(crops, places.tolist(), strict=True)):
            array = np.asarray(crop)
            if array.ndim != 2:
                raise InputError(f"crop {index} has the wrong shape", found=str(array.shape), expected="(h, w)")
            if array.size and (x < 0 or y < 0 or y + array.shape[0] > height or x + array.shape[1] > width):
                raise InputError(
                    f"crop {index} does not lie inside the image",
                    found=f"{array.shape[1]} x {array.shape[0]} pixels at ({x}, {y})",
                    expected=f"inside {width} x {height}",
                )
            checked.append(array if array.dtype == np.bool_ else array != 0)
        self._crops = tuple(checked)
        self._origins = places
        self._image_size = (height, width)

    @classmethod
    def empty(cls, image_size: tuple[int, int]) -> Masks:
        """No masks."""
        return cls((), np.zeros((0, 2), np.int64), image_size)

    @classmethod
    def from_dense(cls, masks: ArrayLike) -> Masks:
        """Cuts `(N, H, W)` masks, bool or 0/1, down to their crops. The array is copied.

        Raises:
            InputError: It has not three axes.
        """
        dense = np.asarray(masks)
        if dense.ndim != 3:
            raise InputError("dense masks have the wrong shape", found=str(dense.shape), expected="(N, H, W)")
        whole = [(mask if mask.dtype == np.bool_ else mask != 0, (0, 0)) for mask in dense]
        return cls.from_crops([_tighten(*crop) for crop in whole], (dense.shape[1], dense.shape[2]), copy=True)

    @classmethod
    def from_rle(cls, segmentations: Sequence[Any], image_size: tuple[int, int] | None = None) -> Masks:
        """Reads COCO run-length dicts, compressed or not.

        Args:
            segmentations: `{"size": [h, w], "counts": text, bytes or list}` each.
            image_size: `(height, width)`; needed for an empty list.

        Raises:
            InputError: One is no such dict, does not add up, or is of another image.
        """
        crops = []
        for segmentation in segmentations:
            counts, image_size = rle.parse(segmentation, image_size)
            crops.append(rle.decode(counts, image_size))
        if image_size is None:
            raise InputError("an empty list of masks has no image size", fix="pass image_size=(height, width)")
        return cls.from_crops(crops, image_size)

    @classmethod
    def from_crops(cls, crops: Sequence[Crop], image_size: tuple[int, int], *, copy: bool = False) -> Masks:
        """Masks from pairs of crop and origin `(x, y)`."""
        arrays = [crop.copy() if copy else crop for crop, _ in crops]
        return cls(arrays, [origin for _, origin in crops], image_size)

    # --- as a sequence ------------------------------------------------------------------------------------------------

    @property
    def image_size(self) -> tuple[int, int]:
        """`(height, width)` of the image."""
        return self._image_size

    def __len__(self) -> int:
        return len(self._crops)

    def __getitem__(self, key: Any) -> Masks:
        """Masks by number, slice, index array or bool array; always `Masks`, sharing the crops."""
        chosen = np.atleast_1d(np.arange(len(self))[key]).ravel()
        return Masks([self._crops[i] for i in chosen], self._origins[chosen], self._image_size)

    def __iter__(self) -> Iterator[Masks]:
        return (self[index] for index in range(len(self)))

    def __eq__(self, other: object) -> bool:
        """Whether both hold the same pixels of the same image, however they are cropped."""
        if not isinstance(other, Masks):
            return NotImplemented
        if self.image_size != other.image_size or len(self) != len(other):
            return False
        pairs = zip(self._tight(), other._tight(), strict=True)
        return all(a == b and np.array_equal(x, y) for (x, a), (y, b) in pairs)

    def __repr__(self) -> str:
        return f"Masks({len(self)} of {self._image_size[0]} x {self._image_size[1]} pixels, {self.nbytes} bytes)"

    # --- pixels -------------------------------------------------------------------------------------------------------

    def crop(self, index: int) -> Bools:
        """The stored `(h, w)` crop of one mask, not copied."""
        return self._crops[index]

    @property
    def origins(self) -> NDArray[np.int64]:
        """`(N, 2)` x, y of each crop's corner."""
        return self._origins

    @property
    def nbytes(self) -> int:
        """Bytes of all crops."""
        return sum(crop.nbytes for crop in self._crops)

    @property
    def area(self) -> NDArray[np.int64]:
        """int64 `(N,)` pixels of each mask."""
        return np.array([np.count_nonzero(crop) for crop in self._crops], np.int64)

    @property
    def boxes(self) -> Floats:
        """float32 `(N, 4)` smallest xyxy around each mask's pixels; zeros for an empty mask."""
        rows = [(x, y, x + crop.shape[1], y + crop.shape[0]) for crop, (x, y) in self._tight()]
        return np.array(rows, np.float32).reshape(-1, 4)

    def dense(self) -> Bools:
        """Dense bool `(N, H, W)`: every mask at full size."""
        result = np.zeros((len(self), *self._image_size), np.bool_)
        for target, crop, (x, y) in zip(result, self._crops, self._origins.tolist(), strict=True):
            target[y : y + crop.shape[0], x : x + crop.shape[1]] = crop
        return result

    @property
    def shape(self) -> tuple[int, int, int]:
        """`(N, H, W)`: of the dense array."""
        return (len(self), *self._image_size)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """`numpy.asarray(masks)` is `masks.dense()`; it is computed each time."""
        if copy is False:
            raise ValueError("masks are stored as crops: a dense array of them is always a copy")
        dense = self.dense()
        return dense if dtype is None else dense.astype(dtype)

    def _tight(self) -> list[Crop]:
        return [_tighten(crop, (x, y)) for crop, (x, y) in zip(self._crops, self._origins.tolist(), strict=True)]

    # --- other forms --------------------------------------------------------------------------------------------------

    def to_rle(self, *, compressed: bool = True) -> list[dict[str, Any]]:
        """COCO run-length dicts `{"size": [h, w], "counts": …}`, as `pycocotools.mask.encode` makes them.

        Args:
            compressed: Counts as COCO's text (a `str`, so that it goes into JSON), else as a list of run lengths.
        """
        pairs = zip(self._crops, self._origins.tolist(), strict=True)
        runs = [rle.encode(crop, (x, y), self._image_size) for crop, (x, y) in pairs]
        counts: list[Any] = rle.compress(runs) if compressed else [run.tolist() for run in runs]
        return [{"size": list(self._image_size), "counts": item} for item in counts]

    def polygons(self) -> list[list[NDArray[np.int32]]]:
        """Outer contours of each mask: int32 `(K, 2)` x, y of pixels on the edge, K >= 3. Holes are left out.

        Contours run through pixel centres, as OpenCV's do; parts of one or two pixels have no polygon.
        """
        import cv2

        result = []
        for crop, origin in zip(self._crops, self._origins.tolist(), strict=True):
            contours: Sequence[Any] = ()
            if crop.size:
                pixels = np.ascontiguousarray(crop).view(np.uint8)
                contours, _ = cv2.findContours(pixels, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=origin)
            result.append([contour.reshape(-1, 2) for contour in contours if len(contour) >= 3])
        return result

    def iou(self, other: Masks) -> Floats:
        """float32 `(N, M)` intersection over union of every pair; 0 where both are empty.

        Raises:
            InputError: The images differ in size.
        """
        if self.image_size != other.image_size:
            raise InputError(
                "the masks differ in image size", found=str(other.image_size), expected=f"{self.image_size}"
            )
        result = np.zeros((len(self), len(other)), np.float32)
        areas, other_areas = self.area, other.area
        theirs = other._tight()
        for i, (a, (ax, ay)) in enumerate(self._tight()):
            for j, (b, (bx, by)) in enumerate(theirs):
                left, top = max(ax, bx), max(ay, by)
                right, bottom = min(ax + a.shape[1], bx + b.shape[1]), min(ay + a.shape[0], by + b.shape[0])
                if right <= left or bottom <= top:
                    continue
                first = a[top - ay : bottom - ay, left - ax : right - ax]
                both = int(np.count_nonzero(first & b[top - by : bottom - by, left - bx : right - bx]))
                result[i, j] = both / (areas[i] + other_areas[j] - both)
        return result


def checked_size(image_size: tuple[int, int]) -> tuple[int, int]:
    """Returns `(height, width)` as integers, or raises `InputError`."""
    try:
        height, width = (int(value) for value in image_size)
    except (TypeError, ValueError):
        height = width = -1
    if height < 0 or width < 0:
        raise InputError("image_size is not valid", found=repr(image_size), expected="(height, width) in pixels")
    return height, width


def _tighten(crop: Bools, origin: tuple[int, int]) -> Crop:
    """The part of a crop that holds pixels, as a view; `(0, 0)` at (0, 0) when there are none."""
    columns = np.flatnonzero(crop.any(axis=0))
    if not len(columns):
        return crop[:0, :0], (0, 0)
    rows = np.flatnonzero(crop.any(axis=1))
    x, y = int(columns[0]), int(rows[0])
    return crop[y : int(rows[-1]) + 1, x : int(columns[-1]) + 1], (origin[0] + x, origin[1] + y)
