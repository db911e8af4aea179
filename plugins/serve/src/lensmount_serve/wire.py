"""Results in the protocol's words: boxes by their centre, in pixels of the picture that was sent."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import numpy as np

from lensmount_serve.failures import AnswerError
from lensmount_serve.pictures import encode_jpeg
from lensmount_vision.results import Classification, Detections, InstanceSegmentation, Keypoints, Masks

_ONE = 1e-2  # how far a sum of float16 probabilities may be from 1


def answer_of(
    result: Any,
    *,
    seconds: float,
    inference_id: str,
    keep_none: bool = True,
    masks: str | None = None,
    keypoint_confidence: float | None = None,
    confidence: float | None = None,
    image: Any = None,
    labels: bool = False,
    stroke: int = 1,
) -> dict[str, Any]:
    """A result as the protocol's object.

    Args:
        result: Of detection, segmentation, keypoints or classification.
        seconds: That the inference took.
        inference_id: The request's name.
        keep_none: Whether fields without a value are written as null; the protocol leaves them out for boxes alone.
        masks: `polygon` or `rle`, to write masks; None to write boxes.
        keypoint_confidence: To write keypoints: the lowest score of those written.
        confidence: For several labels at once: the lowest score of those that count as found.
        image: The picture, to draw the result on it; None for no drawing.
        labels: Write names on the drawing.
        stroke: Width of its lines.
    """
    height, width = result.image_size
    made: dict[str, Any] = {
        "inference_id": inference_id,
        "frame_id": None,
        "time": seconds,
        "image": {"width": width, "height": height},
        "visualization": None if image is None else _drawn(result, image, labels, stroke),
    }
    if isinstance(result, Classification):
        made |= _classes(result, confidence)
    elif isinstance(result, Detections):
        rows = _boxes(result)
        if masks is not None:
            _add_masks(rows, result, masks)
        if keypoint_confidence is not None:
            _add_keypoints(rows, result, keypoint_confidence)
        made["predictions"] = rows
    else:
        raise AnswerError(400, f"results of type {result.kind!r} have no such answer")
    return made if keep_none else without_none(made)


def without_none(value: Any) -> Any:
    """A copy in which fields of value None are left out."""
    if isinstance(value, dict):
        return {name: without_none(item) for name, item in value.items() if item is not None}
    return [without_none(item) for item in value] if isinstance(value, list) else value


def _drawn(result: Any, image: Any, labels: bool, stroke: int) -> str:
    more = {} if isinstance(result, Classification) else {"thickness": stroke}
    return base64.b64encode(encode_jpeg(result.draw(image, labels=labels, **more))).decode()


def _boxes(result: Detections) -> list[dict[str, Any]]:
    corners = result.xyxy.astype(np.float64)
    centres = (corners[:, :2] + corners[:, 2:]) / 2
    sizes = corners[:, 2:] - corners[:, :2]
    columns = zip(
        centres.tolist(),
        sizes.tolist(),
        result.confidence.tolist(),
        result.class_id.tolist(),
        result.class_name.tolist(),
        strict=True,
    )
    return [
        {
            "x": x, "y": y, "width": width, "height": height, "confidence": score, "class": name, "class_id": number,
            "detection_id": str(uuid4()), "class_confidence": None, "tracker_id": None, "parent_id": None,
        }
        for (x, y), (width, height), score, number, name in columns
    ]  # fmt: skip


def _add_masks(rows: list[dict[str, Any]], result: Detections, kind: str) -> None:
    if not isinstance(result, InstanceSegmentation):
        raise AnswerError(400, "this model finds boxes without masks: ask /infer/object_detection")
    if kind == "rle":
        for row, mask in zip(rows, rle(result.masks), strict=True):
            row |= {"mask_format": "rle", "rle": mask}
        return
    for row, parts in zip(rows, result.masks.polygons(), strict=True):
        largest = max(parts, key=_area, default=np.zeros((0, 2), np.int32))
        row |= {
            "mask_format": "polygon", "points": [{"x": float(x), "y": float(y)} for x, y in largest.tolist()]
        }  # fmt: skip


def _area(polygon: Any) -> float:
    """The area of a polygon `(N, 2)` in square pixels (shoelace formula)."""
    x, y = polygon[:, 0].astype(np.float64), polygon[:, 1].astype(np.float64)
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2) + len(polygon) * 1e-6


def rle(masks: Masks) -> list[dict[str, Any]]:
    """Run lengths in COCO's text form, one object per mask."""
    found = []
    for item in masks.to_rle():
        counts = item["counts"]
        found.append({"size": list(item["size"]), "counts": counts.decode() if isinstance(counts, bytes) else counts})
    return found


def _add_keypoints(rows: list[dict[str, Any]], result: Detections, lowest: float) -> None:
    if not isinstance(result, Keypoints):
        raise AnswerError(400, "this model finds no keypoints: ask /infer/object_detection")
    names: Sequence[str] = result.keypoint_names
    for row, points in zip(rows, result.keypoints.tolist(), strict=True):
        row["keypoints"] = [
            {"x": x, "y": y, "confidence": score, "class_id": i, "class": names[i] if i < len(names) else str(i)}
            for i, (x, y, score) in enumerate(points)
            if score >= lowest
        ]


def _classes(result: Classification, confidence: float | None) -> dict[str, Any]:
    """One class of all, or several at once where the scores are no shares of a whole."""
    rows: list[dict[str, Any]] = [
        {"class": name, "class_id": number, "confidence": score}
        for number, name, score in result.top(len(result.probabilities))
    ]
    if abs(float(result.probabilities.sum(dtype=np.float64)) - 1) <= _ONE:
        best = rows[0] if rows else {"class": "", "confidence": 0.0}
        return {"predictions": rows, "top": best["class"], "confidence": best["confidence"]}
    lowest = 0.5 if confidence is None else confidence
    found = {row["class"]: {"confidence": row["confidence"], "class_id": row["class_id"]} for row in rows}
    return {
        "predictions": found,
        "predicted_classes": [row["class"] for row in rows if row["confidence"] >= lowest],
    }
