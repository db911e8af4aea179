"""Results under the names of inference-models: tensors over our results, which `.result` gives.

Values are torch tensors where torch is installed, as they are there; else numpy arrays that have a tensor's `cpu()`,
`numpy()` and the like. Boxes are float32 and not rounded. Dense masks are made when they are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from lensmount_vision.results import kinds
from lensmount_vision.results.formats import import_supervision

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Self


class HostTensor(np.ndarray[Any, Any]):
    """A numpy array with the methods that programs call on tensors to get one."""

    def cpu(self) -> Self:
        """Itself: it is in host memory."""
        return self

    def detach(self) -> Self:
        """Itself: it has no gradient."""
        return self

    def numpy(self) -> NDArray[Any]:
        """The plain array, not copied."""
        return self.view(np.ndarray)


def tensor(array: Any) -> Any:
    """A copy of an array as a torch tensor, or as a `HostTensor` without torch."""
    values = np.array(array)
    if find_spec("torch") is None:
        return values.view(HostTensor)
    import torch

    return torch.from_numpy(values)


class InstancesRLEMasks:
    """Masks as COCO's run lengths.

    Attributes:
        image_size: `(height, width)` of the picture.
        masks: Compressed counts, as `pycocotools` takes them.
        mask_size: The same as `image_size`: masks are those of the picture.
    """

    def __init__(self, image_size: tuple[int, int], masks: list[bytes]) -> None:
        self.image_size = image_size
        self.masks = masks
        self.mask_size = image_size

    def to_coco_rle_masks(self) -> list[dict[str, Any]]:
        """One `{"size": [h, w], "counts": bytes}` each."""
        return [{"size": list(self.image_size), "counts": counts} for counts in self.masks]


class _Rows:
    """One row per object over one of our results.

    Attributes:
        result: Our result, with class names, `draw`, `to_coco` and the rest; its attributes are this one's too.
        class_id: int64 `(N,)`.
        image_metadata: Yours to set.
    """

    def __init__(self, result: Any, metadata: Sequence[dict[str, Any]] | None = None) -> None:
        self.result = result
        self.class_id = tensor(result.class_id)
        self.confidence = tensor(result.confidence)
        self.image_metadata: dict[str, Any] | None = None
        self._metadata = None if metadata is None else list(metadata)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "result":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.result, name)

    def __len__(self) -> int:
        return len(self.class_id)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.result!r}>"


class Detections(_Rows):
    """Boxes of one picture.

    Attributes:
        xyxy: float32 `(N, 4)` corners in the picture's pixels.
        class_id: int64 `(N,)`.
        confidence: float32 `(N,)`.
        bboxes_metadata: One dict per box with its `class_name`; yours to add to.
        image_metadata: None; yours to set.
    """

    def __init__(self, result: kinds.Detections) -> None:
        names = [{"class_name": str(name)} for name in result.class_name]
        super().__init__(result)
        self.xyxy = tensor(result.xyxy)
        self.bboxes_metadata: list[dict[str, Any]] | None = names

    def _mask_of(self, index: int) -> Any:
        return None

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """Yields `(xyxy, mask, class_id, confidence, tracker_id, data, metadata)` of each box."""
        for index in range(len(self)):
            data = self.bboxes_metadata[index] if self.bboxes_metadata else {}
            yield (
                self.xyxy[index],
                self._mask_of(index),
                self.class_id[index],
                self.confidence[index],
                data.get("tracker_id"),
                data,
                self.image_metadata or {},
            )

    def _supervision_mask(self, ours: Any) -> Any:
        return ours

    def to_supervision(self) -> Any:
        """A `supervision.Detections` of what the fields hold now, with class names in `data`; masks stay compact.

        Raises:
            MissingDependencyError: supervision is not installed.
        """
        supervision = import_supervision()
        ours = self.result.to_supervision()
        data = dict(ours.data) if len(ours) == len(self) else {}
        keys = {key for row in self.bboxes_metadata or [] for key in row}
        for key in sorted(keys):
            data[key] = np.array([row.get(key) for row in self.bboxes_metadata or []])
        tracks = data.pop("tracker_id", None)
        return supervision.Detections(
            xyxy=np.asarray(self.xyxy),
            mask=self._supervision_mask(ours.mask),
            confidence=np.asarray(self.confidence),
            class_id=np.asarray(self.class_id),
            tracker_id=tracks,
            data=data,
        )


class InstanceDetections(Detections):
    """Boxes and masks of one picture.

    Attributes:
        mask: bool `(N, H, W)`, made when first asked for, or `InstancesRLEMasks`; `.result.masks` stays compact.
        image_size: `(height, width)` of the picture.
        mask_size: The same: masks are those of the picture.
    """

    result: kinds.InstanceSegmentation

    def __init__(self, result: kinds.InstanceSegmentation, mask_format: str = "dense") -> None:
        super().__init__(result)
        self.image_size = self.mask_size = result.image_size
        self._mask: Any = None
        self._replaced = False
        self._format = mask_format

    @property
    def mask(self) -> Any:
        """The masks in the format that the call asked for."""
        if self._mask is None:
            masks = self.result.masks
            if self._format == "rle":
                runs = [item["counts"].encode("ascii") for item in masks.to_rle()]
                self._mask = InstancesRLEMasks(masks.image_size, runs)
            else:
                self._mask = tensor(masks.dense())
        return self._mask

    @mask.setter
    def mask(self, value: Any) -> None:
        self._mask, self._replaced = value, True

    def _mask_of(self, index: int) -> Any:
        if isinstance(self.mask, InstancesRLEMasks):
            return self.mask.to_coco_rle_masks()[index]
        return self.mask[index]

    def _supervision_mask(self, ours: Any) -> Any:
        return np.asarray(self._mask) if self._replaced else ours


class KeyPoints(_Rows):
    """Keypoints of the objects of one picture.

    Attributes:
        xy: float32 `(N, K, 2)` in the picture's pixels.
        confidence: float32 `(N, K)` of each point.
        class_id: int64 `(N,)`.
        detection_confidence: float32 `(N,)` of each object.
        key_points_metadata: One dict per object with its `class_name`; yours to add to.
    """

    def __init__(self, result: kinds.Keypoints) -> None:
        super().__init__(result)
        self.detection_confidence = self.confidence
        self.xy = tensor(result.keypoints[..., :2])
        self.confidence = tensor(result.keypoints[..., 2])
        self.key_points_metadata: list[dict[str, Any]] | None = [
            {"class_name": str(name)} for name in result.class_name
        ]
        self.covariance = None

    def to_supervision(self) -> Any:
        """A `supervision.KeyPoints`."""
        return self.result.to_supervision()


class ClassificationPrediction:
    """Classes of a batch of pictures.

    Attributes:
        class_id: int64 `(B,)`: the best class of each picture.
        confidence: float32 `(B, C)`: probabilities of all classes.
        images_metadata: None; yours to set.
        results: Our results, one per picture.
    """

    def __init__(self, results: Sequence[kinds.Classification]) -> None:
        self.results = list(results)
        rows = np.stack([result.probabilities for result in self.results])
        self.confidence = tensor(rows)
        self.class_id = tensor(rows.argmax(axis=1))
        self.images_metadata: list[dict[str, Any]] | None = None


class SAM2Prediction:
    """Masks that answer the prompts on one picture.

    Attributes:
        masks: bool `(M, H, W)` of one prompt, `(P, M, H, W)` of a list of P; made when first asked for.
        scores: float32 `(M,)` or `(P, M)`.
        logits: float32 `(M, h, w)` or `(P, M, h, w)` in low resolution, to prompt again with.
        result: Our result, whose masks stay compact.
    """

    def __init__(self, result: kinds.PromptedMasks) -> None:
        self.result = result
        logits = result.logits
        prompts = 0 if result.prompt_id is None else len(np.unique(result.prompt_id))
        lead = (prompts, len(result) // prompts) if prompts else (len(result),)
        self.scores = tensor(result.scores.reshape(lead))
        self.logits = None if logits is None else tensor(logits.reshape(*lead, *logits.shape[1:]))
        self._masks: Any = None

    @property
    def masks(self) -> Any:
        """Dense masks."""
        if self._masks is None:
            self._masks = tensor(self.result.dense())
        return self._masks

    def __repr__(self) -> str:
        return f"<SAM2Prediction of {self.result!r}>"


def prediction_of(result: Any, mask_format: str = "dense") -> Any:
    """Our result of a picture under that library's names; a result that it does not have stays as it is."""
    if isinstance(result, kinds.InstanceSegmentation):
        return InstanceDetections(result, mask_format)
    if isinstance(result, kinds.Keypoints):
        return KeyPoints(result)
    if isinstance(result, kinds.Detections):
        return Detections(result)
    return result
