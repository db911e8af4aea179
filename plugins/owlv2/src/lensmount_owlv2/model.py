"""OWLv2: detection from words, from example boxes, and from one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmount.results import Detections

from lensmount.caches.keys import make_key
from lensmount.caches.memory import DEFAULT_BYTES, MemoryCache
from lensmount.errors import ClosedError, ModelFileError, OptionError
from lensmount.images import split
from lensmount.options import class_thresholds, fraction, one_of
from lensmount.single_graph import SingleGraph
from lensmount.specs import Preprocess
from lensmount_owlv2.checkpoint import NETWORK
from lensmount_owlv2.detector import FewShotDetector, Parameters
from lensmount_owlv2.images import ImageEmbedder, Seen
from lensmount_owlv2.layout import read_json
from lensmount_owlv2.options import CONFIDENCE, IOU_THRESHOLD, ONE_SHOT_CONFIDENCE, TEXT_CONFIDENCE, LoadOptions
from lensmount_owlv2.options import max_detections as limit
from lensmount_owlv2.references import POLICIES, make_bank, report
from lensmount_owlv2.scoring import Bank, Found, by_query, few_shot
from lensmount_owlv2.texts import TextEmbedder
from lensmount_owlv2.training import TrainBox, TrainingData, TrainingImage, read_training_data

if TYPE_CHECKING:
    import os

    from lensmount.backends.base import Session
    from lensmount.caches.base import Cache
    from lensmount.images import Color
    from lensmount.models import BuildContext
    from lensmount_owlv2.references import UnmatchedBox

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def build(context: BuildContext) -> Owlv2 | FewShotDetector:
    """Makes the model, or the detector that was saved on top of one.

    Raises:
        ModelFileError: The package lacks a tower, or a saved detector belongs to another network.
    """
    model = Owlv2(context)
    if "detector.json" not in context.files:
        return model
    from lensmount_owlv2.saving import load_detector

    return load_detector(model, context.files)


def _session(context: BuildContext, tower: str) -> Session:
    for name in (tower, f"{tower}.onnx", f"{tower}.plan"):
        if name in context.sessions:
            return context.sessions[name]
    raise ModelFileError(
        f"package {context.package.name!r} of {context.card.id!r} lacks the {tower} tower",
        found=", ".join(context.sessions) or "no graphs",
        expected=f"{tower}.onnx",
    )


def _cache(caches: Mapping[str, Cache], use: str, entries: int, size: int = DEFAULT_BYTES) -> Cache:
    """The caller's cache for a use, which may be empty and hence false, or one of our own."""
    given = caches.get(use)
    return MemoryCache(entries, size) if given is None else given


def resolve_preprocess(files: Mapping[str, Path]) -> Preprocess:
    """OWLv2's own preprocessing, with mean and std of a `preprocessor_config.json` where there is one.

    Raises:
        ModelFileError: That file is malformed.
    """
    config = read_json(files["preprocessor_config.json"]) if "preprocessor_config.json" in files else {}
    mean, std = config.get("image_mean", MEAN), config.get("image_std", STD)
    for name, values in (("image_mean", mean), ("image_std", std)):
        if len(values) != 3 or not all(isinstance(v, int | float) and (name != "image_std" or v > 0) for v in values):
            raise ModelFileError("preprocessor_config.json is malformed", found=f"{name}: {values}"[:80])
    return Preprocess(
        size=None,
        resize="pad-square",
        padding_value=0,
        interpolation="gaussian-bilinear",
        resample_dtype="float32",
        mean=tuple(mean),
        std=tuple(std),
    )


