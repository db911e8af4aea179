"""How well objects keep their numbers: HOTA, IDF1 and MOTA against tracks that are known.

The numbers are computed by the package `trackers` (`pip install "lensmount[track]"`), whose functions are those of
TrackEval, the MOTChallenge's own evaluation.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lensmount.errors import InputError, MissingDependencyError
from lensmount_bench.accuracy_report import EvalRow
from lensmount_vision.models.streaming import stream
from lensmount_vision.results.boxes import iou_matrix

Truth = dict[int, tuple[NDArray[np.int64], NDArray[np.float32]]]

CONFIDENCE = 0.25
"""Lowest score of boxes that a tracker is given, where the caller names none."""


def read_tracks(file: str | os.PathLike[str]) -> Truth:
    """Reads tracks in the MOTChallenge's form: `frame,number,left,top,width,height,counts,class,visibility`.

    Args:
        file: A text file; frames count from 1. Lines whose seventh value is 0 are not to be judged and left out; what
            follows the sixth may be missing.

    Returns:
        Of each frame that has objects, their numbers `(N,)` and boxes `(N, 4)` xyxy.

    Raises:
        InputError: The file cannot be read, a line is not of this form, or a number comes twice in a frame.
    """
    try:
        lines = Path(file).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read", found=str(error), expected="a text file of tracks") from error
    rows: dict[int, dict[int, list[float]]] = {}
    for place, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            values = [float(part) for part in line.split(",")]
            frame, number = int(values[0]), int(values[1])
            x, y, width, height = values[2:6]
            usable = frame == values[0] >= 1 and number == values[1] and width > 0 and height > 0
            usable = usable and all(np.isfinite(values))
        except (ValueError, IndexError, OverflowError):
            usable = False
        if not usable:
            raise InputError(
                f"line {place} of {file} is no object of a track",
                found=line[:80],
                expected="frame,number,left,top,width,height with frames from 1",
            )
        if len(values) > 6 and not values[6]:
            continue
        if number in rows.setdefault(frame, {}):
            raise InputError(f"{file} has object {number} twice in frame {frame}", found=f"line {place}: {line[:80]}")
        rows[frame][number] = [x, y, x + width, y + height]
    if not rows:
        raise InputError(f"{file} has no tracks", found=f"{len(lines)} lines", expected="at least one object")
    return {
        frame: (np.array(list(objects), np.int64), np.array(list(objects.values()), np.float32))
        for frame, objects in rows.items()
    }


def evaluate_tracks(
    model: Any,
    video: str | os.PathLike[str],
    truth: Truth,
    *,
    tracker: Any,
    limit: int | None,
    label: str,
    tell: Callable[[str, int, int], None],
    options: Mapping[str, Any],
) -> EvalRow:
    """Follows what a model finds, and compares it with the truth.

    Args:
        model: A loaded model that gives boxes.
        video: A video, or a folder of pictures that are its frames in the order of their names.
        truth: From `read_tracks`.
        tracker: As in `stream`.
        limit: Only the first so many frames.
        label: Name of the row.
        tell: Called with the label, frames done, and how many there are by the truth.
        options: Call options of the model.

    Returns:
        A row with `tracking`: HOTA, DetA, AssA, IDF1, IDP, IDR, MOTA, switches (a count).

    Raises:
        InputError: The video has fewer frames than the truth.
        MissingDependencyError: The package `trackers` is not installed.
    """
    measures = _import()
    every = max(truth)
    wanted = min(every, limit or every)
    nothing = np.zeros(0, np.int64), np.zeros((0, 4), np.float32)
    expected: list[NDArray[np.int64]] = []
    given: list[NDArray[np.int64]] = []
    overlaps: list[NDArray[np.float32]] = []
    row = EvalRow(label=label)
    start = time.perf_counter()
    frames = max(every, limit or 0)
    with stream(model, video, tracker=tracker, **options) as running:
        for frame, (info, result) in enumerate(running, 1):
            ids, boxes = nothing
            if info.error is not None:
                row.failed.append(f"{info.name}: {info.error.problem}")
            else:
                followed = result[result.tracker_id > 0]
                ids, boxes = followed.tracker_id, followed.xyxy
            true_ids, true_boxes = truth.get(frame, nothing)
            expected.append(true_ids)
            given.append(ids)
            overlaps.append(iou_matrix(true_boxes, boxes))
            tell(label, frame, max(frames, frame))
            if limit is not None and frame >= limit:
                break
    row.seconds, row.images = time.perf_counter() - start, len(given)
    if row.images < wanted:
        raise InputError(
            f"{video} has fewer frames than its truth", found=f"{row.images} frames", expected=f"at least {wanted}"
        )
    hota = measures.compute_hota_metrics(expected, given, overlaps)
    identity = measures.compute_identity_metrics(expected, given, overlaps)
    clear = measures.compute_clear_metrics(expected, given, overlaps)
    row.tracking = {name: float(hota[name]) for name in ("HOTA", "DetA", "AssA")}
    row.tracking |= {name: float(identity[name]) for name in ("IDF1", "IDP", "IDR")}
    row.tracking |= {"MOTA": float(clear["MOTA"]), "switches": float(clear["IDSW"])}
    return row


def _import() -> Any:
    try:
        import trackers.eval
    except ImportError as error:
        raise MissingDependencyError(
            "HOTA and IDF1 are computed by the package trackers", found=str(error), fix='pip install "lensmount[track]"'
        ) from error
    return trackers.eval
