"""YOLO models on any backend: what all share, detection, instance segmentation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lensmount.backend.dtypes import host_array
from lensmount.backend.tensors import is_tensor
from lensmount.errors import OptionError, UnsupportedModelError
from lensmount.specs import ModelCard, ModelPackage, Preprocess
from lensmount.specs.options import class_ids, class_thresholds, flag, fraction, positive
from lensmount_vision.models.single_graph import SingleGraph
from lensmount_vision.results.kinds import Detections, InstanceSegmentation
from lensmount_vision.results.mask_decoding import decode_prototypes
from lensmount_yolo.head import Head, read_head
from lensmount_yolo.metadata import GraphMetadata, parse
from lensmount_yolo.options import LoadOptions
from lensmount_yolo.postprocess import Filter, Kept, keep_boxes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lensmount.contracts.model import BuildContext, Model
    from lensmount_vision.images.geometry import Geometry
    from lensmount_vision.images.image import Color
    from lensmount_vision.results.masks import Masks

CONFIDENCE = 0.25
IOU_THRESHOLD = 0.7
MAX_DETECTIONS = 300
BATCH = 16  # pictures prepared at once when the caller passes more

Classes = str | int | Iterable[str | int]


def build(context: BuildContext) -> Model:
    """Makes the model of the card's task.

    Raises:
        UnsupportedModelError: The task is not one of this architecture.
        ModelFileError: The graph's outputs do not fit the task.
    """
    from lensmount_yolo.classify import YoloClassifier
    from lensmount_yolo.oriented import YoloOrientedDetector
    from lensmount_yolo.pose import YoloPose

    kinds: dict[str, Callable[[BuildContext], Model]] = {
        "object-detection": YoloDetector,
        "instance-segmentation": YoloSegmenter,
        "keypoint-detection": YoloPose,
        "oriented-object-detection": YoloOrientedDetector,
        "classification": YoloClassifier,
    }
    kind = kinds.get(context.card.task)
    if kind is None:
        raise UnsupportedModelError(
            f"{context.card.id!r} has a task that YOLO models here do not have",
            found=context.card.task,
            expected=", ".join(kinds),
        )
    return kind(context)


def class_names(context: BuildContext, metadata: GraphMetadata) -> tuple[str, ...]:
    """Names embedded in the graph, else those of `class_names.txt`, else the card's."""
    if metadata.names:
        return metadata.names
    file = context.files.get("class_names.txt")
    if file is not None:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
        return tuple(line.strip() for line in lines if line.strip())
    return context.card.classes


def resolve_preprocess(package: ModelPackage, options: LoadOptions, metadata: GraphMetadata) -> Preprocess:
    """The package's own geometry, else ultralytics' letterbox at the exported size; a size asked for wins."""
    spec = package.preprocess or Preprocess(size=metadata.size or (640, 640))
    if options.size is not None:
        spec = replace(spec, size=options.size)
    if options.antialias is not None:
        spec = replace(spec, antialias=options.antialias)
    stride = metadata.stride or 32
    if options.rectangular:
        if spec.resize != "letterbox":
            raise OptionError(
                "rectangular does not go with this package", found=f"resize={spec.resize!r}", expected="letterbox"
            )
        spec = replace(spec, rectangular=True, divisible_by=stride)
    if options.size is not None and spec.size is not None and any(side % stride for side in spec.size):
        raise OptionError(
            "input_size does not go with the network", found=str(spec.size), expected=f"multiples of {stride}"
        )
    return spec


