"""468 points of a face: in a picture that shows one face, or of the faces that a detector found.

The graph is MediaPipe's `face_landmark` (Apache-2.0): a square picture of one face from 0 to 1, points x, y, z in its
pixels, and a score before the sigmoid that there is a face. A face's part of the picture is, as in MediaPipe's
pipeline, a square around the middle of its box, 1.5 times its longer side, turned so that the eyes lie level.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lensmount.backend import host_array
from lensmount.errors import InputError, ModelFileError
from lensmount.specs import Preprocess
from lensmount_mediapipe.recognise import MESH_SIDE, POINTS, is_mesh
from lensmount_vision.images import import_cv2
from lensmount_vision.models import Detector, Filter, Kept, class_of_task
from lensmount_vision.results import Keypoints

if TYPE_CHECKING:
    from lensmount.contracts import BuildContext, Model
    from lensmount_vision.images import Color, Geometry, Image
    from lensmount_vision.models import Classes
    from lensmount_vision.results import Masks

CONFIDENCE = 0.5
AROUND = 1.5
"""Side of the square that is looked at, in longer sides of a face's box."""

PREPROCESS = Preprocess(size=None, padding_value=0, antialias=True)


@dataclass(frozen=True, slots=True)
class Mesh(Kept):
    """The face of a picture, or none.

    Attributes:
        points: `(n, 468, 2)` float32 x, y in the network's pixels.
    """

    points: NDArray[np.float32]


def build(context: BuildContext) -> Model:
    """Makes the model of the card's task.

    Raises:
        UnsupportedModelError: The task is not one of this architecture.
        ModelFileError: The graph is not MediaPipe's for face landmarks.
    """
    model: Model = class_of_task(context.card, {"keypoint-detection": FaceMesh}, "MediaPipe's face landmarks")(context)
    return model


class FaceMesh(Detector[Filter, Mesh]):
    """Finds 468 points of a face.

    Without `faces` each picture is taken for one face that fills it. With them each face that a detector found is
    looked at by itself.
    """

    names = ("face",)

    def __init__(self, context: BuildContext) -> None:
        session = context.session
        shapes = [spec.shape for spec in session.outputs]
        if len(session.inputs) != 1 or not is_mesh(session.inputs[0].shape, shapes):
            raise ModelFileError(
                f"the graph of {context.card.id!r} is not MediaPipe's for face landmarks",
                found=str([session.inputs[0].shape, *shapes]),
                expected="a picture (1, 192, 192, 3), points (1, 1, 1, 1404), and a score (1, 1, 1, 1)",
            )
        self._points = next(spec.name for spec in session.outputs if spec.shape[-1] == 3 * POINTS)
        self._score = next(spec.name for spec in session.outputs if spec.shape[-1] == 1)
        super().__init__(context, context.package.preprocess or PREPROCESS, confidence=CONFIDENCE)

    def __call__(
        self,
        images: Any,
        *,
        faces: Sequence[Keypoints] | None = None,
        confidence: float | Mapping[str | int, float] | None = None,
        classes: Classes | None = None,
        color: Color | None = None,
    ) -> list[Any]:
        """Finds the points of faces in one or several pictures.

        Args:
            images: A picture or several; see `lensmount_vision.images.load_many`.
            faces: For each picture what a face detector of this plugin gave for it. None where a picture is one face.
            confidence: Lowest score that there is a face, 0..1; None for what the package recommends, else 0.5.
            classes: As for every detector; there is one class, `face`.
            color: Channel order of arrays and tensors, `"bgr"` or `"rgb"`.

        Returns:
            One `Keypoints` result per picture: for each face 468 points x, y in the picture's pixels, without
            visibility, and the box around them. Faces that the network does not see are left out.

        Raises:
            ImageError: A picture cannot be used.
            InputError: `faces` do not fit the pictures, or have no eyes.
            OptionError: An option is out of range, or a class is unknown.
            BackendError: The runtime failed.
        """
        wanted = Filter(**self._wanted(confidence, classes))
        if faces is None:
            return self._detect(images, wanted, color)
        pictures = self.load_images(images, color)
        if len(pictures) != len(faces):
            raise InputError(
                "faces do not fit the pictures", found=str(len(faces)), expected=f"{len(pictures)} results"
            )
        return [self._of_faces(picture, found, wanted) for picture, found in zip(pictures, faces, strict=True)]

    def postprocess(
        self,
        raw: Mapping[str, Any],
        geometries: Sequence[Geometry],
        *,
        confidence: float | Mapping[str | int, float] | None = None,
        classes: Classes | None = None,
    ) -> list[Any]:
        """The network's outputs to results, each picture taken for one face.

        Args:
            raw: Outputs by name, as `forward` returned them.
            geometries: One per picture, as `preprocess` returned them.
            confidence: See `__call__`.
            classes: See `__call__`.

        Returns:
            One result per picture.
        """
        return self._results(raw, geometries, Filter(**self._wanted(confidence, classes)))

    def _of_faces(self, picture: Image, found: Keypoints, wanted: Filter) -> Keypoints:
        if found.image_size != picture.size:
            raise InputError("faces are of another picture", found=str(found.image_size), expected=str(picture.size))
        cuts = [square(box, points) for box, points in zip(found.xyxy, eyes(found), strict=True)]
        crops = [cut(picture.pixels, matrix) for matrix in cuts]
        results: list[Any] = self._detect(crops, wanted, picture.color) if crops else []
        rows = [(result, back) for result, back in zip(results, cuts, strict=True) if len(result)]
        points = [result.keypoints[0] @ back[:, :2].T + back[:, 2] for result, back in rows]
        table = np.array(points, np.float32).reshape(-1, POINTS, 2)
        return Keypoints(
            xyxy=np.concatenate([table.min(axis=1), table.max(axis=1)], axis=1),
            confidence=np.array([result.confidence[0] for result, _ in rows], np.float32),
            class_id=np.zeros(len(rows), np.int64),
            class_names=self.names,
            image_size=picture.size,
            path=picture.path,
            keypoints=table,
        )

    def _choose(self, raw: Mapping[str, Any], geometries: Sequence[Geometry], wanted: Filter) -> Sequence[Mesh]:
        points, scores = (host_array(raw[name]).astype(np.float64) for name in (self._points, self._score))
        sure = (1 / (1 + np.exp(-np.clip(scores.reshape(-1), -100, 100)))).astype(np.float32)
        keep = (sure >= wanted.confidence) & (wanted.classes is None or 0 in wanted.classes)
        places = points.reshape(-1, POINTS, 3)[..., :2].astype(np.float32)
        boxes = np.concatenate([places.min(axis=1), places.max(axis=1)], axis=1)
        made = []
        for i in range(len(geometries)):
            row = slice(i, i + int(keep[i]))
            made.append(Mesh(boxes[row], sure[row], np.zeros(int(keep[i]), np.int64), places[row]))
        return made

    def _result(
        self, kept: Mesh, boxes: NDArray[Any], masks: Masks | None, geometry: Geometry, path: str | None
    ) -> Keypoints:
        return self._made(Keypoints, kept, boxes, geometry, path, keypoints=geometry.points_to_image(kept.points))


