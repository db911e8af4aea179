"""OWLv2's towers and caches, and searching with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from lensmount.caches.keys import make_key
from lensmount.caches.memory import DEFAULT_BYTES, MemoryCache
from lensmount.errors import ModelFileError, OptionError
from lensmount.specs import Preprocess
from lensmount.specs.options import class_thresholds, fraction
from lensmount_owlv2.checkpoint import NETWORK
from lensmount_owlv2.images import ImageEmbedder, Seen
from lensmount_owlv2.options import CONFIDENCE, IOU_THRESHOLD, ONE_SHOT_CONFIDENCE, TEXT_CONFIDENCE, LoadOptions
from lensmount_owlv2.options import max_detections as limit
from lensmount_owlv2.references import Parameters, make_bank
from lensmount_owlv2.scoring import Bank, Found, by_query, few_shot
from lensmount_owlv2.texts import TextEmbedder
from lensmount_owlv2.training import TrainBox, read_training_data
from lensmount_vision.images.loading import split
from lensmount_vision.models.numbers import not_finite
from lensmount_vision.models.processors import read_image_processor
from lensmount_vision.models.settings import HARMLESS, READ, Only
from lensmount_vision.models.single_graph import SingleGraph
from lensmount_vision.results.kinds import Detections
from lensmount_vision.towers.configs import require_size

if TYPE_CHECKING:
    from pathlib import Path

    from lensmount.contracts.cache import Cache
    from lensmount.contracts.model import BuildContext
    from lensmount.contracts.session import Session
    from lensmount_owlv2.proposals import Proposals
    from lensmount_vision.images.image import Color

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


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
    """OWLv2's own preprocessing, with what the files of an image processor say where there are some.

    Raises:
        ModelFileError: A file is malformed.
        UnsupportedModelError: It prepares pictures in another way than OWLv2.
    """
    processor = read_image_processor(files)
    processor.check(
        ("Owlv2ImageProcessor",),
        {
            "do_pad": Only((True,)),
            "resample": Only((2,)),
            "size": READ,
            "crop_size": HARMLESS,
            "pad_size": Only((None,)),
        },
    )
    spec = Preprocess(
        size=None,
        resize="pad-square",
        padding_value=0,
        interpolation="gaussian-bilinear",
        resample_dtype="float32",
        mean=MEAN,
        std=STD,
    )
    return replace(processor.values(spec), size=processor.sides("size"))


def _of_network(spec: Preprocess, session: Session, model: str) -> Preprocess:
    """Preprocessing whose size, where the files say one, must be the network's."""
    side = session.inputs[0].shape[-2:]
    if spec.size is None or not all(isinstance(length, int) for length in side):
        return spec
    require_size(spec, (int(side[0] or 0), int(side[1] or 0)), model)
    return spec


