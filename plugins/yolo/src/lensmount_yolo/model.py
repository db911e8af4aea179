"""YOLO models on any backend: what all with boxes share, detection, instance segmentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lensmount.backend.tensors import host_array, is_tensor
from lensmount.errors import OptionError, UnsupportedModelError
from lensmount.specs import ModelPackage, Preprocess
from lensmount.specs.options import flag, fraction, positive
from lensmount_vision.models.detector import Detector, read_class_names
from lensmount_vision.results.mask_decoding import decode_prototypes
from lensmount_yolo.head import Head, read_head
from lensmount_yolo.metadata import GraphMetadata, parse
from lensmount_yolo.names import LAYOUT, Placed, place
from lensmount_yolo.options import LoadOptions
from lensmount_yolo.postprocess import Filter, Kept, keep_boxes, take

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lensmount.contracts.model import BuildContext
    from lensmount.specs import ModelCard
    from lensmount_vision.images.geometry import Geometry
    from lensmount_vision.images.image import Color
    from lensmount_vision.models.detector import Classes
    from lensmount_vision.results.masks import Masks

CONFIDENCE = 0.25
IOU_THRESHOLD = 0.7
MAX_DETECTIONS = 300


def class_names(context: BuildContext, metadata: GraphMetadata) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names in the graph, else those of `class_names.txt`, else the card's; ids as `GraphMetadata` has them."""
    if metadata.names:
        return metadata.names, metadata.ids
    return read_class_names(context) or context.card.classes, ()


def placed_names(
    context: BuildContext, named: tuple[tuple[str, ...], tuple[int, ...]], columns: int | None, options: LoadOptions
) -> tuple[Placed, ModelCard]:
    """Which column of the scores has which name, and the card with these names and the line that says so.

    Raises:
        ModelFileError: The names do not fit the columns, or fit them in two ways.
        OptionError: `classes` or `class_offset` of the load do not fit.
    """
    where = context.card.id
    placed = place(*named, columns, where, classes=options.classes, offset=options.class_offset)
    notes = tuple(note for note in context.card.notes if not note.startswith(LAYOUT))
    told = options.classes is not None or options.class_offset is not None
    classes = placed.names if told or not context.card.classes else context.card.classes
    return placed, replace(context.card, classes=classes, notes=(*notes, f"{LAYOUT}{placed.layout}"))


def graph_channels(context: BuildContext, metadata: GraphMetadata) -> int:
    """Channels of the pictures that the network takes: as the graph fixes them, else as it says, else 3."""
    inputs = context.session.inputs
    place = 3 if context.package.format == "tflite" else 1
    fixed = inputs[0].shape[place] if len(inputs) == 1 and len(inputs[0].shape) == 4 else None
    return fixed if isinstance(fixed, int) else metadata.channels or 3


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


def in_pixels(main: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Raw predictions `(B, 4 + …, N)` with boxes in network pixels, whatever they are in.

    Ultralytics' TFLite exports give shares of the picture's sides, early ones (8.0) pixels, and no file says which. The
    numbers do: each cell has a box with its centre near it, so that the last ones are far beyond 2 in pixels.
    """
    if not main.size or np.abs(main[:, :2]).max() > 2:
        return main
    height, width = size
    factors = np.ones(main.shape[1], np.float32)
    factors[:4] = (width, height, width, height)
    made: NDArray[np.float32] = main * factors[:, None]
    return made


class YoloDetector(Detector[Filter, Kept]):
    """Finds objects and their boxes.

    Call it on pictures, or take the three stages apart: `preprocess`, `forward`, `postprocess`.
    """

    extra = 0
    rotated = False
    suppression = "greedy"

    def __init__(self, context: BuildContext) -> None:
        metadata = parse(context.session.metadata)
        options = context.options or LoadOptions()
        named = class_names(context, metadata)
        end2end = context.package.setting("fused_nms", metadata.end2end) or metadata.end2end
        outputs = [(spec.name, spec.shape) for spec in context.session.outputs]
        self.head: Head = read_head(
            outputs, names=len(options.classes or named[0]), extra=self.extra_values(metadata), end2end=end2end
        )
        placed, card = placed_names(context, named, self.head.classes if self.head.kind == "raw" else None, options)
        self.names = placed.names
        self._options = options
        spec = resolve_preprocess(context.package, options, metadata)
        if context.package.preprocess is None:
            spec = replace(spec, channels=graph_channels(context, metadata))
        super().__init__(context, spec, confidence=CONFIDENCE, reduced_decode=options.reduced_decode)
        self._card = card

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
        return self._detect(images, wanted, color)

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
        return self._results(raw, geometries, wanted)

    def _filter(
        self,
        confidence: float | Mapping[str | int, float] | None,
        iou_threshold: float,
        max_detections: int,
        class_agnostic: bool,
        classes: Classes | None,
    ) -> Filter:
        return Filter(
            **self._wanted(confidence, classes),
            iou_threshold=fraction("iou_threshold", iou_threshold),
            max_detections=positive("max_detections", max_detections),
            max_candidates=self._options.max_candidates,
            class_agnostic=flag("class_agnostic", class_agnostic),
            fast=(self._options.suppression or self.suppression) == "fast",
        )

    def _choose(self, raw: Mapping[str, Any], geometries: Sequence[Geometry], wanted: Filter) -> Sequence[Kept]:
        main = raw[self.head.output]
        if is_tensor(main) and self.head.kind == "raw":
            from lensmount_yolo import on_device

            return on_device.keep_boxes(main, self.head, wanted, geometries, rotated=self.rotated)
        # Final rows are few: they come to the host as they are.
        main = host_array(main).astype(np.float32, copy=False)
        if self._package.format == "tflite" and self.head.kind == "raw":
            main = in_pixels(main, geometries[0].network_size)
        return [self._keep(main[i], wanted, geometry) for i, geometry in enumerate(geometries)]

    def _keep(self, output: NDArray[Any], wanted: Filter, geometry: Geometry) -> Kept:
        """The objects of one picture, chosen on the host."""
        return keep_boxes(output, self.head, wanted, geometry)


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
        if masks is not None and not self._options.empty_masks:
            seen = np.flatnonzero(masks.area)
            if len(seen) < len(masks):
                kept, boxes, masks = take(kept, seen), boxes[seen], masks[seen]
        return super()._result(kept, boxes, masks, geometry, path)
