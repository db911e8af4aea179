"""`OwlV2` and `SerializedOwlV2` under the methods that they have in Roboflow's inference server, over our models."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lensmount.caches import MemoryCache
from lensmount.errors import InputError
from lensmount.specs.options import fraction
from lensmount_owlv2.detector import FewShotDetector
from lensmount_owlv2.model import Owlv2
from lensmount_owlv2.options import CONFIDENCE, IOU_THRESHOLD, MAX_DETECTIONS
from lensmount_owlv2.options import max_detections as limit
from lensmount_owlv2.proposals import Floats, Proposals
from lensmount_owlv2.references import make_bank
from lensmount_owlv2.scoring import Bank, few_shot
from lensmount_owlv2.serialized import require_network
from lensmount_owlv2.training import TrainingData, read_training_data
from lensmount_vision.images import load
from lensmount_vision.images.source_keys import image_key
from lensmount_vision.results.boxes import cxcywh_to_xyxy, iou_matrix, xyxy_to_cxcywh

if TYPE_CHECKING:
    from lensmount_vision.results.kinds import Detections

Embeddings = Mapping[str, Mapping[str, "Floats | None"]]


class OwlV2:
    """Finds what example boxes show, step by step: `OwlV2(registry.load("owlv2/owlv2-base-patch16-ensemble"))`.

    Arrays are BGR. Boxes of single steps are `x, y, w, h` (centre first) as shares of the picture's longer side.

    Args:
        model: An OWLv2.
    """

    def __init__(self, model: Owlv2) -> None:
        self.model = model
        self._seen = MemoryCache(model.image_entries)

    def embed_image(self, image: Any) -> str:
        """Embeds a picture, which is what takes long; the steps below take the key that this returns."""
        picture = load(image)
        key = image_key(picture)
        if self._seen.get(key) is None:
            (proposals,) = self.model.propose([picture], limit(None))
            self._seen.put(key, proposals)
        return key

    def _proposals(self, key: str) -> Proposals:
        kept: Proposals | None = self._seen.get(key)
        if kept is None:
            raise InputError("this picture was not embedded, or was dropped since", found=key, fix="embed_image(image)")
        return kept

    def get_image_size(self, image_hash: str) -> tuple[int, int]:
        """`(height, width)` of an embedded picture."""
        return self._proposals(image_hash).image_size

    def get_query_embedding(
        self, query_spec: Mapping[str, Sequence[Sequence[float]]], iou_threshold: float = IOU_THRESHOLD
    ) -> Floats | None:
        """The embeddings of what lies in boxes.

        Args:
            query_spec: Boxes by the key of their picture.
            iou_threshold: A proposal counts for a box when their overlap is above this.

        Returns:
            float32 `(n, D)` of length 1, of the boxes that match a proposal; None where none does.
        """
        lowest, rows = fraction("iou_threshold", iou_threshold), []
        for key, boxes in query_spec.items():
            seen = self._proposals(key)
            overlaps = iou_matrix(cxcywh_to_xyxy(np.asarray(boxes, np.float32).reshape(-1, 4)), seen.boxes)
            best = overlaps.argmax(axis=1)
            good = overlaps[np.arange(len(best)), best] > np.float32(lowest)
            rows += [seen.embeddings[row] for row in best[good]]
        return np.stack(rows) if rows else None

    def make_class_embeddings_dict(
        self, training_data: TrainingData, iou_threshold: float = IOU_THRESHOLD, return_image_embeds: bool = False
    ) -> Any:
        """Embeddings of example boxes by class: `{name: {"positive": (n, D), "negative": (m, D) or None}}`.

        Args:
            training_data: See `Owlv2.infer`.
            iou_threshold: A proposal counts for a box when their overlap is above this.
            return_image_embeds: Return the proposals of the pictures by key too.

        Raises:
            InputError: The training data cannot be used, or no positive box of a class matches.
        """
        references = read_training_data(training_data)
        keys = [self.embed_image(image.image) for image in references]
        proposals = [self._proposals(key) for key in keys]
        overlap = fraction("iou_threshold", iou_threshold)
        bank, _ = make_bank(references, proposals, iou_threshold=overlap, on_unmatched="warn")
        made = {}
        for number, name in enumerate(bank.class_names):
            own = bank.class_id == number
            negative = bank.embeddings[own & bank.negative]
            positive = bank.embeddings[own & ~bank.negative]
            made[name] = {"positive": positive, "negative": negative if len(negative) else None}
        return (made, dict(zip(keys, proposals, strict=True))) if return_image_embeds else made

    def infer_from_embed(
        self,
        image_hash: str,
        query_embeddings: Embeddings,
        confidence: float = CONFIDENCE,
        iou_threshold: float = IOU_THRESHOLD,
        max_detections: int = MAX_DETECTIONS,
    ) -> list[dict[str, Any]]:
        """What of an embedded picture is of the classes.

        Args:
            image_hash: Key of the picture.
            query_embeddings: As `make_class_embeddings_dict` returns them.
            confidence: Lowest score.
            iou_threshold: Overlap above which the weaker box goes.
            max_detections: Proposals that compete.

        Returns:
            `class_name`, `x`, `y`, `w`, `h` and `confidence` of each box, best first.
        """
        proposals = self._proposals(image_hash).top(max_detections)
        bank = bank_of(query_embeddings)
        found = few_shot(
            proposals,
            bank,
            thresholds=fraction("confidence", confidence),
            iou_threshold=fraction("iou_threshold", iou_threshold),
            max_detections=max_detections,
        )
        boxes = xyxy_to_cxcywh(proposals.boxes[found.rows])
        rows = zip(found.class_id.tolist(), boxes.tolist(), found.scores.tolist(), strict=True)
        return [
            {"class_name": bank.class_names[i], "x": x, "y": y, "w": w, "h": h, "confidence": score}
            for i, (x, y, w, h), score in rows
        ]

    def infer(
        self,
        image: Any,
        training_data: TrainingData,
        confidence: float = CONFIDENCE,
        iou_threshold: float = IOU_THRESHOLD,
        max_detections: int = MAX_DETECTIONS,
    ) -> list[Detections]:
        """Finds what example boxes show in a picture or several; see `Owlv2.infer`."""
        return self.model.infer(
            image, training_data, confidence=confidence, iou_threshold=iou_threshold, max_detections=max_detections
        )

    def infer_from_request(self, request: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Answers a request of the server's `/owlv2/infer`.

        Args:
            request: `image` and `training_data`, and `confidence`, `iou_threshold`, `max_detections` where they differ.

        Returns:
            One `{"image": {"width", "height"}, "predictions": [{"x", "y", "width", "height", "confidence", "class",
            "class_id"}]}` per picture, in pixels.

        Raises:
            InputError: A key is missing or unknown.
        """
        known = ("image", "training_data", "confidence", "iou_threshold", "max_detections")
        unknown = [key for key in request if key not in known]
        missing = [key for key in known[:2] if key not in request]
        if unknown or missing:
            raise InputError(
                "the request has the wrong keys",
                found=f"missing: {', '.join(missing)}; unknown: {', '.join(map(str, unknown))[:80]}",
                expected=", ".join(known),
            )
        return [_response(result) for result in self.infer(**request)]

    def serialize_training_data(
        self,
        training_data: TrainingData,
        hf_id: str | None = None,
        iou_threshold: float = IOU_THRESHOLD,
        save_dir: str | os.PathLike[str] = "owlv2-detector",
        previous_embeddings_file: str | os.PathLike[str] | None = None,
    ) -> Path:
        """Embeds reference data into a folder that `registry.load` opens; see `Owlv2.serialize_training_data`.

        Raises:
            ModelFileError: `hf_id` names another network than this one.
        """
        require_network(self.model.card, hf_id, "hf_id")
        return self.model.serialize_training_data(
            training_data, save_dir, previous_embeddings_file=previous_embeddings_file, iou_threshold=iou_threshold
        )

    def reset_cache(self) -> None:
        """Forgets all embeddings."""
        self._seen = MemoryCache(self.model.image_entries)
        self.model.reset_cache()