class YoloDetector(SingleGraph):
    """Finds objects and their boxes.

    Call it on pictures, or take the three stages apart: `preprocess`, `forward`, `postprocess`.
    """

    extra = 0
    rotated = False

    def __init__(self, context: BuildContext) -> None:
        metadata = parse(context.session.metadata)
        options = context.options or LoadOptions()
        names = class_names(context, metadata)
        end2end = context.package.setting("fused_nms", metadata.end2end) or metadata.end2end
        outputs = [(spec.name, spec.shape) for spec in context.session.outputs]
        self.head: Head = read_head(outputs, names=len(names), extra=self.extra_values(metadata), end2end=end2end)
        self.names = names or tuple(f"class_{i}" for i in range(self.head.classes or 0))
        self._options = options
        spec = resolve_preprocess(context.package, options, metadata)
        super().__init__(context, spec, reduced_decode=options.reduced_decode)
        if not context.card.classes:
            self._card: ModelCard = replace(context.card, classes=self.names)
        recommended = {**dict(context.card.recommended), **dict(context.package.recommended)}
        self._confidence: float = recommended.get("confidence", CONFIDENCE)
        self._per_class = dict(recommended.get("per_class_confidence", ()))
        self._removed: tuple[str, ...] = tuple(context.package.setting("removed_classes", ()))

    def extra_values(self, metadata: GraphMetadata) -> int:
        """Values per box after the classes."""
        return self.extra

    def __call__(
        self,
        images: Any,
        *,
        confidence: float | Mapping[str | int, float] | None = None,
        iou_threshold: float = IOU_THRESHOLD,
        max_detections: int = MAX_DETECTIONS,
        class_agnostic: bool = False,
        classes: Classes | None = None,
        color: Color | None = None,
    ) -> list[Any]:
        """Finds objects in one or several pictures.

        Args:
            images: A picture or several: paths, URLs, bytes, PIL images, arrays, tensors; see
                `lensmount_vision.images.loading.load_many`.
            confidence: Lowest score, 0..1, or one per class (`{"dog": 0.5}`); None for what the package recommends,
                else 0.25.
            iou_threshold: Overlap, 0..1, above which the weaker of two boxes is dropped. Heads without suppression
                (v10, 26) have no use for it.
            max_detections: Most objects per picture.
            class_agnostic: Drop overlapping boxes of different classes too.
            classes: Names or ids of the classes wanted; None for all.
            color: Channel order of arrays and tensors, `"bgr"` or `"rgb"`.

        Returns:
            One result per picture, best first.

        Raises:
            ImageError: A picture cannot be used.
            OptionError: An option is out of range, or a class is unknown.
            BackendError: The runtime failed.
        """
        wanted = self._filter(confidence, iou_threshold, max_detections, class_agnostic, classes)
        pictures = self.load_images(images, color)
        results: list[Any] = [None] * len(pictures)
        for group in self.batches(pictures, BATCH):
            raw, geometries = self.infer_pictures([pictures[i] for i in group])
            paths = [pictures[i].path for i in group]
            for i, result in zip(group, self._results(raw, geometries, wanted, paths), strict=True):
                results[i] = result
        return results

    def postprocess(
        self,
        raw: Mapping[str, Any],
        geometries: Sequence[Geometry],
        *,
        confidence: float | Mapping[str | int, float] | None = None,
        iou_threshold: float = IOU_THRESHOLD,
        max_detections: int = MAX_DETECTIONS,
        class_agnostic: bool = False,
        classes: Classes | None = None,
    ) -> list[Any]:
        """The network's outputs to results; the options are those of a call.

        Args:
            raw: Outputs by name, as `forward` returned them: arrays, or tensors on the device.
            geometries: One per picture, as `preprocess` returned them.
            confidence: See `__call__`.
            iou_threshold: See `__call__`.
            max_detections: See `__call__`.
            class_agnostic: See `__call__`.
            classes: See `__call__`.

        Returns:
            One result per picture.
        """
        wanted = self._filter(confidence, iou_threshold, max_detections, class_agnostic, classes)
        return self._results(raw, geometries, wanted, [None] * len(geometries))

    def _filter(
        self,
        confidence: float | Mapping[str | int, float] | None,
        iou_threshold: float,
        max_detections: int,
        class_agnostic: bool,
        classes: Classes | None,
    ) -> Filter:
        if confidence is None:
            confidence = self._per_class or self._confidence
        lowest, table = class_thresholds(confidence, self.names, self._confidence)
        allowed = class_ids(classes, self.names)
        if self._removed:
            kept = [i for i, name in enumerate(self.names) if name not in self._removed]
            allowed = np.array(kept if allowed is None else [i for i in allowed if i in kept], np.int64)
        return Filter(
            confidence=lowest,
            per_class=table,
            iou_threshold=fraction("iou_threshold", iou_threshold),
            max_detections=positive("max_detections", max_detections),
            max_candidates=self._options.max_candidates,
            class_agnostic=flag("class_agnostic", class_agnostic),
            classes=allowed,
        )

    def _results(
        self,
        raw: Mapping[str, Any],
        geometries: Sequence[Geometry],
        wanted: Filter,
        paths: Sequence[str | None],
    ) -> list[Any]:
        main = raw[self.head.output]
        if is_tensor(main) and self.head.kind == "raw":
            from lensmount_yolo import on_device

            every = on_device.keep_boxes(main, self.head, wanted, geometries, rotated=self.rotated)
        else:  # final rows are few: they come to the host as they are
            main = host_array(main).astype(np.float32, copy=False)
            every = [self._keep(main[i], wanted, geometry) for i, geometry in enumerate(geometries)]
        boxes = [geometry.boxes_to_image(kept.boxes) for kept, geometry in zip(every, geometries, strict=True)]
        masks = self._masks(every, boxes, raw, geometries)
        return [self._result(*row) for row in zip(every, boxes, masks, geometries, paths, strict=True)]

    def _keep(self, output: NDArray[Any], wanted: Filter, geometry: Geometry) -> Kept:
        return keep_boxes(output, self.head, wanted, geometry)

    def _masks(
        self,
        kept: Sequence[Kept],
        boxes: Sequence[NDArray[Any]],
        raw: Mapping[str, Any],
        geometries: Sequence[Geometry],
    ) -> Sequence[Masks | None]:
        """Masks of each picture, for tasks that have them; `boxes` are in image pixels."""
        return [None] * len(kept)

    def _result(
        self, kept: Kept, boxes: NDArray[Any], masks: Masks | None, geometry: Geometry, path: str | None
    ) -> Any:
        return Detections(
            xyxy=boxes,
            confidence=kept.scores,
            class_id=kept.class_ids,
            class_names=self.names,
            image_size=geometry.original_size,
            path=path,
        )


