"""Results that are not rows of boxes: classification, embeddings, prompted masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lensmount.errors import InputError
from lensmount_vision.images.checks import Floats, Indices, as_array, as_scores
from lensmount_vision.results.boxes import top_candidates
from lensmount_vision.results.drawing import draw
from lensmount_vision.results.formats import coco_annotations, import_supervision, supervision_masks
from lensmount_vision.results.masks import Masks, checked_size
from lensmount_vision.results.rows import Record, Rows, checked_names, class_name, store
from lensmount_vision.results.shapes import Shapes

if TYPE_CHECKING:
    import supervision


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Classification(Record):
    """Class probabilities of one image.

    Attributes:
        probabilities: float32 `(C,)` by class id; they add up to 1 where the classes exclude each other.
        class_names: Names by class id.
        image_size: `(height, width)` of the original image.
        path: Where the image came from.
    """

    kind: ClassVar[str] = "classification"
    whole_fields: ClassVar[tuple[str, ...]] = ("image_size", "path", "class_names", "probabilities")

    probabilities: Floats
    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    path: str | None = None

    def __post_init__(self) -> None:
        store(self, "probabilities", as_scores(self.probabilities, name="probabilities"))
        store(self, "class_names", checked_names(self.class_names))
        store(self, "image_size", checked_size(self.image_size))
        store(self, "path", None if self.path is None else str(self.path))
        if len(self.class_names) > len(self.probabilities):
            raise InputError(
                "class names and probabilities differ in number",
                found=f"{len(self.class_names)} names",
                expected=f"at most {len(self.probabilities)}",
            )

    def top(self, k: int = 5) -> list[tuple[int, str, float]]:
        """The `k` most probable classes, best first: id, name and probability of each."""
        return [
            (i, class_name(self.class_names, i), float(self.probabilities[i]))
            for i in top_candidates(self.probabilities, k).tolist()
        ]

    def summary(self) -> str:
        """The most probable class: `tabby 0.83`."""
        return ", ".join(f"{name} {score:.2f}" for _, name, score in self.top(1))

    @property
    def class_id(self) -> Indices:
        """int64 `(C,)` class ids, the most probable first."""
        return top_candidates(self.probabilities, len(self.probabilities))

    @property
    def confidence(self) -> Floats:
        """float32 `(C,)` probabilities in the order of `class_id`."""
        return self.probabilities[self.class_id]

    @property
    def class_name(self) -> NDArray[np.str_]:
        """Array of str `(C,)` in the order of `class_id`."""
        return np.array([class_name(self.class_names, i) for i in self.class_id.tolist()], dtype=np.str_)

    def shapes(self) -> Shapes:
        """What is drawn: the five most probable classes."""
        numbers, names, scores = self.class_id[:5].tolist(), self.class_name[:5].tolist(), self.confidence[:5]
        return Shapes(numbers=numbers, names=names, scores=scores)

    def to_supervision(self) -> supervision.Classifications:
        """A `supervision.Classifications` of all classes, the most probable first.

        Raises:
            MissingDependencyError: supervision is not installed.
        """
        return import_supervision().Classifications(class_id=self.class_id, confidence=self.confidence)

    def draw(
        self,
        image: Any,
        *,
        labels: bool = True,
        confidence: bool = True,
        color: tuple[int, int, int] | None = None,
    ) -> NDArray[np.uint8]:
        """A BGR copy of the image with its five most probable classes in the corner."""
        return draw(image, self, labels=labels, confidence=confidence, color=color)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Embeddings(Rows):
    """Feature vectors of images, texts or regions.

    Attributes:
        vectors: float32 `(N, D)`.
        normalized: Whether each vector has length 1.
    """

    row_fields: ClassVar[tuple[str, ...]] = ("vectors",)
    kind: ClassVar[str] = "embeddings"
    whole_fields: ClassVar[tuple[str, ...]] = ("normalized", "vectors")

    vectors: Floats
    normalized: bool

    def __post_init__(self) -> None:
        vectors = as_array(self.vectors, "vectors")
        if vectors.ndim != 2:
            raise InputError("vectors have the wrong shape", found=str(vectors.shape), expected="(N, D)")
        if self.normalized and not np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3):
            raise InputError("the vectors are not of length 1", expected="normalized=False, or vectors of length 1")
        store(self, "vectors", vectors)
        store(self, "normalized", bool(self.normalized))

    def summary(self) -> str:
        """How many vectors, and how long: `2 of 512 values`."""
        return f"{len(self)} of {self.vectors.shape[1]} values"

    def normalize(self) -> Embeddings:
        """The same directions at length 1.

        Raises:
            InputError: A vector is zero.
        """
        if self.normalized:
            return self
        lengths = np.linalg.norm(self.vectors, axis=1, keepdims=True)
        if (lengths == 0).any():
            raise InputError("a zero vector has no direction", found=f"row {int(np.argmin(lengths))}")
        return replace(self, vectors=self.vectors / lengths, normalized=True)

    def similarity(self, other: Embeddings) -> Floats:
        """float32 `(N, M)` cosine of every pair, -1..1.

        Raises:
            InputError: The vectors differ in length, or one is zero.
        """
        if self.vectors.shape[1] != other.vectors.shape[1]:
            raise InputError(
                "the embeddings differ in dimension",
                found=str(other.vectors.shape[1]),
                expected=str(self.vectors.shape[1]),
            )
        result: Floats = self.normalize().vectors @ other.normalize().vectors.T
        return result


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class PromptedMasks(Rows):
    """Masks that answer prompts (SAM).

    Attributes:
        masks: M masks of the original image.
        scores: float32 `(M,)`: the model's estimate of each mask's IoU.
        logits: float32 `(M, h, w)` low-resolution logits to prompt again with, or None.
        prompt_id: int64 `(M,)`: which of several prompts each mask answers, counted from 0; None for a single prompt.
        image_size: `(height, width)` of the original image.
        path: Where the image came from.
    """

    row_fields: ClassVar[tuple[str, ...]] = ("masks", "scores", "logits", "prompt_id")
    kind: ClassVar[str] = "prompted-masks"
    whole_fields: ClassVar[tuple[str, ...]] = ("image_size", "path")
    object_fields: ClassVar[Mapping[str, str]] = {"score": "scores", "mask": "masks", "prompt_id": "prompt_id"}

    masks: Masks
    scores: Floats
    image_size: tuple[int, int]
    logits: Floats | None = None
    prompt_id: Indices | None = None
    path: str | None = None

    def __post_init__(self) -> None:
        store(self, "image_size", checked_size(self.image_size))
        if not isinstance(self.masks, Masks) or self.masks.image_size != self.image_size:
            raise InputError("masks do not fit", found=repr(self.masks)[:80], expected=f"Masks of {self.image_size}")
        store(self, "scores", as_scores(self.scores, len(self.masks)))
        store(self, "path", None if self.path is None else str(self.path))
        if self.logits is not None:
            logits = as_array(self.logits, "logits")
            if logits.ndim != 3 or len(logits) != len(self.masks):
                raise InputError("logits do not fit", found=str(logits.shape), expected=f"({len(self.masks)}, h, w)")
            store(self, "logits", logits)
        if self.prompt_id is not None:
            prompt_id = np.asarray(self.prompt_id)
            if prompt_id.shape != (len(self.masks),) or prompt_id.dtype.kind not in "iu":
                raise InputError(
                    "prompt_id does not fit",
                    found=f"{prompt_id.dtype} {prompt_id.shape}",
                    expected=f"({len(self.masks)},) whole numbers",
                )
            store(self, "prompt_id", prompt_id.astype(np.int64))

    @property
    def best(self) -> PromptedMasks:
        """The mask with the highest score alone, of each prompt where there are several; nothing when there is none."""
        if self.prompt_id is None:
            return self[[int(np.argmax(self.scores))]] if len(self) else self
        order = np.lexsort((-self.scores, self.prompt_id))
        return self[order[np.unique(self.prompt_id[order], return_index=True)[1]]]

    def by_prompt(self) -> list[PromptedMasks]:
        """One result per prompt that has masks, in the prompts' order; the result itself for a single prompt."""
        if self.prompt_id is None:
            return [self]
        parts = (self[self.prompt_id == number] for number in np.unique(self.prompt_id))
        return [replace(part, prompt_id=None) for part in parts]

    def dense(self) -> NDArray[np.bool_]:
        """Dense masks: bool `(M, H, W)`; `(P, M, H, W)` for P prompts of M masks each.

        Raises:
            InputError: Rows were chosen so that prompts have different numbers of masks.
        """
        dense = self.masks.dense()
        if self.prompt_id is None:
            return dense
        numbers, counts = np.unique(self.prompt_id, return_counts=True)
        if len(set(counts.tolist())) > 1:
            raise InputError("the prompts have different numbers of masks", found=str(counts.tolist())[:80])
        order = np.argsort(self.prompt_id, kind="stable")
        return dense[order].reshape(len(numbers), counts.max(initial=1), *self.image_size)

    def shapes(self) -> Shapes:
        """What is drawn: the masks with their scores."""
        count = len(self)
        return Shapes(
            numbers=range(count), names=[""] * count, scores=self.scores, boxes=self.masks.boxes, masks=self.masks
        )

    def to_coco(
        self, *, image_id: int | str = 0, annotation_start: int = 1, category_id: int = 0
    ) -> list[dict[str, Any]]:
        """COCO annotations of the masks, all of one category; see `Detections.to_coco`."""
        return coco_annotations(
            self.masks.boxes,
            self.masks.area.tolist(),
            self.scores,
            [category_id] * len(self),
            [{"segmentation": mask} for mask in self.masks.to_rle()],
            image_id=image_id,
            annotation_start=annotation_start,
        )

    def to_supervision(self) -> supervision.Detections:
        """A `supervision.Detections` of the masks (a `CompactMask` from supervision 0.28 on), their boxes and scores.

        Raises:
            MissingDependencyError: supervision is not installed.
        """
        supervision = import_supervision()
        masks = supervision_masks(supervision, self.masks)
        return supervision.Detections(xyxy=self.masks.boxes, mask=masks, confidence=self.scores.copy())

    def draw(
        self,
        image: Any,
        *,
        labels: bool = True,
        confidence: bool = True,
        thickness: int | None = None,
        color: tuple[int, int, int] | None = None,
    ) -> NDArray[np.uint8]:
        """A BGR copy of the image with the masks drawn on it, one colour each."""
        return draw(image, self, labels=labels, confidence=confidence, thickness=thickness, color=color)
