"""RF-DETR models: detection and instance segmentation on any backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lensmount.backend.tensors import is_tensor
from lensmount.errors import ModelFileError, OptionError, UnsupportedModelError
from lensmount.specs import ModelPackage, Preprocess
from lensmount.specs.options import positive
from lensmount_rfdetr.head import Head, read_head
from lensmount_rfdetr.names import LAYOUT, Placed, chosen, from_metadata, place, said_from_metadata
from lensmount_rfdetr.options import LoadOptions
from lensmount_rfdetr.postprocess import Filter, Kept, keep_pairs
from lensmount_rfdetr.settings import PREPROCESS
from lensmount_vision.models.detector import Detector, read_class_names
from lensmount_vision.models.loaded import class_of_task
from lensmount_vision.models.processors import with_pixels
from lensmount_vision.results.mask_decoding import resize_logits_in_boxes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lensmount.contracts.model import BuildContext, Model
    from lensmount_vision.images.geometry import Geometry
    from lensmount_vision.images.image import Color
    from lensmount_vision.models.detector import Classes
    from lensmount_vision.results.masks import Masks

CONFIDENCE = 0.5


def build(context: BuildContext) -> Model:
    """Makes the model of the card's task.

    Raises:
        UnsupportedModelError: The task is not one of this architecture.
        ModelFileError: The graph's outputs do not fit the task.
    """
    kinds = {"object-detection": RFDETRDetector, "instance-segmentation": RFDETRSegmenter}
    return class_of_task(context.card, kinds, "RF-DETR")(context)


def _preprocess(package: ModelPackage, options: LoadOptions, metadata: Mapping[str, str]) -> Preprocess:
    """The package's own geometry, else the training transform; a size that was asked for wins."""
    spec = package.preprocess or with_pixels(PREPROCESS, metadata)
    if options.size is not None and package.format != "torch":
        raise OptionError(
            "input_size is for weights of format 'torch': a graph's size is fixed",
            found=f"package {package.name!r} of format {package.format!r}",
            fix="leave input_size out, or load with backend='torch'",
        )
    return spec if options.size is None else replace(spec, size=options.size)


def _names(context: BuildContext, columns: int) -> Placed:
    """Names of `class_names.txt`, else those in the graph or checkpoint, else the card's, else by the columns."""
    options: LoadOptions = context.options or LoadOptions()
    metadata, where = context.session.metadata, context.card.id
    said = chosen(
        said_from_metadata(metadata),
        columns,
        where,
        package=read_class_names(context),
        graph=from_metadata(metadata),
        card=context.card.classes,
    )
    return place(said, columns, where, classes=options.classes, offset=options.class_offset)