class YoloSegmenter(YoloDetector):
    """Finds objects, their boxes and their masks."""

    extra = 32

    def _masks(
        self,
        kept: Sequence[Kept],
        boxes: Sequence[NDArray[Any]],
        raw: Mapping[str, Any],
        geometries: Sequence[Geometry],
    ) -> Sequence[Masks | None]:
        if self.head.prototypes is None:
            raise UnsupportedModelError(
                f"{self.card.id!r} is for segmentation, but its graph gives no mask prototypes",
                found=", ".join(raw),
                expected="a second output of shape (B, 32, h, w)",
            )
        prototypes = raw[self.head.prototypes]
        if is_tensor(prototypes):
            from lensmount_vision.device import masks

            return masks.decode_prototypes([part.extra for part in kept], prototypes, boxes, geometries)
        return [
            decode_prototypes(part.extra, prototypes[i].astype(np.float32, copy=False), boxes[i], geometry)
            for i, (part, geometry) in enumerate(zip(kept, geometries, strict=True))
        ]

    def _result(
        self, kept: Kept, boxes: NDArray[Any], masks: Masks | None, geometry: Geometry, path: str | None
    ) -> Any:
        assert masks is not None
        return InstanceSegmentation(
            xyxy=boxes,
            confidence=kept.scores,
            class_id=kept.class_ids,
            class_names=self.names,
            image_size=geometry.original_size,
            path=path,
            masks=masks,
        )
