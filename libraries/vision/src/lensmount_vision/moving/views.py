"""Models as callers of inference-models use them: other names for methods and options, its defaults, tensors out.

A view holds the model that `registry.load` made (`.model`); every attribute that it has not itself is the model's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lensmount.errors import InputError, OptionError
from lensmount_vision.moving.names import ReferenceBoundingBox, ReferenceExample
from lensmount_vision.moving.optimizing import Comparison, checked, compare, other_form, precision_of
from lensmount_vision.moving.parameters import call_options, notice
from lensmount_vision.moving.predictions import (
    ClassificationPrediction,
    Detections,
    SAM2Prediction,
    prediction_of,
    tensor,
)
from lensmount_vision.results import kinds

if TYPE_CHECKING:
    from typing_extensions import Self

#: What a call means there by an option that is not given.
CONFIDENCE, IOU_THRESHOLD, MAX_DETECTIONS = 0.4, 0.3, 300
FEW_SHOT_CONFIDENCE = 0.99
_STAGES = {"input_color_format", "image_size", "pre_processing_overrides", "independent_stage_execution"}


class View:
    """A model under other names.

    Args:
        model: What `registry.load` returned.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.loaded_with: tuple[Any, dict[str, Any]] | None = None  # set by AutoModel

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("model", "loaded_with"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.model, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.model!r}>"

    @property
    def class_names(self) -> list[str]:
        """Names of all classes, by id."""
        names = getattr(self.model, "names", None) or getattr(self.model, "class_names", None)
        return [str(name) for name in names or self.model.card.classes]