class SerializedOwlV2:
    """Finds what a saved file's example boxes showed.

    Args:
        model: The network that the file was made with.
        path: A `.pt` file of the server, or a folder that `serialize_training_data` wrote.

    Attributes:
        detector: What finds.
        class_names: Names by class id.
    """

    def __init__(self, model: Owlv2, path: str | os.PathLike[str]) -> None:
        self.detector: FewShotDetector = model.read_detector(path)
        self.class_names = list(self.detector.class_names)

    def infer(
        self, image: Any, confidence: float = CONFIDENCE, iou_threshold: float = IOU_THRESHOLD
    ) -> list[Detections]:
        """Finds objects in a picture or several."""
        return self.detector(image, confidence=confidence, iou_threshold=iou_threshold)

    def save_small_model_without_image_embeds(self, save_dir: str | os.PathLike[str] | None = None) -> Path:
        """Writes all that finding needs; see `FewShotDetector.save_small_model_without_image_embeds`."""
        return self.detector.save_small_model_without_image_embeds(save_dir)

    def reset_cache(self) -> None:
        """Forgets what the network keeps between calls."""
        self.detector.reset_cache()


def bank_of(query_embeddings: Embeddings) -> Bank:
    """Embeddings by class as a bank.

    Raises:
        InputError: There is none, or a class has no positive one.
    """
    parts: list[Floats] = []
    ids: list[int] = []
    negative: list[bool] = []
    for number, (name, entry) in enumerate(query_embeddings.items()):
        for kind in ("positive", "negative"):
            rows = entry.get(kind)
            if rows is None and kind == "negative":
                continue
            if rows is None or np.ndim(rows) != 2 or not len(rows):
                raise InputError(f"class {name!r} has no {kind} embeddings", expected="float32 (n, D)")
            parts.append(np.asarray(rows, np.float32))
            ids += [number] * len(rows)
            negative += [kind == "negative"] * len(rows)
    if not parts:
        raise InputError("there is no class to look for", expected='{name: {"positive": (n, D), "negative": …}}')
    return Bank.of(np.concatenate(parts), ids, negative, tuple(query_embeddings))


def _response(result: Detections) -> dict[str, Any]:
    height, width = result.image_size
    centres = xyxy_to_cxcywh(result.xyxy).tolist()
    rows = zip(centres, result.confidence.tolist(), result.class_name.tolist(), result.class_id.tolist(), strict=True)
    return {
        "image": {"width": width, "height": height},
        "predictions": [
            {"x": x, "y": y, "width": w, "height": h, "confidence": score, "class": name, "class_id": number}
            for (x, y, w, h), score, name, number in rows
        ],
    }
