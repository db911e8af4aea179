"""SAM 2 models: masks from prompts, and trackers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from lensmount.backend.batching import join_batches
from lensmount.caches.keys import make_key
from lensmount.errors import InputError, OptionError, UnsupportedModelError
from lensmount.specs.options import build_options, flag
from lensmount_sam2.caches import EMBEDDINGS, MASKS, MaskCache, default_caches
from lensmount_sam2.embedding import ImageEmbedder, ImageEmbedding, check_same
from lensmount_sam2.options import GenerateOptions
from lensmount_sam2.prompts import Prompts, check_prompts, per_image
from lensmount_sam2.runner import Runner
from lensmount_sam2.selecting import choose, finish
from lensmount_vision.models.loaded import LoadedModel
from lensmount_vision.models.numbers import NotFiniteError, bad_rows, not_finite
from lensmount_vision.models.numbers import finish as finish_outputs
from lensmount_vision.results.kinds import PromptedMasks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lensmount.contracts.cache import Cache
    from lensmount.contracts.model import BuildContext
    from lensmount_sam2.tracker import Tracker
    from lensmount_vision.images.geometry import Geometry
    from lensmount_vision.images.image import Color
    from lensmount_vision.results.kinds import VideoMasks

    Floats = NDArray[np.float32]

PROMPTS_AT_ONCE = 64


def build(context: BuildContext) -> Sam2:
    """Makes the model.

    Raises:
        UnsupportedModelError: The task is not one of this architecture.
        ModelFileError: The package's graphs do not fit each other.
    """
    if context.card.task not in ("interactive-segmentation", "video-segmentation"):
        raise UnsupportedModelError(
            f"{context.card.id!r} has a task that SAM 2 does not have",
            found=context.card.task,
            expected="interactive-segmentation or video-segmentation",
        )
    return Sam2(context)


class Sam2(LoadedModel):
    """Finds the masks of what is pointed at, and follows it through a video.

    Safe to call from several threads; a tracker belongs to one thread at a time.

    Args:
        context: What the core hands to a factory. Of its caches `embeddings` and `masks` are used; for each that is
            missing the model has a small one of its own (`lensmount_sam2.caches.default_caches`).
    """

    def __init__(self, context: BuildContext) -> None:
        self.runner = Runner(context)
        session = self.runner.encoder
        super().__init__(context.card, context.package, session)
        self.preprocess_spec = self.runner.preprocess_spec
        self.fingerprint = make_key(
            "sam2", context.fingerprint, self.preprocess_spec, session.backend, session.device, session.precision
        )
        caches: Mapping[str, Cache] = {**default_caches(), **context.caches}
        unknown = sorted(set(context.caches) - {EMBEDDINGS, MASKS})
        if unknown:
            raise OptionError(
                f"{context.card.id!r} has no use for some caches",
                found=", ".join(unknown),
                expected="embeddings, masks",
            )
        self._embedder = ImageEmbedder(self.runner, caches[EMBEDDINGS], self.fingerprint)
        self._masks = MaskCache(caches[MASKS], self.fingerprint)

    @property
    def image_size(self) -> int:
        """Side of the square that pictures are squashed to, in pixels."""
        return self.runner.image_size

    def warmup(self) -> None:
        """Encodes a blank picture and decodes one point, so that the first real call is not the slow one."""
        side = self.image_size
        maps = self.runner.encode(np.zeros((1, 3, side, side), np.float32))[0]
        self.runner.decode(maps, np.zeros((1, 2, 2), np.float32), np.array([[1, -1]]), None, None)

    def close(self) -> None:
        """Frees the sessions; later calls raise `ClosedError`."""
        super().close()
        self.runner.close()

    # --- pictures -----------------------------------------------------------------------------------------------------

    def preprocess(self, images: Any, *, color: Color | None = None) -> tuple[Floats, list[Geometry]]:
        """Pictures to the encoder's input.

        Args:
            images: One picture or several; see `lensmount_vision.images.loading.load_many`.
            color: Channel order of arrays and tensors, `"bgr"` or `"rgb"`; None for their usual one.

        Returns:
            The batch float32 `(B, 3, S, S)`, and one geometry per picture.
        """
        from lensmount_vision.images.transforms import prepare

        return prepare(self.load_images(images, color), self.preprocess_spec)

    def embed_images(
        self, images: Any, use_embeddings_cache: bool = True, *, color: Color | None = None
    ) -> list[ImageEmbedding]:
        """Encodes pictures, which is what takes long; prompts on an embedding are quick.

        Args:
            images: A picture or several: paths, URLs, bytes, PIL images, arrays, tensors.
            use_embeddings_cache: Look the pictures up in the cache, and keep the embeddings there.
            color: Channel order of arrays and tensors.

        Returns:
            One embedding per picture.

        Raises:
            ImageError: A picture cannot be used.
            BackendError: The runtime failed.
            NotFiniteError: The network gave a picture's embedding NaN or infinity; it has the others'.
        """
        flag("use_embeddings_cache", use_embeddings_cache)
        made, faults = self._embedder.embed(self.load_images(images, color), use_embeddings_cache)
        if faults:
            good = [None if index in faults else item for index, item in enumerate(made)]
            raise not_finite(self, faults, good, {index: made[index].path for index in faults})
        return made

    # --- prompts ------------------------------------------------------------------------------------------------------

    def segment_images(
        self,
        images: Any = None,
        *,
        embeddings: ImageEmbedding | Sequence[ImageEmbedding] | None = None,
        point_coordinates: Any = None,
        point_labels: Any = None,
        boxes: Any = None,
        mask_input: Any = None,
        multi_mask_output: bool = True,
        use_embeddings_cache: bool = True,
        use_mask_input_cache: bool = False,
        mask_threshold: float = 0.0,
        color: Color | None = None,
    ) -> list[PromptedMasks]:
        """Finds the masks that prompts ask for. Coordinates are original pixels.

        With several pictures a list of prompts has one entry per picture, and an array is for every picture. A picture
        whose entries are empty lists, or None beside pictures that have prompts, gets an empty result. A box that
        reaches over the picture's edge ends there; one wholly outside is refused, as are points outside.

        Args:
            images: A picture or several; None where `embeddings` are given.
            embeddings: From `embed_images`; pictures given as well must be the same ones.
            point_coordinates: `(N, 2)` points x, y of one prompt, or `(P, N, 2)` of P prompts.
            point_labels: `(N,)` or `(P, N)`: 1 on the object, 0 off it, -1 for one that does not count (to fill up
                prompts of fewer points). None: all on the object.
            boxes: `(4,)` xyxy of one prompt, or `(P, 4)`; with points, both describe the same object.
            mask_input: `(1, h, w)`, or `(P, 1, h, w)`: low-resolution logits of an earlier result to refine.
            multi_mask_output: Three masks per prompt, of the whole, a part and a smaller part; else one. One is
                better where a prompt leaves no doubt: a box, several points.
            use_embeddings_cache: As in `embed_images`.
            use_mask_input_cache: Refine the mask of the largest earlier prompt on the same picture that this one
                extends by a point or a box. Prompts are remembered either way.
            mask_threshold: Logit above which a pixel is mask.
            color: Channel order of arrays and tensors.

        Returns:
            One result per picture: M = 3 or 1 masks per prompt, prompt by prompt, in the decoder's order.

        Raises:
            InputError: A prompt or an embedding is not valid.
            ImageError: A picture cannot be used.
            BackendError: The runtime failed.
        """
        flag("multi_mask_output", multi_mask_output)
        flag("use_mask_input_cache", use_mask_input_cache)
        threshold = _finite("mask_threshold", mask_threshold)
        given, faults = self._embeddings_of(images, embeddings, use_embeddings_cache, color)
        count = len(given)
        columns = [
            per_image("point_coordinates", point_coordinates, count, 2),
            per_image("point_labels", point_labels, count, 1),
            per_image("boxes", boxes, count, 1),
            per_image("mask_input", mask_input, count, 2),
        ]
        rows = _without_prompts(
            list(zip(*columns, strict=True)), each_has_labels=isinstance(point_labels, list | tuple)
        )
        prompts = [
            check_prompts(*row, image_size=embedding.image_size, mask_size=self.runner.mask_size, empty=True)
            for embedding, row in zip(given, rows, strict=True)
        ]
        results: list[PromptedMasks | None] = []
        for index, (embedding, prompt) in enumerate(zip(given, prompts, strict=True)):
            if index in faults:
                results.append(None)
                continue
            try:
                results.append(self._segment(embedding, prompt, multi_mask_output, use_mask_input_cache, threshold))
            except NotFiniteError as error:
                results.append(None)
                faults[index] = error.faults[0]
        if faults:
            raise not_finite(self, faults, results, {i: given[i].path for i in faults})
        return cast("list[PromptedMasks]", results)

    __call__ = segment_images

    def _embeddings_of(
        self, images: Any, embeddings: Any, use_cache: bool, color: Color | None
    ) -> tuple[list[ImageEmbedding], dict[int, str]]:
        if embeddings is None:
            if images is None:
                raise InputError("there is no picture", expected="images or embeddings")
            return self._embedder.embed(self.load_images(images, color), flag("use_embeddings_cache", use_cache))
        given = [embeddings] if isinstance(embeddings, ImageEmbedding) else list(embeddings)
        self.check_open()
        self._embedder.check(given)
        if images is not None:
            check_same(given, self.load_images(images, color))
        if not given:
            raise InputError("there is no picture", found="an empty list of embeddings")
        return given, {}

    def _segment(
        self, embedding: ImageEmbedding, prompts: Prompts, several: bool, extend: bool, threshold: float
    ) -> PromptedMasks:
        if not len(prompts):
            nothing = np.zeros((0, 3 if several else 1, *self.runner.mask_size), np.float32)
            geometry = embedding.geometry
            return self.postprocess(nothing, nothing[..., 0, 0], geometry, several=True, path=embedding.path)
        masks, counted = prompts.masks, None
        if extend and masks is None:
            masks, counted = self._masks.find_all(embedding.key, prompts, self.runner.mask_size) or (None, None)
        points, labels = prompts.encode(embedding.geometry)
        parts = []
        for start in range(0, len(prompts), PROMPTS_AT_ONCE):
            rows = slice(start, start + PROMPTS_AT_ONCE)
            logits, scores = self.runner.decode(
                embedding.maps,
                points[rows],
                labels[rows],
                None if masks is None else masks[rows],
                None if counted is None else counted[rows],
            )
            parts.append(choose(logits, scores, several))
        logits, scores = (join_batches(column) for column in zip(*parts, strict=True))
        several_prompts, path = prompts.several, embedding.path
        (result,) = finish_outputs(
            self,
            {"logits": logits, "scores": scores},
            [embedding.geometry],
            [path],
            lambda raw, places, _: [
                self.postprocess(
                    raw["logits"], raw["scores"], places[0], threshold=threshold, several=several_prompts, path=path
                )
            ],
        )
        self._masks.put_best(embedding.key, prompts, result)
        return result

    def postprocess(
        self,
        logits: Any,
        scores: Any,
        geometry: Geometry,
        *,
        threshold: float = 0.0,
        several: bool = False,
        path: str | None = None,
    ) -> PromptedMasks:
        """Chosen logits to a result.

        Args:
            logits: float32 `(P, M, h, w)`, as `lensmount_sam2.selecting.choose` gives them: an array, or a tensor,
                whose masks are then made on its device.
            scores: float32 `(P, M)`, likewise.
            geometry: As `preprocess` returned it.
            threshold: Logit above which a pixel is mask.
            several: Whether the prompts came as a list, be it of one.
            path: Where the picture came from.

        Returns:
            P * M masks; their `logits` are clamped to ±32, as the decoder wants them back.
        """
        count, each = (int(size) for size in logits.shape[:2])
        masks, scores, clamped = finish(logits.reshape(-1, *logits.shape[2:]), scores, geometry, threshold)
        return PromptedMasks(
            masks=masks,
            scores=scores.reshape(-1),
            logits=clamped,
            prompt_id=np.repeat(np.arange(count), each) if several else None,
            image_size=geometry.original_size,
            path=path,
        )

    def generate(self, image: Any, points_per_side: int = 32, **settings: Any) -> PromptedMasks:
        """Everything in a picture: prompts with a grid of points and keeps the masks that are good and differ.

        Args:
            image: One picture.
            points_per_side: The grid has this many points along each side.
            **settings: Fields of `lensmount_sam2.options.GenerateOptions`; unknown ones are refused.

        Returns:
            Masks with the box of each, best first, without logits.

        Raises:
            InputError: Several pictures.
            UnknownOptionError: An unknown setting.
            OptionError: A setting is out of range.
        """
        from lensmount_sam2.mask_generator import generate

        options = build_options(GenerateOptions, {"points_per_side": points_per_side, **settings}, "generate")
        embeddings = self.embed_images(image, options.use_embeddings_cache, color=options.color)
        if len(embeddings) != 1:
            raise InputError("generate takes one picture at a time", found=f"{len(embeddings)} pictures")
        path = embeddings[0].path

        def check(outputs: Mapping[str, Any]) -> None:
            if faults := bad_rows({name: value[None] for name, value in outputs.items()}, 1):
                raise not_finite(self, faults, [None], {0: path})

        return generate(self.runner, embeddings[0], options, check)

    # --- video --------------------------------------------------------------------------------------------------------

    def track(self, *, total_frames: int | None = None, max_conditioning_frames: int = 8) -> Tracker:
        """A tracker for one video or camera; a model has as many as you like.

        Args:
            total_frames: Length of the video, where it is known and below 16; it scales how far back object
                pointers count. None for a stream.
            max_conditioning_frames: Prompted frames that are kept per object; the ones nearest in time stay.

        Raises:
            UnsupportedModelError: The backend is not torch, or the weights have no parts for video.
        """
        self.runner.require_tracking()
        from lensmount_sam2.tracker import Tracker

        return Tracker(self.runner, total_frames=total_frames, max_conditioning_frames=max_conditioning_frames)

    def propagate(self, video: Any, prompts: Any, **options: Any) -> Iterator[VideoMasks]:
        """Follows objects through a whole file; see `lensmount_sam2.propagation.propagate`."""
        self.runner.require_tracking()
        from lensmount_sam2.propagation import propagate

        return propagate(self.runner, video, prompts, **options)


def _without_prompts(rows: list[tuple[Any, ...]], each_has_labels: bool) -> list[tuple[Any, ...]]:
    """Rows (points, labels, boxes, masks) of pictures; one that has only None beside others gets no boxes."""
    none = [points is boxes is masks is None for points, _, boxes, masks in rows]
    if all(none):
        return rows
    return [
        (None, labels if each_has_labels else None, (), None) if bare else (points, labels, boxes, masks)
        for bare, (points, labels, boxes, masks) in zip(none, rows, strict=True)
    ]


def _finite(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not np.isfinite(float(value)):
        raise OptionError(f"{name} is not valid", found=repr(value), expected="a number")
    return float(value)