class RFDETRDetector(Detector[Filter, Kept]):
    """Finds objects and their boxes.

    Call it on pictures, or take the three stages apart: `preprocess`, `forward`, `postprocess`.
    """

    def __init__(self, context: BuildContext) -> None:
        self.head: Head = read_head([(spec.name, spec.shape) for spec in context.session.outputs])
        self._options: LoadOptions = context.options or LoadOptions()
        spec = _preprocess(context.package, self._options, context.session.metadata)
        super().__init__(context, spec, confidence=CONFIDENCE, reduced_decode=self._options.reduced_decode)
        if self.preprocess_spec.size is None:
            raise ModelFileError(
                f"the graph of {context.card.id!r} leaves its input size open, and its package names none",
                expected="a fixed height and width: RF-DETR runs at one size",
            )
        columns = self.head.columns
        if columns is None:
            raise ModelFileError(
                f"the graph of {context.card.id!r} does not say how many classes it has", found=self.head.logits
            )
        placed = _names(context, columns)
        self.names = placed.names
        notes = tuple(note for note in context.card.notes if not note.startswith(LAYOUT))
        notes = (*notes, f"{LAYOUT}{placed.layout}")
        self._card = replace(context.card, classes=self.names, notes=notes)

    def __call__(
        self,
        images: Any,
        *,
        confidence: float | Mapping[str | int, float] | None = None,
        max_detections: int | None = None,
        classes: Classes | None = None,
        color: Color | None = None,
    ) -> list[Any]:
        """Finds objects in one or several pictures.

        Args:
            images: A picture or several: paths, URLs, bytes, PIL images, arrays, tensors; see
                `lensmount_vision.images.loading.load_many`.
            confidence: Lowest score, 0..1, or one per class (`{"dog": 0.5}`); None for what the package recommends,
                else 0.5.
            max_detections: Most objects per picture; None for as many as the network has queries (300; 100 to 300
                with masks).
            classes: Names or ids of the classes wanted; None for all.
            color: Channel order of arrays and tensors, `"bgr"` or `"rgb"`.

        Returns:
            One result per picture, best first. Ids of networks trained on COCO are COCO's category ids, 1 to 90.

        Raises:
            ImageError: A picture cannot be used.
            OptionError: An option is out of range, or a class is unknown.
            BackendError: The runtime failed.
        """
        wanted = self._filter(confidence, max_detections, classes)
        return self._detect(images, wanted, color)

    def postprocess(
        self,
        raw: Mapping[str, Any],
        geometries: Sequence[Geometry],
        *,
        confidence: float | Mapping[str | int, float] | None = None,
        max_detections: int | None = None,
        classes: Classes | None = None,
    ) -> list[Any]:
        """The network's outputs to results; the options are those of a call.

        Args:
            raw: Outputs by name, as `forward` returned them: arrays, or tensors on the device.
            geometries: One per picture, as `preprocess` returned them.
            confidence: See `__call__`.
            max_detections: See `__call__`.
            classes: See `__call__`.

        Returns:
            One result per picture.
        """
        wanted = self._filter(confidence, max_detections, classes)
        return self._results(raw, geometries, wanted)

    def _filter(
        self,
        confidence: float | Mapping[str | int, float] | None,
        max_detections: int | None,
        classes: Classes | None,
    ) -> Filter:
        return Filter(
            **self._wanted(confidence, classes),
            max_detections=None if max_detections is None else positive("max_detections", max_detections),
        )

    def _choose(self, raw: Mapping[str, Any], geometries: Sequence[Geometry], wanted: Filter) -> Sequence[Kept]:
        boxes, logits = raw[self.head.boxes], raw[self.head.logits]
        if is_tensor(logits):
            from lensmount_rfdetr import on_device

            return on_device.keep_pairs(boxes, logits, wanted, len(self.names))
        return [keep_pairs(boxes[i], logits[i], wanted, len(self.names)) for i in range(len(geometries))]

    def _boxes(self, kept: Kept, geometry: Geometry) -> NDArray[np.float32]:
        """Boxes outside the picture are clipped to its edge and kept, as the authors do."""
        return geometry.boxes_to_image(kept.boxes * np.array([*geometry.network_size[::-1]] * 2, np.float32))


class RFDETRSegmenter(RFDETRDetector):
    """Finds objects, their boxes and their masks.

    Masks are made inside their boxes only, which is where trained networks put them; the authors' own code lets them
    spill over. `whole_masks` of the load options does as they do.
    """

    def __init__(self, context: BuildContext) -> None:
        super().__init__(context)
        if self.head.masks is None:
            raise UnsupportedModelError(
                f"{context.card.id!r} is for segmentation, but its graph gives no masks",
                found=f"{self.head.boxes}, {self.head.logits}",
                expected="a third output (batch, queries, h, w)",
            )

    def _masks(
        self,
        kept: Sequence[Kept],
        boxes: Sequence[NDArray[Any]],
        raw: Mapping[str, Any],
        geometries: Sequence[Geometry],
    ) -> Sequence[Masks | None]:
        assert self.head.masks is not None
        maps, whole = raw[self.head.masks], self._options.whole_masks
        if is_tensor(maps):
            from lensmount_rfdetr import on_device

            return on_device.masks(maps, kept, None if whole else boxes, geometries)
        return [
            resize_logits_in_boxes(
                maps[i][part.queries].astype(np.float32, copy=False), None if whole else boxes[i], geometry
            )
            for i, (part, geometry) in enumerate(zip(kept, geometries, strict=True))
        ]
