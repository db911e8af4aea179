"""OWLv2: detection from words, from one picture, and from example boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmount.caches.keys import make_key
from lensmount_owlv2.detector import FewShotDetector
from lensmount_owlv2.images import settle
from lensmount_owlv2.options import CONFIDENCE, IOU_THRESHOLD
from lensmount_owlv2.queries import QueryModel
from lensmount_owlv2.references import Fitted, Parameters, make_bank, report
from lensmount_owlv2.saving import NAMES, load_detector, read_image_embeddings
from lensmount_owlv2.serialized import read_serialized
from lensmount_owlv2.training import TrainBox, TrainingData, TrainingImage, read_training_data
from lensmount_vision.images.source_keys import content_key, source_key

if TYPE_CHECKING:
    import os

    from lensmount.contracts.model import BuildContext
    from lensmount_owlv2.references import UnmatchedBox
    from lensmount_owlv2.scoring import Bank
    from lensmount_vision.images.image import Color
    from lensmount_vision.results.kinds import Detections


def build(context: BuildContext) -> Owlv2 | FewShotDetector:
    """Makes the model, or the detector that was saved on top of one.

    Raises:
        ModelFileError: The package lacks a tower, or a saved detector belongs to another network.
    """
    model = Owlv2(context)
    if "detector.json" not in context.files:
        return model
    fitted, folder = load_detector(context.files, model.network, model.card.id)
    return FewShotDetector(model, fitted, folder=folder)


class Owlv2(QueryModel):
    """Finds what words, example boxes or a picture show. Thread-safe.

    Call it with words; `infer` and `fit` take example boxes, `image_guided_detection` takes a picture.
    """

    def infer(
        self,
        images: Any,
        training_data: TrainingData,
        *,
        confidence: float | Mapping[str | int, float] = CONFIDENCE,
        iou_threshold: float = IOU_THRESHOLD,
        max_detections: int | None = None,
        on_unmatched: str = "warn",
        color: Color | None = None,
    ) -> list[Detections]:
        """Finds what example boxes show; reference pictures and their embeddings are kept between calls.

        Args:
            images: A picture or several.
            training_data: `[{"image": …, "boxes": [{"x", "y", "w", "h", "cls", "negative"}]}]`, boxes by their
                centre in pixels; or `TrainingImage`s.
            confidence: Lowest score, 0..1, or one per class; a score is `(cos + 1) / 2`.
            iou_threshold: Overlap above which a proposal stands for a reference box, and above which the weaker of two
                found boxes goes.
            max_detections: Proposals of a picture that compete, those most likely to be an object; None for 300.
            on_unmatched: What becomes of a reference box that matches no proposal: `warn` leaves it out and warns,
                `nearest` takes the nearest proposal, `error` raises.
            color: Channel order of arrays and tensors, `"bgr"` or `"rgb"`, here and in the training data.

        Returns:
            One result per picture, best first.

        Raises:
            InputError: The training data cannot be used; the message names the box.
            ImageError: A picture cannot be used.
            OptionError: An option is out of range.
            BackendError: The runtime failed.
        """
        references = read_training_data(training_data)
        parameters = Parameters.of(confidence, iou_threshold, max_detections, on_unmatched)
        bank, unmatched = self._bank(references, parameters, color)
        report(unmatched)
        return self.detect(images, bank, parameters, color)

    def fit(
        self,
        training_data: TrainingData,
        *,
        confidence: float | Mapping[str | int, float] = CONFIDENCE,
        iou_threshold: float = IOU_THRESHOLD,
        max_detections: int | None = None,
        on_unmatched: str = "warn",
        color: Color | None = None,
        previous: Mapping[str, Any] | None = None,
    ) -> FewShotDetector:
        """Makes a detector of example boxes, to be called on pictures and saved.

        Args:
            training_data: See `infer`.
            confidence: Default of the detector's calls.
            iou_threshold: See `infer`; also the default of calls.
            max_detections: See `infer`; also the default of calls.
            on_unmatched: See `infer`.
            color: See `infer`.
            previous: Proposals by content key, of an earlier detector; pictures among them are not embedded again.

        Returns:
            The detector. It keeps the reference pictures' proposals, not their pixels.
        """
        references = read_training_data(training_data)
        parameters = Parameters.of(confidence, iou_threshold, max_detections, on_unmatched)
        self.check_open()
        keys = [content_key(image.image, color) for image in references]
        known = {
            key: value.top(parameters.max_detections)
            for key, value in (previous or {}).items()
            if len(value) >= min(parameters.max_detections, self._cells)
        }
        missing = [image.image for image, key in zip(references, keys, strict=True) if key not in known]
        made = iter(self._images.all(missing, parameters.max_detections, color))
        proposals = [known[key] if key in known else next(made).proposals for key in keys]
        bank, unmatched = make_bank(
            references, proposals, iou_threshold=parameters.iou_threshold, on_unmatched=parameters.on_unmatched
        )
        report(unmatched)
        fitted = Fitted(bank=bank, parameters=parameters, unmatched=unmatched)
        return FewShotDetector(self, fitted, dict(zip(keys, proposals, strict=True)))

    @property
    def _cells(self) -> int:
        """Proposals that the network makes of a picture."""
        shape = self._session.outputs[0].shape
        return shape[1] if isinstance(shape[1], int) else 1 << 30

    def _bank(
        self, references: Sequence[TrainingImage], parameters: Parameters, color: Color | None
    ) -> tuple[Bank, tuple[UnmatchedBox, ...]]:
        """Embeddings of reference data, from the cache where it is known."""
        self.check_open()
        references = [TrainingImage(settle(image.image, color), image.boxes) for image in references]
        key = make_key(
            self._identity,
            [source_key(image.image, color) for image in references],
            repr([[_plain(box) for box in image.boxes] for image in references]),
            parameters.iou_threshold,
            parameters.max_detections,
            parameters.on_unmatched,
        )
        kept: tuple[Bank, tuple[UnmatchedBox, ...]] | None = self._banks.get(key)
        if kept is None:
            seen = self._images.all([image.image for image in references], parameters.max_detections, color)
            kept = make_bank(
                references,
                [item.proposals for item in seen],
                iou_threshold=parameters.iou_threshold,
                on_unmatched=parameters.on_unmatched,
            )
            self._banks.put(key, kept)
        return kept

    def serialize_training_data(
        self,
        training_data: TrainingData,
        save_dir: str | os.PathLike[str],
        *,
        previous_embeddings_file: str | os.PathLike[str] | None = None,
        confidence: float | Mapping[str | int, float] = CONFIDENCE,
        iou_threshold: float = IOU_THRESHOLD,
        max_detections: int | None = None,
        on_unmatched: str = "warn",
        color: Color | None = None,
    ) -> Path:
        """Embeds reference data into a folder that `registry.load` opens; only pictures that are new are embedded.

        Args:
            training_data: See `infer`.
            save_dir: Folder to write.
            previous_embeddings_file: A folder written before (or the `detector.safetensors` in it); pictures whose
                content is in it are taken from there.
            confidence: See `fit`.
            iou_threshold: See `fit`.
            max_detections: See `fit`.
            on_unmatched: See `fit`.
            color: See `fit`.

        Returns:
            Path of the `detector.safetensors` written.

        Raises:
            ModelFileError: The previous embeddings are another network's, or corrupt.
            InputError: See `infer`; or the folder cannot be written.
        """
        previous = None
        if previous_embeddings_file is not None:
            previous = read_image_embeddings(previous_embeddings_file, self.network, self.card.id)
        detector = self.fit(
            training_data,
            confidence=confidence,
            iou_threshold=iou_threshold,
            max_detections=max_detections,
            on_unmatched=on_unmatched,
            color=color,
            previous=previous,
        )
        return detector.save(save_dir) / "detector.safetensors"

    def read_detector(self, path: str | os.PathLike[str]) -> FewShotDetector:
        """A saved detector on this network.

        Args:
            path: A folder that `FewShotDetector.save` or `serialize_training_data` wrote, a file in it, or the few-shot
                file (`.pt`) of Roboflow's inference server, of which nothing is unpickled.

        Raises:
            ModelFileError: It is of another form, or was made with another network.
            UnsafeFileError: It asks for code.
        """
        self.check_open()
        where = Path(path)
        folder = where if where.is_dir() else where.parent
        if where.suffix == ".pt":
            return FewShotDetector(self, read_serialized(where, self.card, self.dimension))
        files = {name: folder / name for name in NAMES}
        fitted, folder = load_detector(files, self.network, self.card.id)
        return FewShotDetector(self, fitted, folder=folder)

    @property
    def dimension(self) -> int | None:
        """Length of an embedding; None where the network does not say."""
        shape = next(item.shape for item in self._session.outputs if item.name == "class_embeds")
        return shape[2] if isinstance(shape[2], int) else None


def _plain(box: TrainBox) -> tuple[Any, ...]:
    return float(box.x), float(box.y), float(box.w), float(box.h), box.cls, box.negative