class QueryModel(SingleGraph):
    """The part of an OWLv2 that searches pictures: for words, for one picture, for embeddings of example boxes."""

    def __init__(self, context: BuildContext) -> None:
        self._text = _session(context, "text")
        narrowed = replace(context, sessions={"image": _session(context, "image")})
        spec = context.package.preprocess
        if spec is None:
            spec = _of_network(resolve_preprocess(context.files), _session(context, "image"), context.card.id)
        super().__init__(narrowed, spec)
        options = context.options or LoadOptions()
        self.network: str = self._session.metadata.get(NETWORK) or context.fingerprint
        self._identity = make_key(self.network, self.backend, self.device, self.precision, self.preprocess_spec)
        caches = context.caches
        self._images = ImageEmbedder(
            self._prepare if self._path is None else self._path.prepare,
            self.forward,
            _cache(caches, "embeddings", options.images_kept, options.image_cache_bytes),
            self._identity,
            options.batch or (8 if self.device == "cpu" else 16),
            self,
        )
        self.image_entries: int = options.images_kept
        self._banks = _cache(caches, "classes", options.classes_kept)
        self._texts = TextEmbedder(
            context, self._text, _cache(caches, "text", options.text_cache_entries), self._identity, self
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
        self.check_open()
        queries = self._texts.embed(words)

        def make(seen: Seen) -> Detections:
            found = by_query(seen.proposals, queries, thresholds=thresholds, iou_threshold=overlap, max_detections=most)
            return result(seen, found, words)

        return self._each(images, None, color, make)

    def _each(
        self, images: Any, count: int | None, color: Color | None, make: Callable[[Seen], Detections]
    ) -> list[Detections]:
        """A result of each picture's proposals.

        Raises:
            NotFiniteError: The network gave no usable numbers for a picture; it has the others' results.
        """
        results: list[Detections | None] = []
        faults: dict[int, str] = {}
        names: dict[int, str | None] = {}
        for index, seen in enumerate(self._images.stream(split(images), count, color)):
            if seen.fault is None:
                results.append(make(seen))
            else:
                results.append(None)
                faults[index], names[index] = seen.fault, seen.path
        if faults:
            raise not_finite(self, faults, results, names)
        return cast("list[Detections]", results)

    def embed_text(self, texts: Sequence[str] | str) -> Any:
        """Query embeddings of texts, float32 `(T, D)` of length 1; each is computed once."""
        self.check_open()
        return self._texts.embed(_words(texts))

    def propose(self, images: Any, max_detections: int | None = None, *, color: Color | None = None) -> list[Proposals]:
        """What the network takes for objects in pictures, through the cache.

        Args:
            images: A picture or several.
            max_detections: Proposals of each, those most likely to be an object; None for all.
            color: Channel order of arrays and tensors.
        """
        self.check_open()
        return [seen.proposals for seen in self._images.all(list(split(images)), max_detections, color)]

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
        self.check_open()
        proposals = self._images.all([query_image], None, color)[0].proposals
        query = proposals.embeddings[:1]
        if box is not None:
            if isinstance(box, Mapping):
                box = {"cls": name, **box}
            references = read_training_data([{"image": query_image, "boxes": [box]}])
            bank, _ = make_bank(references, [proposals], iou_threshold=overlap, on_unmatched="error")
            query, name = bank.embeddings, bank.class_names[0]

        def make(seen: Seen) -> Detections:
            found = by_query(seen.proposals, query, thresholds=lowest, iou_threshold=overlap, max_detections=most)
            return result(seen, found, (name,))

        return self._each(images, None, color, make)

    # --- example boxes ------------------------------------------------------------------------------------------------

    def detect(self, images: Any, bank: Bank, parameters: Parameters, color: Color | None) -> list[Detections]:
        """Compares pictures with reference embeddings; what `Owlv2.infer` and detectors end in."""
        self.check_open()
        lowest, table = class_thresholds(parameters.confidence, bank.class_names, CONFIDENCE)

        def make(seen: Seen) -> Detections:
            found = few_shot(
                seen.proposals,
                bank,
                thresholds=lowest if table is None else table,
                iou_threshold=parameters.iou_threshold,
                max_detections=parameters.max_detections,
            )
            return result(seen, found, bank.class_names)

        return self._each(images, parameters.max_detections, color, make)

    # --- housekeeping -------------------------------------------------------------------------------------------------

    def reset_cache(self) -> None:
        """Forgets the embeddings of pictures, reference boxes and texts."""
        self._images.cache.clear()
        self._banks.clear()
        self._texts.cache.clear()

    def close(self) -> None:
        """Lets go of both towers; they are freed with the last model that shares them."""
        super().close()
        self._text.close()


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


def result(seen: Seen, found: Found, names: tuple[str, ...]) -> Detections:
    """What was found in one picture, in its pixels."""
    return Detections(
        xyxy=seen.proposals.pixels(found.rows),
        confidence=found.scores,
        class_id=found.class_id,
        class_names=names,
        image_size=seen.proposals.image_size,
        path=seen.path,
    )