class DetectorView(View):
    """Detectors, with masks and keypoints too, and classifiers."""

    _plain: Any = None

    @property
    def supported_mask_formats(self) -> set[str]:
        """`"dense"` and `"rle"`."""
        return {"dense", "rle"}

    @property
    def key_points_classes(self) -> list[list[str]]:
        """The names of the points of each class; the same for all."""
        names = [str(name) for name in getattr(self.model, "keypoint_names", ())]
        return [names for _ in self.class_names]

    @property
    def skeletons(self) -> list[list[tuple[int, int]]]:
        """The pairs of joined points of each class; the same for all."""
        pairs = [(int(a), int(b)) for a, b in getattr(self.model, "skeleton", ())]
        return [pairs for _ in self.class_names]

    def _options(self, given: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
        """Options of the model's call, with that library's defaults, and the format of masks."""
        options = call_options(given)
        form = options.pop("mask_format", "dense")
        if form not in ("dense", "rle"):
            raise OptionError("mask_format is not valid", found=repr(form), expected='"dense" or "rle"')
        if self.model.card.task == "classification":
            return options, form
        recommended = {**dict(self.model.card.recommended), **dict(self.model.package.recommended)}
        known = _parameters_of(self.model.postprocess)
        usual = {"confidence": CONFIDENCE, "iou_threshold": IOU_THRESHOLD, "max_detections": MAX_DETECTIONS}
        if "confidence" in recommended or "per_class_confidence" in recommended:
            del usual["confidence"]
        # Where the model itself says None, it has a number of its own: that of the network's queries.
        usual = {
            name: value for name, value in usual.items() if name in known and (name == "confidence" or known[name])
        }
        return {**usual, **options}, form

    def infer(self, images: Any, **options: Any) -> Any:
        """Calls the model.

        Args:
            images: A picture or several.
            **options: That library's options of calls (`lensmount_vision.moving.CALLS`), and ours.

        Returns:
            One prediction per picture. Of models with keypoints a pair: keypoints, and boxes. Of classifiers one
            prediction for the whole batch.

        Raises:
            OptionError: An option that cannot be had, by name.
            TypeError: An option that does not exist.
        """
        ours, form = self._options(options)
        return self._predictions(self.model(images, **ours), form)

    __call__ = infer

    def pre_process(self, images: Any, **options: Any) -> tuple[Any, Any]:
        """Pictures to the network's input: the batch, and what `post_process` wants to know of the pictures."""
        batch, geometries = self.model.preprocess(images, **call_options(options))
        return batch, geometries

    def forward(self, pre_processed_images: Any, **options: Any) -> Any:
        """Runs the network."""
        call_options(options)
        return self.model.forward(pre_processed_images)

    def post_process(self, model_results: Any, pre_processing_meta: Any, **options: Any) -> Any:
        """The network's outputs to predictions; options and return value as those of `infer`."""
        ours, form = self._options({name: value for name, value in options.items() if name not in _STAGES})
        return self._predictions(self.model.postprocess(model_results, pre_processing_meta, **ours), form)

    def optimize_for_inference(
        self,
        compile: bool = True,
        batch_size: int = 1,
        dtype: Any = None,
        *,
        pictures: Sequence[Any],
        runs: int = 20,
        pixels: float = 1.0,
        scores: float = 0.01,
    ) -> Comparison:
        """Takes a faster form of the model, if it gives the same on your pictures; prints both.

        Args:
            compile: Have torch compile the network; False exports it as an ONNX graph on this machine.
            batch_size: Pictures that an exported graph takes at once.
            dtype: `torch.float16`, `"fp16"` …; None for the plain model's.
            pictures: Pictures such as it will see, with objects in them.
            runs: Calls of each that are timed.
            pixels: Largest difference of a box's corner with which the other form is kept.
            scores: Largest difference of a score.

        Returns:
            What was measured; `.kept` says whether the other form is used now, `remove_optimized_model` undoes it.

        Raises:
            OptionError: The model was not loaded by `AutoModel`, is optimised already, or a limit means nothing.
            LensmountError: No compiler, or weights that nothing exports.
        """
        if self.loaded_with is None or self._plain is not None:
            raise OptionError(
                "this model cannot be optimised",
                found="optimised already" if self._plain is not None else "loaded by something else",
                expected="a model of AutoModel.from_pretrained",
            )
        checked(runs, pixels, scores, pictures)
        how, (name, options) = "compile" if compile else "export", self.loaded_with
        precision = precision_of(dtype)
        other = other_form(name, options, self.model, how=how, precision=precision, batch_size=batch_size)
        try:
            other.warmup()
            made = compare(self.model, other, pictures, how=how, runs=runs, pixels=pixels, scores=scores)
        except BaseException:
            other.close()
            raise
        if made.kept:
            self._plain, self.model = self.model, other
        else:
            other.close()
        print(made)
        return made

    def remove_optimized_model(self) -> None:
        """Goes back to the plain model; nothing where it is used anyway."""
        if self._plain is not None:
            self.model.close()
            self.model, self._plain = self._plain, None

    undo = remove_optimized_model

    def close(self) -> None:
        """Frees the model, both forms of it."""
        self.remove_optimized_model()
        self.model.close()

    def _predictions(self, results: Sequence[Any], form: str) -> Any:
        if results and all(isinstance(result, kinds.Classification) for result in results):
            return ClassificationPrediction(results)
        found = [prediction_of(result, form) for result in results]
        if results and all(isinstance(result, kinds.Keypoints) for result in results):
            return found, [Detections(result) for result in results]
        return found


class EmbedderView(View):
    """Models that embed pictures and texts."""

    def embed_images(self, images: Any, **options: Any) -> Any:
        """float32 `(N, D)` of length 1, one row per picture."""
        return tensor(self.model.embed_images(images, **call_options(options)).vectors)

    def embed_text(self, texts: Any, **options: Any) -> Any:
        """float32 `(N, D)` of length 1, one row per text."""
        return tensor(self.model.embed_text(texts, **call_options(options)).vectors)

    def compare_embeddings(self, x: Any, y: Any, x_type: str = "image", y_type: str = "text", **options: Any) -> Any:
        """Cosines `(N, M)` of every x with every y, each of them pictures or texts.

        Raises:
            OptionError: A type is neither `"image"` nor `"text"`.
        """
        rows = []
        for name, kind, values in (("x_type", x_type, x), ("y_type", y_type, y)):
            if kind not in ("image", "text"):
                raise OptionError(f"{name} is not valid", found=repr(kind), expected='"image" or "text"')
            embed = self.model.embed_images if kind == "image" else self.model.embed_text
            rows.append(embed(values, **call_options(options if kind == "image" else {})))
        return tensor(rows[0].similarity(rows[1]))


class SAM2ImageEmbeddings:
    """An embedded picture.

    Attributes:
        embedding: Our `ImageEmbedding`.
        image_hash: Identifies the picture's content.
        image_size_hw: `(height, width)` of the picture.
        embeddings: `(1, 256, h, w)`.
        high_resolution_features: `(1, 32, 4h, 4w)` and `(1, 64, 2h, 2w)`.
    """

    def __init__(self, embedding: Any) -> None:
        self.embedding = embedding
        self.image_hash: str = embedding.key
        self.image_size_hw: tuple[int, int] = embedding.image_size

    @property
    def embeddings(self) -> Any:
        """The embedding itself."""
        return self.embedding.maps[0]

    @property
    def high_resolution_features(self) -> list[Any]:
        """The maps of high resolution."""
        return list(self.embedding.maps[1:])

    def __repr__(self) -> str:
        return f"<SAM2ImageEmbeddings of {self.embedding!r}>"


class SegmenterView(View):
    """Models that answer prompts with masks (SAM 2).

    Arrays and tensors are RGB unless `input_color_format` says otherwise, as they are taken there. Prompts refine the
    mask of an earlier, smaller prompt on the same picture unless `use_mask_input_cache=False`.
    """

    def _color(self, input_color_format: str | None, images: Any) -> str | None:
        return input_color_format or "rgb" if images is not None else None

    def embed_images(
        self,
        images: Any,
        use_embeddings_cache: bool = True,
        *,
        image_hashes: Any = None,
        input_color_format: str | None = None,
    ) -> list[SAM2ImageEmbeddings]:
        """Encodes pictures; prompts on what it returns are quick."""
        _no_hashes(image_hashes)
        made = self.model.embed_images(images, use_embeddings_cache, color=self._color(input_color_format, images))
        return [SAM2ImageEmbeddings(one) for one in made]

    def segment_images(
        self,
        images: Any = None,
        embeddings: Any = None,
        image_hashes: Any = None,
        point_coordinates: Any = None,
        point_labels: Any = None,
        boxes: Any = None,
        mask_input: Any = None,
        multi_mask_output: bool = True,
        return_logits: bool = False,
        input_color_format: str | None = None,
        mask_threshold: float | None = None,
        load_from_mask_input_cache: bool | None = None,
        save_to_mask_input_cache: bool | None = None,
        use_embeddings_cache: bool = True,
        *,
        use_mask_input_cache: bool = True,
        enforce_mask_input: bool = False,
    ) -> list[SAM2Prediction]:
        """Finds the masks that prompts ask for; see the model's own `segment_images`.

        Raises:
            OptionError: An option that cannot be had, by name.
        """
        _no_hashes(image_hashes)
        if return_logits:
            raise OptionError("segment_images does not take return_logits", fix="read .logits, in low resolution")
        if enforce_mask_input and mask_input is None:
            raise InputError("enforce_mask_input was asked for without a mask", expected="mask_input")
        if load_from_mask_input_cache is not None:
            use_mask_input_cache = load_from_mask_input_cache
        if save_to_mask_input_cache is False:
            notice("segment_images: prompts are always remembered; use_mask_input_cache says whether they are used")
        if embeddings is not None:
            many = embeddings if isinstance(embeddings, (list, tuple)) else [embeddings]
            embeddings = [getattr(one, "embedding", one) for one in many]
        found = self.model.segment_images(
            images,
            embeddings=embeddings,
            point_coordinates=point_coordinates,
            point_labels=point_labels,
            boxes=boxes,
            mask_input=mask_input,
            multi_mask_output=multi_mask_output,
            use_embeddings_cache=use_embeddings_cache,
            use_mask_input_cache=use_mask_input_cache,
            mask_threshold=0.0 if mask_threshold is None else mask_threshold,
            color=self._color(input_color_format, images),
        )
        return [SAM2Prediction(one) for one in found]


class OpenVocabularyView(View):
    """Models that find what words or examples show (OWLv2)."""

    def infer(self, images: Any, classes: Any, **options: Any) -> list[Detections]:
        """Finds what words describe; see `DetectorView.infer` for options."""
        ours = call_options(options)
        ours = {"iou_threshold": IOU_THRESHOLD, "max_detections": MAX_DETECTIONS, **ours}
        if ours.pop("class_agnostic", False):
            raise OptionError("class_agnostic_nms is not taken with words", fix="suppress the boxes of all classes")
        return [Detections(one) for one in self.model(images, classes=classes, **ours)]

    __call__ = infer

    def infer_with_reference_examples(
        self,
        images: Any,
        reference_examples: Sequence[ReferenceExample],
        confidence: Any = FEW_SHOT_CONFIDENCE,
        iou_threshold: float = IOU_THRESHOLD,
        max_detections: int = MAX_DETECTIONS,
        *,
        input_color_format: str | None = None,
    ) -> list[Detections]:
        """Finds what example boxes show."""
        found = self.model.infer(
            images,
            training_data_of(reference_examples),
            confidence=confidence,
            iou_threshold=iou_threshold,
            max_detections=max_detections,
            color=input_color_format,
        )
        return [Detections(one) for one in found]


def training_data_of(examples: Sequence[Any]) -> list[dict[str, Any]]:
    """Reference examples as `training_data`: boxes by their centre in pixels.

    Args:
        examples: `ReferenceExample`s, or dicts of that form.
    """
    rows = []
    for example in examples:
        image = example["image"] if isinstance(example, Mapping) else example.image
        boxes = example["boxes"] if isinstance(example, Mapping) else example.boxes
        size: tuple[int, int] | None = None
        made = []
        for box in boxes:
            known = ReferenceBoundingBox(**box) if isinstance(box, Mapping) else box
            sides = (known.x, known.y, known.w, known.h)
            if not known.absolute:
                size = size or _size_of(image)
                sides = (known.x * size[1], known.y * size[0], known.w * size[1], known.h * size[0])
            keys = dict(zip(("x", "y", "w", "h"), sides, strict=True))
            made.append({**keys, "cls": known.cls, "negative": known.negative})
        rows.append({"image": image, "boxes": made})
    return rows


def view_of(model: Any) -> Any:
    """The view of a model, by its task; the model itself where inference-models has no such task."""
    task = model.card.task
    if hasattr(model, "segment_images"):
        return SegmenterView(model)
    if hasattr(model, "embed_images") and hasattr(model, "embed_text"):
        return EmbedderView(model)
    if task == "open-vocabulary-detection" and hasattr(model, "fit"):
        return OpenVocabularyView(model)
    return DetectorView(model) if hasattr(model, "postprocess") else model


def _no_hashes(image_hashes: Any) -> None:
    if image_hashes is not None:
        fix = "leave it out: the keys of caches are made of the picture's content"
        raise OptionError("image_hashes is not taken", found=repr(image_hashes)[:80], fix=fix)


def _size_of(image: Any) -> tuple[int, int]:
    from lensmount_vision.images import load

    return load(image).size


def _parameters_of(function: Any) -> dict[str, Any]:
    """Parameters of a function with their defaults."""
    import inspect

    return {name: one.default for name, one in inspect.signature(function).parameters.items()}