class Owlv2(SingleGraph):
    """Finds what words, example boxes or a picture show. Thread-safe.

    Call it with words; `infer` and `fit` take example boxes, `image_guided_detection` takes a picture.
    """

    def __init__(self, context: BuildContext) -> None:
        self._text = _session(context, "text")
        narrowed = replace(context, sessions={"image": _session(context, "image")})
        super().__init__(narrowed, context.package.preprocess or resolve_preprocess(context.files))
        options = context.options or LoadOptions()
        self.network: str = self._session.metadata.get(NETWORK) or context.fingerprint
        self._identity = make_key(self.network, self.backend, self.device, self.precision, self.preprocess_spec)
        caches = context.caches
        self._images = ImageEmbedder(
            self._prepare,
            self.forward,
            _cache(caches, "embeddings", options.images_kept, options.image_cache_bytes),
            self._identity,
            options.batch or (8 if self.device == "cpu" else 16),
        )
        self._banks = _cache(caches, "classes", options.classes_kept)
        self._texts = TextEmbedder(
            context, self._text, _cache(caches, "text", options.text_cache_entries), self._identity
        )

    # --- words --------------------------------------------------------------------------------------------------------

    def __call__(
        self,
        images: Any,
        *,
        classes: Sequence[str] | str | None = None,
        confidence: float | Mapping[str | int, float] = TEXT_CONFIDENCE,
        iou_threshold: float | None = None,
        max_detections: int | None = None,
        color: Color | None = None,
    ) -> list[Detections]:
        """Finds what words describe.

        Args:
            images: A picture or several: paths, URLs, bytes, PIL images, arrays, tensors.
            classes: What to look for, in words (`["a red cup"]`); they become the class names.
            confidence: Lowest score, 0..1, or one per class; a score is `sigmoid((cos + shift) * scale)`.
            iou_threshold: Overlap above which the weaker box of the same class goes; None keeps all, as the reference
                implementation does.
            max_detections: Most objects per picture; None for 300.
            color: Channel order of arrays and tensors, `"bgr"` or `"rgb"`.

        Returns:
            One result per picture, best first.

        Raises:
            InputError: No words, or words that the tokeniser cannot hold.
            ImageError: A picture cannot be used.
            OptionError: An option is out of range.
            BackendError: The runtime failed.
        """
        words = _words(classes)
        lowest, table = class_thresholds(confidence, words, TEXT_CONFIDENCE)
        thresholds = lowest if table is None else table
        most = limit(max_detections)
        overlap = None if iou_threshold is None else fraction("iou_threshold", iou_threshold)
        self._check_open()
        queries = self._texts.embed(words)
        results = []
        for seen in self._images.stream(split(images), None, color):
            found = by_query(
                seen.proposals, queries, thresholds=thresholds, iou_threshold=overlap, max_detections=most
            )
            results.append(_result(seen, found, words))
        return results

    def embed_text(self, texts: Sequence[str] | str) -> Any:
        """Query embeddings of texts, float32 `(T, D)` of length 1; each is computed once."""
        self._check_open()
        return self._texts.embed(_words(texts))

    # --- example boxes ------------------------------------------------------------------------------------------------

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
            training_data: `[{"image": …, "boxes": [{"x", "y", "w", "h", "cls", "negative"}]}]`, boxes by their centre in
                pixels; or `TrainingImage`s.
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
        parameters = self._parameters(confidence, iou_threshold, max_detections, on_unmatched)
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
        from lensmount.caches.sources import content_key

        references = read_training_data(training_data)
        parameters = self._parameters(confidence, iou_threshold, max_detections, on_unmatched)
        self._check_open()
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
        return FewShotDetector(self, bank, parameters, unmatched, dict(zip(keys, proposals, strict=True)))

    @property
    def _cells(self) -> int:
        """Proposals that the network makes of a picture."""
        shape = self._session.outputs[0].shape
        return shape[1] if isinstance(shape[1], int) else 1 << 30

    def _parameters(
        self, confidence: Any, iou_threshold: float, max_detections: int | None, on_unmatched: str
    ) -> Parameters:
        return Parameters(
            confidence=confidence if isinstance(confidence, Mapping) else fraction("confidence", confidence),
            iou_threshold=fraction("iou_threshold", iou_threshold),
            max_detections=limit(max_detections),
            on_unmatched=one_of("on_unmatched", on_unmatched, POLICIES),
        )

    def _bank(
        self, references: Sequence[TrainingImage], parameters: Parameters, color: Color | None
    ) -> tuple[Bank, tuple[UnmatchedBox, ...]]:
        """Embeddings of reference data, from the cache where it is known."""
        from lensmount.caches.sources import source_key
        from lensmount_owlv2.images import settle

        self._check_open()
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

    def detect(self, images: Any, bank: Bank, parameters: Parameters, color: Color | None) -> list[Detections]:
        """Compares pictures with reference embeddings; what `infer` and detectors come down to."""
        self._check_open()
        lowest, table = class_thresholds(parameters.confidence, bank.class_names, CONFIDENCE)
        results = []
        for seen in self._images.stream(split(images), parameters.max_detections, color):
            found = few_shot(
                seen.proposals,
                bank,
                thresholds=lowest if table is None else table,
                iou_threshold=parameters.iou_threshold,
                max_detections=parameters.max_detections,
            )
            results.append(_result(seen, found, bank.class_names))
        return results

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
        from lensmount_owlv2.saving import read_image_embeddings

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

    # --- one picture --------------------------------------------------------------------------------------------------

    def image_guided_detection(
        self,
        images: Any,
        query_image: Any,
        *,
        box: TrainBox | Mapping[str, Any] | None = None,
        confidence: float = ONE_SHOT_CONFIDENCE,
        iou_threshold: float = IOU_THRESHOLD,
        max_detections: int | None = None,
        color: Color | None = None,
    ) -> list[Detections]:
        """Finds what looks like the object in a picture.

        Args:
            images: A picture or several to search.
            query_image: Picture of what is wanted.
            box: Where it is in there, `{"x", "y", "w", "h"}` by its centre in pixels; None for what the network takes
                most for an object, as the reference implementation does.
            confidence: Lowest score, 0..1; a score is `sigmoid((cos + shift) * scale)`.
            iou_threshold: Overlap above which the weaker box goes.
            max_detections: Most objects per picture; None for 300.
            color: Channel order of arrays and tensors.

        Returns:
            One result per picture, best first; the one class is named `query` (or by the box's `cls`).

        Raises:
            InputError: The box matches nothing.
            ImageError: A picture cannot be used.
        """
        lowest, overlap = fraction("confidence", confidence), fraction("iou_threshold", iou_threshold)
        most, name = limit(max_detections), "query"
        self._check_open()
        proposals = self._images.all([query_image], None, color)[0].proposals
        query = proposals.embeddings[:1]
        if box is not None:
            if isinstance(box, Mapping):
                box = {"cls": name, **box}
            references = read_training_data([{"image": query_image, "boxes": [box]}])
            bank, _ = make_bank(references, [proposals], iou_threshold=overlap, on_unmatched="error")
            query, name = bank.embeddings, bank.class_names[0]
        results = []
        for seen in self._images.stream(split(images), None, color):
            found = by_query(
                seen.proposals, query, thresholds=lowest, iou_threshold=overlap, max_detections=most
            )
            results.append(_result(seen, found, (name,)))
        return results

    # --- housekeeping -------------------------------------------------------------------------------------------------

    def reset_cache(self) -> None:
        """Forgets the embeddings of pictures, reference boxes and texts."""
        self._images.cache.clear()
        self._banks.clear()
        self._texts.cache.clear()

    def warmup(self) -> None:
        """Runs the image tower once on a blank input."""
        super().warmup()

    def close(self) -> None:
        """Lets go of both towers; they are freed with the last model that shares them."""
        super().close()
        self._text.close()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"model {self.card.id!r} was closed", fix="load it again")


def _plain(box: TrainBox) -> tuple[Any, ...]:
    return float(box.x), float(box.y), float(box.w), float(box.h), box.cls, box.negative


def _words(classes: Sequence[str] | str | None) -> tuple[str, ...]:
    words = (classes,) if isinstance(classes, str) else tuple(classes or ())
    if not words:
        raise OptionError(
            "there are no words to look for",
            expected='classes=["a red cup", …]; for example boxes: model.infer(images, training_data=…)',
        )
    for word in words:
        if not isinstance(word, str) or not word.strip():
            raise OptionError("a class should be described in words", found=repr(word)[:60], expected="text")
    if len(set(words)) != len(words):
        raise OptionError("a class is named twice", found=", ".join(w for w in set(words) if words.count(w) > 1))
    return words


def _result(seen: Seen, found: Found, names: tuple[str, ...]) -> Detections:
    return Detections(
        xyxy=seen.proposals.pixels(found.rows),
        confidence=found.scores,
        class_id=found.class_id,
        class_names=names,
        image_size=seen.proposals.image_size,
        path=seen.path,
    )
