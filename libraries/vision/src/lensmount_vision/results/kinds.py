"""What models answer: typed numpy arrays on the host, one result per image.

Every result checks its arrays when it is made, casts them to the dtypes it names, and is not changed afterwards.
`result[key]` chooses rows (a number, slice, index array or bool array) and gives the same type back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lensmount.errors import InputError
from lensmount_vision.results.detections import Detections, InstanceSegmentation
from lensmount_vision.results.image_results import Classification, Embeddings, PromptedMasks
from lensmount_vision.results.keypoints import KeypointDetections, Keypoints
from lensmount_vision.results.masks import Masks
from lensmount_vision.results.oriented import OrientedDetections
from lensmount_vision.results.video_results import VideoMasks

__all__ = [
    "Classification",
    "Detections",
    "Embeddings",
    "InstanceSegmentation",
    "KeypointDetections",
    "Keypoints",
    "Masks",
    "OrientedDetections",
    "PromptedMasks",
    "Result",
    "VideoMasks",
    "from_dict",
]

Result = Detections | Classification | Embeddings | PromptedMasks

_KINDS: dict[str, type[Result]] = {
    result.kind: result
    for result in (
        Detections,
        InstanceSegmentation,
        Keypoints,
        OrientedDetections,
        Classification,
        Embeddings,
        PromptedMasks,
        VideoMasks,
    )
}


def from_dict(data: Mapping[str, Any]) -> Result:
    """The result that `to_dict` was called on.

    Raises:
        InputError: The dict is of no known type, or lacks something.
    """
    kind = data.get("type") if isinstance(data, Mapping) else None
    result = _KINDS.get(kind) if isinstance(kind, str) else None
    if result is None:
        raise InputError("the dict is no result", found=f"type {kind!r}", expected=", ".join(_KINDS))
    try:
        return result(**result.fields_of(data))
    except InputError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"the dict is no whole {kind} result", found=f"{type(error).__name__}: {error}") from error
