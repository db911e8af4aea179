"""The face detector: BlazeFace on any backend that opens its file or the graph made from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lensmount.backend import host_array
from lensmount.errors import ModelFileError
from lensmount.specs import Preprocess
from lensmount.specs.options import fraction, positive
from lensmount_mediapipe.decoding import LANDMARKS, FaceFilter, Faces, decode
from lensmount_mediapipe.recognise import VALUES, layout
from lensmount_vision.models import Detector, class_of_task
from lensmount_vision.results import Keypoints

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lensmount.contracts import BuildContext, Model
    from lensmount_vision.images import Color, Geometry
    from lensmount_vision.models import Classes
    from lensmount_vision.results import Masks

CONFIDENCE = 0.5
IOU_THRESHOLD = 0.3

#: MediaPipe pads with black and gives values from -1 to 1. It takes single pixels where it shrinks a picture; here they
#: are averaged, which finds more of small faces and does not depend on a shift by a pixel.
PREPROCESS = Preprocess(size=None, padding_value=0, antialias=True, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def build(context: BuildContext) -> Model:
    """Makes the model of the card's task.

    Raises:
        UnsupportedModelError: The task is not one of this architecture.
        ModelFileError: The graph is no BlazeFace's.
    """
    model: Model = class_of_task(context.card, {"keypoint-detection": FaceDetector}, "BlazeFace")(context)
    return model


class FaceDetector(Detector[FaceFilter, Faces]):
    """Finds faces: a box and six landmarks each.

    Call it on pictures, or take the three stages apart: `preprocess`, `forward`, `postprocess`.
    """

    names = ("face",)

    def __init__(self, context: BuildContext) -> None:
        session = context.session
        shape = session.inputs[0].shape if len(session.inputs) == 1 else ()
        found = layout(shape, [spec.shape for spec in session.outputs])
        if found is None:
            raise ModelFileError(
                f"the graph of {context.card.id!r} is no BlazeFace's",
                found=str([spec.shape for spec in (*session.inputs, *session.outputs)]),
                expected="a picture (1, S, S, 3), and of N anchors the values (1, N, 16) and scores (1, N, 1)",
            )
        self._side, _ = found
        self._values = next(spec.name for spec in session.outputs if spec.shape[2] == VALUES)
        self._scores = next(spec.name for spec in session.outputs if spec.shape[2] == 1)
        super().__init__(context, context.package.preprocess or PREPROCESS, confidence=CONFIDENCE)

    def __call__(
        self,
        images: Any,
        *,
        confidence: float | Mapping[str | int, float] | None = None,
        iou_threshold: float = IOU_THRESHOLD,
        max_detections: int | None = None,
        classes: Classes | None = None,
        color: Color | None = None,
    ) -> list[Any]:
        """Finds faces in one or several pictures.

        Args:
            images: A picture or several: paths, URLs, bytes, PIL images, arrays, tensors; see
                `lensmount_vision.images.load_many`. Pictures that a file says are turned are turned back.
            confidence: Lowest score, 0..1; None for what the package recommends, else 0.5.
            iou_threshold: Overlap, 0..1, above which boxes are taken for the same face: their mean is given, weighted
                by their scores.
            max_detections: Most faces per picture; None for all.
            classes: As for every detector; there is one class, `face`.
            color: Channel order of arrays and tensors, `"bgr"` or `"rgb"`.

        Returns:
            One `Keypoints` result per picture, best face first; points in the order of its `keypoint_names`, in the
            picture's pixels, without visibility. They may lie outside the picture where a face is cut off.

        Raises:
            ImageError: A picture cannot be used.
            OptionError: An option is out of range, or a class is unknown.
            BackendError: The runtime failed.
        """
        return self._detect(images, self._filter(confidence, iou_threshold, max_detections, classes), color)

    def postprocess(
        self,
        raw: Mapping[str, Any],
        geometries: Sequence[Geometry],
        *,
        confidence: float | Mapping[str | int, float] | None = None,
        iou_threshold: float = IOU_THRESHOLD,
        max_detections: int | None = None,
        classes: Classes | None = None,
    ) -> list[Any]:
        """The network's outputs to results; the options are those of a call.

        Args:
            raw: Outputs by name, as `forward` returned them.
            geometries: One per picture, as `preprocess` returned them.
            confidence: See `__call__`.
            iou_threshold: See `__call__`.
            max_detections: See `__call__`.
            classes: See `__call__`.

        Returns:
            One result per picture.
        """
        return self._results(raw, geometries, self._filter(confidence, iou_threshold, max_detections, classes))

    def _filter(
        self,
        confidence: float | Mapping[str | int, float] | None,
        iou_threshold: float,
        max_detections: int | None,
        classes: Classes | None,
    ) -> FaceFilter:
        return FaceFilter(
            **self._wanted(confidence, classes),
            iou_threshold=fraction("iou_threshold", iou_threshold),
            max_detections=None if max_detections is None else positive("max_detections", max_detections),
        )

    def _choose(self, raw: Mapping[str, Any], geometries: Sequence[Geometry], wanted: FaceFilter) -> Sequence[Faces]:
        values, scores = (host_array(raw[name]) for name in (self._values, self._scores))
        return [
            decode(
                values[i].astype(np.float32, copy=False), scores[i].astype(np.float32, copy=False), self._side, wanted
            )
            for i in range(len(geometries))
        ]

    def _result(
        self, kept: Faces, boxes: NDArray[Any], masks: Masks | None, geometry: Geometry, path: str | None
    ) -> Keypoints:
        return self._made(
            Keypoints,
            kept,
            boxes,
            geometry,
            path,
            keypoints=geometry.points_to_image(kept.points),
            keypoint_names=LANDMARKS,
        )
