"""A detector made of example boxes: an OWLv2 with reference embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmount.errors import InputError
from lensmount.specs.options import fraction
from lensmount_owlv2.options import max_detections as limit
from lensmount_owlv2.saving import read_image_embeddings, save_detector
from lensmount_vision.models.loaded import LoadedModel

if TYPE_CHECKING:
    import os

    from lensmount_owlv2.proposals import Proposals
    from lensmount_owlv2.queries import QueryModel
    from lensmount_owlv2.references import Fitted
    from lensmount_vision.images.image import Color
    from lensmount_vision.results.kinds import Detections


class FewShotDetector(LoadedModel):
    """Finds what its example boxes showed. Thread-safe; made by `Owlv2.fit` or `registry.load` of a saved folder.

    Closing it closes the network; one that others use should be closed by them.

    Args:
        model: The network.
        fitted: What the example boxes gave.
        images: Proposals of the reference pictures by content key.
        folder: Where it was loaded from.

    Attributes:
        model: The network.
        bank: Reference embeddings.
        parameters: Defaults of a call.
        unmatched: Reference boxes that matched nothing.
    """

    def __init__(
        self,
        model: QueryModel,
        fitted: Fitted,
        images: Mapping[str, Proposals] | None = None,
        folder: Path | None = None,
    ) -> None:
        super().__init__(replace(model.card, classes=fitted.bank.class_names), model.package, model)
        self.model = model
        self.bank = fitted.bank
        self.parameters = fitted.parameters
        self.unmatched = fitted.unmatched
        self._fitted = fitted
        self._images = dict(images or {})
        self._folder = folder

    def __call__(
        self,
        images: Any,
        *,
        confidence: float | Mapping[str | int, float] | None = None,
        iou_threshold: float | None = None,
        max_detections: int | None = None,
        color: Color | None = None,
    ) -> list[Detections]:
        """Finds objects; see `Owlv2.infer`. None takes what the detector was made with.

        Returns:
            One result per picture, best first.
        """
        own = self.parameters
        if confidence is None:
            confidence = own.confidence
        elif not isinstance(confidence, Mapping):
            confidence = fraction("confidence", confidence)
        parameters = replace(
            own,
            confidence=confidence,
            iou_threshold=own.iou_threshold if iou_threshold is None else fraction("iou_threshold", iou_threshold),
            max_detections=own.max_detections if max_detections is None else limit(max_detections),
        )
        return self.model.detect(images, self.bank, parameters, color)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names by class id."""
        return self.bank.class_names

    @property
    def image_embeddings(self) -> dict[str, Proposals]:
        """Proposals of the reference pictures by content key; those of a loaded detector are read from its folder."""
        if not self._images and self._folder is not None:
            return dict(read_image_embeddings(self._folder, self.model.network, self.card.id))
        return dict(self._images)

    def save(self, save_dir: str | os.PathLike[str], *, include_image_embeddings: bool = True) -> Path:
        """Writes a folder that `registry.load` opens: `detector.safetensors`, `detector.json`, `lensmount.json`.

        Args:
            save_dir: The folder; made if missing. A detector in it is replaced.
            include_image_embeddings: Keep the reference pictures' proposals too (some 0.6 MB each), so that
                `serialize_training_data` need not embed them again.

        Returns:
            The folder.

        Raises:
            InputError: The folder cannot be written, or holds something else.
        """
        images = self.image_embeddings if include_image_embeddings else {}
        model = self.model
        return save_detector(
            Path(save_dir), self._fitted, images, network=model.network, card=model.card, package=model.package
        )

    def save_small_model_without_image_embeds(self, save_dir: str | os.PathLike[str] | None = None) -> Path:
        """Writes the detector without the reference pictures' proposals: all that finding needs.

        Args:
            save_dir: The folder; None for one next to the folder that the detector was loaded from, named `<it>-small`.

        Returns:
            The folder.

        Raises:
            InputError: No folder is given and the detector was not loaded from one; or it cannot be written.
        """
        if save_dir is None:
            if self._folder is None:
                raise InputError("this detector was not loaded from a folder", expected="save_dir=…")
            save_dir = self._folder.with_name(self._folder.name + "-small")
        return self.save(save_dir, include_image_embeddings=False)

    def reset_cache(self) -> None:
        """Forgets what the model keeps between calls; the detector's own embeddings stay."""
        self.model.reset_cache()

    def warmup(self) -> None:
        """Runs the network once on a blank input."""
        self.model.warmup()

    def __repr__(self) -> str:
        return f"<few-shot detector of {', '.join(self.class_names)} on {self.model!r}>"
