"""COCO run-length encoding of masks, without loops over pixels or runs.

COCO counts runs of equal pixels down the columns, beginning with background (which may have length 0), and packs the
counts into text: each is written as the difference to the count two before it (from the fourth on) in groups of five
bits, lowest first, with a sixth bit for "more follows", offset by 48. The format is described in the COCO API's
`maskApi.c`; `pycocotools.mask` and everything built on it reads the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lensmount.errors import InputError

Counts = NDArray[np.int64]


def encode(crop: NDArray[np.bool_], origin: tuple[int, int], image_size: tuple[int, int]) -> Counts:
    """Run lengths of a mask given as a crop.

    Args:
        crop: `(h, w)` bool.
        origin: `(x, y)` of the crop's corner in the image.
        image_size: `(height, width)` of the image.

    Returns:
        int64 run lengths that add up to `height * width`.
    """
    height, width = image_size
    total = height * width
    rows, columns = crop.shape
    # One pixel of background between columns turns every run into a rise and a fall.
    padded = np.zeros(columns * (rows + 1) + 1, np.bool_)
    padded[1:].reshape(columns, rows + 1)[:, :-1] = crop.T
    column, row = np.divmod(np.flatnonzero(padded[1:] != padded[:-1]), rows + 1)
    edges = (column + origin[0]) * height + row + origin[1]
    starts, ends = edges[0::2], edges[1::2]
    if len(starts) > 1:
        # A run that reaches the bottom goes on at the top of the next column.
        apart = starts[1:] != ends[:-1]
        starts, ends = starts[np.r_[True, apart]], ends[np.r_[apart, True]]
    bounds = np.empty(2 * len(starts) + 2, np.int64)
    bounds[0], bounds[1:-1:2], bounds[2:-1:2], bounds[-1] = 0, starts, ends, total
    counts = np.diff(bounds)
    return counts if len(counts) == 1 or counts[-1] else counts[:-1]


def decode(counts: Counts, image_size: tuple[int, int]) -> tuple[NDArray[np.bool_], tuple[int, int]]:
    """The smallest crop that holds a mask, from its run lengths.

    Args:
        counts: Run lengths.
        image_size: `(height, width)`.

    Returns:
        The crop `(h, w)` bool and its origin `(x, y)`; a `(0, 0)` crop for an empty mask.

    Raises:
        InputError: A length is negative, or they do not add up to the image.
    """
    height, width = image_size
    if (counts < 0).any() or int(counts.sum()) != height * width:
        raise InputError(
            "the run lengths do not fit the image",
            found=f"{int(counts.sum())} pixels",
            expected=f"{height * width} ({height} x {width})",
        )
    bounds = np.concatenate(([0], np.cumsum(counts)))
    starts, ends = bounds[1:-1:2], bounds[2::2]
    full = ends > starts
    starts, ends = starts[full], ends[full]
    if not len(starts):
        return np.zeros((0, 0), np.bool_), (0, 0)
    (first, top_rows), (last, bottom_rows) = np.divmod(starts, height), np.divmod(ends - 1, height)
    if (first == last).all():
        top, bottom = int(top_rows.min()), int(bottom_rows.max()) + 1
    else:
        # A run that goes on in the next column reaches both edges.
        top, bottom = 0, height
    left, columns, rows = int(first[0]), int(last[-1]) + 1 - int(first[0]), bottom - top
    inner = np.empty(2 * len(starts) + 2, np.int64)
    inner[0], inner[-1] = 0, columns * rows
    inner[1:-1:2] = (first - left) * rows + top_rows - top
    inner[2:-1:2] = (last - left) * rows + bottom_rows - top + 1
    runs = np.diff(inner)
    pixels = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.ascontiguousarray(pixels.reshape(columns, rows).T), (left, top)


def compress(runs: Sequence[Counts]) -> list[str]:
    """Packs the run lengths of several masks into COCO's text, all at once."""
    if not runs:
        return []
    lengths = np.array([len(counts) for counts in runs])
    values = np.concatenate(runs)
    first = np.repeat(np.cumsum(lengths) - lengths, lengths)
    deltas = values.copy()
    deltas[2:] -= np.where(np.arange(2, len(values)) - first[2:] > 2, values[:-2], 0)
    # Groups of five bits until the rest is all sign: 0 (or -1) with the group's top bit saying so.
    groups = [deltas & 31]
    more = [_unfinished(deltas, groups[0])]
    rest = deltas
    while more[-1].any():
        rest = rest >> 5
        groups.append(rest & 31)
        more.append(more[-1] & _unfinished(rest, groups[-1]))
    stacked, going_on = np.stack(groups, axis=1), np.stack(more, axis=1)
    written = np.concatenate((np.ones((len(values), 1), np.bool_), going_on[:, :-1]), axis=1)
    text = (stacked + (going_on << 5) + 48).astype(np.uint8)[written].tobytes().decode("ascii")
    characters = np.concatenate(([0], np.cumsum(written.sum(axis=1))))
    ends = characters[np.cumsum(lengths)].tolist()
    return [text[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def _unfinished(rest: Counts, group: Counts) -> NDArray[np.bool_]:
    unfinished: NDArray[np.bool_] = (rest >> 5) != -(group >> 4)
    return unfinished


def decompress(text: str | bytes) -> Counts:
    """Run lengths from COCO's text.

    Raises:
        InputError: It holds other characters, or breaks off.
    """
    data = np.frombuffer(text.encode("latin-1", "replace") if isinstance(text, str) else bytes(text), np.uint8)
    if not len(data):
        return np.zeros(0, np.int64)
    groups = data.astype(np.int64) - 48
    last = (groups & 32) == 0
    if (groups < 0).any() or (groups > 63).any() or not last[-1]:
        raise InputError(
            "the text is no COCO run-length encoding",
            found=repr(text[:40]),
            expected="`counts` as pycocotools writes them",
        )
    ends = np.flatnonzero(last)
    starts = np.concatenate(([0], ends[:-1] + 1))
    sizes = ends - starts + 1
    if int(sizes.max()) > 12:
        raise InputError(
            "the text is no COCO run-length encoding",
            found="a run of more than 60 bits",
            expected="`counts` as pycocotools writes them",
        )
    shifts = 5 * (np.arange(len(groups)) - np.repeat(starts, sizes))
    values = np.add.reduceat((groups & 31) << shifts, starts)
    values -= ((groups[ends] >> 4) & 1) << (5 * sizes)
    counts: Counts = values
    counts[1::2] = np.cumsum(values[1::2])
    counts[2::2] = np.cumsum(values[2::2])
    return counts


def parse(segmentation: Any, image_size: tuple[int, int] | None = None) -> tuple[Counts, tuple[int, int]]:
    """Run lengths and image size from a COCO dict `{"size": [h, w], "counts": text or list}`.

    Raises:
        InputError: It is no such dict, or is of another image size than asked for.
    """
    try:
        height, width = (int(value) for value in segmentation["size"])
        counts = segmentation["counts"]
    except (TypeError, KeyError, ValueError) as error:
        raise InputError(
            "this is no COCO run-length encoding",
            found=repr(segmentation)[:80],
            expected='{"size": [height, width], "counts": …}',
        ) from error
    if image_size is not None and (height, width) != tuple(image_size):
        raise InputError("the masks differ in image size", found=f"{(height, width)}", expected=f"{image_size}")
    if isinstance(counts, (str, bytes)):
        return decompress(counts), (height, width)
    return np.asarray(counts, np.int64).reshape(-1), (height, width)
