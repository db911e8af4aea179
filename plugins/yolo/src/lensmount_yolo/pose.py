"""Keypoint detection."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lensmount_vision.results.kinds import KeypointDetections
from lensmount_yolo.metadata import GraphMetadata, parse
from lensmount_yolo.model import YoloDetector
from lensmount_yolo.postprocess import Kept

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lensmount.contracts.model import BuildContext
    from lensmount_vision.images.geometry import Geometry
    from lensmount_vision.results.masks import Masks

#: COCO's keypoints of a person, the points of ultralytics' own pose models, and the lines that join them.
PERSON = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip
SKELETON = (
    (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8), (7, 9), (8, 10),
    (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
)  # fmt: skip


class YoloPose(YoloDetector):
    """Finds objects, their boxes and their keypoints."""

    def __init__(self, context: BuildContext) -> None:
        self.keypoints = (17, 3)
        super().__init__(context)
        self._points = _names_of_points(parse(context.session.metadata), self.keypoints[0], self.names)
        if self._points.note:
            self._card = replace(self._card, notes=(*self._card.notes, self._points.note))

    def extra_values(self, metadata: GraphMetadata) -> int:
        """Values of all keypoints; 17 of three values where the file does not say."""
        self.keypoints = metadata.keypoints or (17, 3)
        return self.keypoints[0] * self.keypoints[1]

    def _result(
        self, kept: Kept, boxes: NDArray[Any], masks: Masks | None, geometry: Geometry, path: str | None
    ) -> KeypointDetections:
        count, values = self.keypoints
        table = kept.extra.reshape(len(kept.scores), count, values)
        points = np.concatenate((geometry.points_to_image(table[:, :, :2], clip=True), table[:, :, 2:]), axis=2)
        return self._made(
            KeypointDetections,
            kept,
            boxes,
            geometry,
            path,
            keypoints=points,
            keypoint_names=self._points.names,
            skeleton=self._points.skeleton,
        )


@dataclass(frozen=True, slots=True)
class _Points:
    """Names of the points and the lines between them; a note for the card where a file says more than results hold."""

    names: tuple[str, ...]
    skeleton: tuple[tuple[int, int], ...]
    note: str = ""


def _names_of_points(metadata: GraphMetadata, count: int, classes: tuple[str, ...]) -> _Points:
    """What the file says; of a network that finds persons alone, by 17 points, COCO's where it says nothing."""
    given = metadata.keypoint_names
    person = count == len(PERSON) and set(classes) == {"person"}
    if len(given) > 1:
        note = f"keypoint names: {len(given)} lists, of different classes; results have numbers of points alone"
        return _Points((), metadata.skeleton or (), note)
    names = given[0] if given else PERSON if person else ()
    skeleton = metadata.skeleton
    if skeleton is None:
        skeleton = SKELETON if names == PERSON else ()
    return _Points(names, skeleton)