def eyes(found: Keypoints) -> NDArray[np.float64]:
    """Right and left eye of each face `(n, 2, 2)`, x and y.

    Raises:
        InputError: The result names no eyes.
    """
    try:
        places = [found.keypoint_names.index(name) for name in ("right_eye", "left_eye")]
    except ValueError:
        raise InputError(
            "faces have no points right_eye and left_eye",
            found=", ".join(found.keypoint_names[:8]) or "points without names",
            expected="results of mediapipe/face-full or another of its face detectors",
        ) from None
    return found.keypoints[:, places, :2].astype(np.float64)


def square(box: NDArray[Any], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The map `(2, 3)` from pixels of the network to those of the picture, both counted from the pixels' corners.

    Args:
        box: `(4,)` xyxy of the face.
        points: Right and left eye `(2, 2)`.
    """
    middle = (box[:2] + box[2:]).astype(np.float64) / 2
    side = AROUND * max(float((box[2:] - box[:2]).max()), 1.0)
    angle = np.arctan2(points[1, 1] - points[0, 1], points[1, 0] - points[0, 0])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * (side / MESH_SIDE)
    return np.concatenate([turn, (middle - turn @ (MESH_SIDE / 2, MESH_SIDE / 2))[:, None]], axis=1)


def cut(pixels: NDArray[np.uint8], matrix: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The part of a picture that the network sees `(192, 192, C)`, black outside the picture."""
    cv2 = import_cv2()
    shrink = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    corners = (
        np.array([(0, 0), (MESH_SIDE, 0), (0, MESH_SIDE), (MESH_SIDE, MESH_SIDE)]) @ matrix[:, :2].T + matrix[:, 2]
    )
    height, width = pixels.shape[:2]
    margin = 2 * shrink + 2  # what the kernels below reach
    x0, y0 = (np.floor(corners.min(axis=0) - margin)).clip(0, (width, height)).astype(int)
    x1, y1 = (np.ceil(corners.max(axis=0) + margin)).clip(0, (width, height)).astype(int)
    part = np.ascontiguousarray(pixels[y0:y1, x0:x1])
    if not part.size:
        return np.zeros((MESH_SIDE, MESH_SIDE, *pixels.shape[2:]), np.uint8)
    if shrink > 1.5:  # averaged first where several pixels become one
        part = cv2.GaussianBlur(part, (0, 0), (shrink - 1) / 2)
    centres = matrix.copy()  # OpenCV counts from the pixels' centres
    centres[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5 - (x0, y0)
    made: NDArray[np.uint8] = cv2.warpAffine(
        part, centres, (MESH_SIDE, MESH_SIDE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    )
    return made
