"""What detectors share: options of a call, boxes and masks in the picture's pixels, and the results made of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from lensmount.specs.options import class_ids, class_thresholds
from lensmount_vision.models.numbers import Unusable, finish
from lensmount_vision.models.single_graph import SingleGraph
from lensmount_vision.results import Detections, InstanceSegmentation

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lensmount.contracts.model import BuildContext
    from lensmount.specs import Preprocess
    from lensmount_vision.images.geometry import Geometry
    from lensmount_vision.images.image import Color
    from lensmount_vision.results.masks import Masks

Classes = str | int | Iterable[str | int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """What every call asks of scores and classes, checked and resolved.

    Attributes:
        confidence: Lowest score kept, 0..1; the lowest of `per_class` when that is set.
        per_class: Lowest score kept by class id, or None.
        classes: Class ids kept, or None for all.
    """

    confidence: float
    per_class: NDArray[np.float32] | None
    classes: NDArray[np.int64] | None


@dataclass(frozen=True, slots=True)
class Kept:
    """Objects that were chosen in one picture, best first.

    Attributes:
        boxes: `(n, 4)` float32 xyxy.
        scores: `(n,)` float32.
        class_ids: `(n,)` int64.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int64]


F = TypeVar("F", bound=Filter)
K = TypeVar("K", bound=Kept)
D = TypeVar("D", bound=Detections)


class Detector(SingleGraph, Generic[F, K]):
    """Finds objects and their boxes, and masks where `_masks` makes them.

    A subclass sets `names`, says in `_choose` which objects its network's outputs hold, and has a `__call__` and a
    `postprocess` with typed options, which end in `_detect` and `_results`.

    Args:
        context: What the core hands to a factory.
        preprocess: As for `SingleGraph`.
        confidence: Lowest score where neither caller nor package names one.
        reduced_decode: As for `SingleGraph`.

    Attributes:
        names: Class names by id.
    """

    names: tuple[str, ...]

    def __init__(
        self, context: BuildContext, preprocess: Preprocess, *, confidence: float, reduced_decode: bool = False
    ) -> None:
        super().__init__(context, preprocess, reduced_decode=reduced_decode)
        recommended = {**dict(context.card.recommended), **dict(context.package.recommended)}
        self._confidence: float = recommended.get("confidence", confidence)
        self._per_class: dict[str | int, float] = dict(recommended.get("per_class_confidence", ()))
        self._removed: tuple[str, ...] = tuple(context.package.setting("removed_classes", ()))

    def _detect(self, images: Any, wanted: F, color: Color | None) -> list[Any]:
        """One result per picture of a call."""
        return self.infer_batches(
            images, color, lambda raw, geometries, paths: self._results(raw, geometries, wanted, paths)
        )

    def _wanted(self, confidence: float | Mapping[str | int, float] | None, classes: Classes | None) -> dict[str, Any]:
        """Fields of `Filter`: what the caller wants, else what the package recommends; without removed classes.

        Raises:
            OptionError: A score is out of range, or a class is unknown.
        """
        if confidence is None:
            confidence = self._per_class or self._confidence
        lowest, per_class = class_thresholds(confidence, self.names, self._confidence)
        allowed = class_ids(classes, self.names)
        if self._removed:
            kept = [i for i, name in enumerate(self.names) if name not in self._removed]
            allowed = np.array(kept if allowed is None else [i for i in allowed if i in kept], np.int64)
        return {"confidence": lowest, "per_class": per_class, "classes": allowed}

    def _results(
        self,
        raw: Mapping[str, Any],
        geometries: Sequence[Geometry],
        wanted: F,
        paths: Sequence[str | None] | None = None,
    ) -> list[Any]:
        """Outputs of one batch to a result for each picture.

        Args:
            raw: Outputs by name: arrays, or tensors on the device.
            geometries: One per picture.
            wanted: What the call asks for.
            paths: Where the pictures came from; None for pictures that are not known.

        Raises:
            NotFiniteError: What the network gave for a picture is not finite, or boxes whose sides are negative.
        """
        return finish(self, raw, geometries, paths, partial(self._made_of, wanted))

    def _made_of(
        self, wanted: F, raw: Mapping[str, Any], geometries: Sequence[Geometry], paths: Sequence[str | None]
    ) -> list[Any]:
        every = self._choose(raw, geometries, wanted)
        boxes = [self._boxes(kept, geometry) for kept, geometry in zip(every, geometries, strict=True)]
        masks = self._masks(every, boxes, raw, geometries)
        rows = zip(every, boxes, masks, geometries, paths, strict=True)
        reversed_ = [bool((kept.boxes[:, 2:4] < kept.boxes[:, :2]).any()) for kept in every]
        return [
            Unusable("boxes of negative width or height") if wrong else self._result(*row)
            for wrong, row in zip(reversed_, rows, strict=True)
        ]

    @abstractmethod
    def _choose(self, raw: Mapping[str, Any], geometries: Sequence[Geometry], wanted: F) -> Sequence[K]:
        """The objects of each picture, chosen on the device where the outputs are tensors, else on the host."""

    def _boxes(self, kept: K, geometry: Geometry) -> NDArray[np.float32]:
        """The boxes `(n, 4)` xyxy of one picture in its pixels; those of `kept` are in the network's."""
        return geometry.boxes_to_image(kept.boxes)

    def _masks(
        self,
        kept: Sequence[K],
        boxes: Sequence[NDArray[np.float32]],
        raw: Mapping[str, Any],
        geometries: Sequence[Geometry],
    ) -> Sequence[Masks | None]:
        """Masks of each picture, for models that have them; `boxes` are in the pictures' pixels."""
        return [None] * len(kept)

    def _result(
        self, kept: K, boxes: NDArray[np.float32], masks: Masks | None, geometry: Geometry, path: str | None
    ) -> Any:
        """The result of one picture."""
        if masks is None:
            return self._made(Detections, kept, boxes, geometry, path)
        return self._made(InstanceSegmentation, kept, boxes, geometry, path, masks=masks)

    def _made(
        self, kind: type[D], kept: K, boxes: NDArray[np.float32], geometry: Geometry, path: str | None, **own: Any
    ) -> D:
        """A result of some kind; `own` are the fields that the kind adds to those of `Detections`."""
        return kind(
            xyxy=boxes,
            confidence=kept.scores,
            class_id=kept.class_ids,
            class_names=self.names,
            image_size=geometry.original_size,
            path=path,
            **own,
        )


def read_class_names(context: BuildContext) -> tuple[str, ...]:
    """The lines of a package's `class_names.txt` that are not blank; empty where it has no such file."""
    file = context.files.get("class_names.txt")
    if file is None:
        return ()
    lines = (line.strip() for line in Path(file).read_text(encoding="utf-8-sig").splitlines())
    return tuple(line for line in lines if line)
