"""Results in the forms of others: JSON-ready dicts, COCO annotations, supervision objects."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lensmount.errors import InputError, MissingDependencyError, OptionError
from lensmount_vision.results.boxes import area, xyxy_to_xywh
from lensmount_vision.results.detections import Detections, InstanceSegmentation, Keypoints, OrientedDetections
from lensmount_vision.results.image_results import Classification, Embeddings, PromptedMasks
from lensmount_vision.results.masks import Masks
from lensmount_vision.results.video_results import VideoMasks

AnyResult = Detections | Classification | Embeddings | PromptedMasks
_BOX_RESULTS: dict[str, Any] = {
    kind.kind: kind for kind in (Detections, InstanceSegmentation, Keypoints, OrientedDetections)
}


def plain(array: NDArray[np.floating[Any]]) -> Any:
    """Nested lists of the shortest decimals that read back as the same float32 (0.9, not 0.8999999761581421)."""
    if array.ndim == 0:
        return float(str(array))
    if array.ndim == 1:
        return [float(str(value)) for value in array]
    return [plain(part) for part in array]


# --- dicts ------------------------------------------------------------------------------------------------------------


def to_dict(result: AnyResult) -> dict[str, Any]:
    """A result as plain values: `type`, what describes the image, and one entry per object."""
    if isinstance(result, Embeddings):
        return {"type": result.kind, "normalized": result.normalized, "vectors": plain(result.vectors)}
    data: dict[str, Any] = {"type": result.kind, "image_size": list(result.image_size), "path": result.path}
    if isinstance(result, PromptedMasks):
        pairs = zip(plain(result.scores), result.masks.to_rle(), strict=True)
        objects: list[dict[str, Any]] = [{"score": score, "mask": mask} for score, mask in pairs]
        if result.prompt_id is not None:
            for item, number in zip(objects, result.prompt_id.tolist(), strict=True):
                item["prompt_id"] = number
        if isinstance(result, VideoMasks):
            data["frame"] = result.frame
            for item, number in zip(objects, result.object_ids.tolist(), strict=True):
                item["object_id"] = number
        return data | {"objects": objects}
    data["class_names"] = list(result.class_names)
    if isinstance(result, Classification):
        return data | {"probabilities": plain(result.probabilities)}
    columns: dict[str, Sequence[Any]] = {
        "class_id": result.class_id.tolist(),
        "class_name": result.class_name.tolist(),
        "confidence": plain(result.confidence),
        "xyxy": plain(result.xyxy),
    }
    if isinstance(result, InstanceSegmentation):
        columns["mask"] = result.masks.to_rle()
    if isinstance(result, Keypoints):
        data["keypoint_names"] = list(result.keypoint_names)
        data["skeleton"] = [list(pair) for pair in result.skeleton]
        columns["keypoints"] = plain(result.keypoints)
    if isinstance(result, OrientedDetections):
        columns["xywhr"] = plain(result.xywhr)
    data["objects"] = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return data


def from_dict(data: Mapping[str, Any]) -> AnyResult:
    """The result that `to_dict` was called on.

    Raises:
        InputError: The dict is of no known type, or lacks something.
    """
    kind = data.get("type") if isinstance(data, Mapping) else None
    try:
        if kind == Embeddings.kind:
            vectors = np.array(data["vectors"], np.float32)
            return Embeddings(vectors=vectors.reshape(len(vectors), -1), normalized=data["normalized"])
        height, width = data["image_size"]
        image: dict[str, Any] = {"image_size": (height, width), "path": data.get("path")}
        if kind in (PromptedMasks.kind, VideoMasks.kind):
            image["masks"] = Masks.from_rle([item["mask"] for item in data["objects"]], (height, width))
            image["scores"] = np.array([item["score"] for item in data["objects"]])
            if any("prompt_id" in item for item in data["objects"]):
                image["prompt_id"] = np.array([item["prompt_id"] for item in data["objects"]])
            if kind == PromptedMasks.kind:
                return PromptedMasks(**image)
            ids = np.array([item["object_id"] for item in data["objects"]], np.int64)
            return VideoMasks(object_ids=ids, frame=data["frame"], **image)
        image["class_names"] = tuple(data["class_names"])
        if kind == Classification.kind:
            return Classification(probabilities=data["probabilities"], **image)
        objects = data["objects"]
        if kind in _BOX_RESULTS:
            fields = {name: [o[name] for o in objects] for name in ("xyxy", "confidence", "class_id")}
            if kind == InstanceSegmentation.kind:
                image["masks"] = Masks.from_rle([o["mask"] for o in objects], (height, width))
            if kind == Keypoints.kind:
                image["keypoint_names"] = tuple(data.get("keypoint_names", ()))
                image["skeleton"] = tuple(tuple(pair) for pair in data.get("skeleton", ()))
                fields["keypoints"] = [o["keypoints"] for o in objects]
            if kind == OrientedDetections.kind:
                fields["xywhr"] = [o["xywhr"] for o in objects]
            boxes: Detections = _BOX_RESULTS[kind](**fields, **image)
            return boxes
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"the dict is no whole {kind} result", found=f"{type(error).__name__}: {error}") from error
    known = [*_BOX_RESULTS, Classification.kind, Embeddings.kind, PromptedMasks.kind, VideoMasks.kind]
    raise InputError("the dict is no result", found=f"type {kind!r}", expected=", ".join(known))


# --- COCO -------------------------------------------------------------------------------------------------------------


def to_coco(
    result: Detections,
    *,
    image_id: int | str = 0,
    annotation_start: int = 1,
    category_ids: Mapping[int, int] | Sequence[int] | None = None,
) -> list[dict[str, Any]]:
    """COCO annotations; see `Detections.to_coco`."""
    boxes, scores = plain(xyxy_to_xywh(result.xyxy)), plain(result.confidence)
    areas = plain(area(result.xyxy))
    more: list[dict[str, Any]] = [{} for _ in range(len(result))]
    if isinstance(result, InstanceSegmentation):
        areas = [float(value) for value in result.masks.area]
        more = [{"segmentation": item} for item in result.masks.to_rle()]
    if isinstance(result, OrientedDetections):
        areas = plain(result.xywhr[:, 2] * result.xywhr[:, 3])
        more = [{"segmentation": [plain(item.reshape(-1))]} for item in result.corners]
    if isinstance(result, Keypoints):
        more = [_coco_keypoints(points) for points in result.keypoints]
    return [
        {
            "id": annotation_start + row,
            "image_id": image_id,
            "category_id": _category(int(class_id), category_ids),
            "bbox": boxes[row],
            "area": areas[row],
            "iscrowd": 0,
            "score": scores[row],
            **more[row],
        }
        for row, class_id in enumerate(result.class_id)
    ]


def _coco_keypoints(points: NDArray[np.float32]) -> dict[str, Any]:
    """COCO's flat x, y, v: 2 for visible, 1 for a point that is placed but probably hidden."""
    values: list[float] = []
    for x, y, confidence in points:
        values += [float(str(x)), float(str(y)), 2 if confidence >= 0.5 else 1]
    return {"keypoints": values, "num_keypoints": len(points)}


def _category(class_id: int, category_ids: Mapping[int, int] | Sequence[int] | None) -> int:
    if category_ids is None:
        return class_id
    known = class_id in category_ids if isinstance(category_ids, Mapping) else 0 <= class_id < len(category_ids)
    if not known:
        raise OptionError(f"class {class_id} has no category", found=f"{len(category_ids)} category_ids")
    return int(category_ids[class_id])


def prompted_to_coco(
    result: PromptedMasks, image_id: int | str, annotation_start: int, category_id: int
) -> list[dict[str, Any]]:
    """COCO annotations; see `PromptedMasks.to_coco`."""
    columns = (plain(xyxy_to_xywh(result.masks.boxes)), result.masks.area, result.masks.to_rle(), plain(result.scores))
    return [
        {
            "id": annotation_start + row,
            "image_id": image_id,
            "category_id": category_id,
            "bbox": box,
            "area": float(pixels),
            "iscrowd": 0,
            "score": score,
            "segmentation": segmentation,
        }
        for row, (box, pixels, segmentation, score) in enumerate(zip(*columns, strict=True))
    ]


# --- supervision ------------------------------------------------------------------------------------------------------


def import_supervision() -> Any:
    """The module, or an error that says how to install it."""
    try:
        import supervision
    except ImportError as error:
        raise MissingDependencyError(
            "to_supervision() needs the supervision package",
            found=str(error),
            fix='pip install "lensmount[supervision]"',
        ) from error
    return supervision


def to_supervision(result: Detections) -> Any:
    """A supervision object; see `Detections.to_supervision`. It shares no memory with the result."""
    sv = import_supervision()
    data: dict[str, Any] = {"class_name": result.class_name}
    if isinstance(result, Keypoints):
        # The name of the argument changed in supervision 0.29.
        current = "keypoint_confidence" in inspect.signature(sv.KeyPoints.__init__).parameters
        per_point = {"keypoint_confidence" if current else "confidence": result.keypoints[..., 2].copy()}
        if current:
            per_point["detection_confidence"] = result.confidence.copy()
        return sv.KeyPoints(
            xy=result.keypoints[..., :2].copy(), class_id=result.class_id.copy(), data=data, **per_point
        )
    if isinstance(result, OrientedDetections):
        data["xyxyxyxy"] = result.corners
    return sv.Detections(
        xyxy=result.xyxy.copy(),
        confidence=result.confidence.copy(),
        class_id=result.class_id.copy(),
        mask=result.masks.dense() if isinstance(result, InstanceSegmentation) else None,
        data=data,
    )
