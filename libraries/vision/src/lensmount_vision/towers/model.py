"""Models that turn pictures and texts into vectors of one space: what CLIP and Perception Encoder share.

A plugin brings the networks, the tokeniser and the geometry of its input; batches, trimming, caching, streaming,
comparison and zero-shot classification are here. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from lensmount.backend.tensors import host_array
from lensmount.errors import InputError, LensmountError, ModelFileError
from lensmount.specs.options import flag, positive
from lensmount_vision.models.numbers import NotFiniteError, bad_rows, not_finite
from lensmount_vision.models.single_graph import SingleGraph
from lensmount_vision.results.kinds import Classification, Embeddings
from lensmount_vision.towers.similarity import Comparison
from lensmount_vision.towers.stream import EmbeddedBatch, stream
from lensmount_vision.towers.text import TextEncoder, as_texts
from lensmount_vision.towers.tokens import ClipTokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lensmount.contracts.model import BuildContext
    from lensmount.contracts.session import Session
    from lensmount.specs import Preprocess
    from lensmount_vision.images.image import Color, Image

    Vectors = NDArray[np.float32]

R = TypeVar("R")
TEMPLATES = ("a photo of a {}.",)
TEXT_BATCH = 64


def tower(context: BuildContext, name: str) -> Session:
    """The session of a tower, `visual` or `textual`, of either a torch package or a pair of graphs.

    Raises:
        ModelFileError: The package has no such tower.
    """
    for key in (name, f"{name}.onnx"):
        if key in context.sessions:
            return context.sessions[key]
    found = next((s for key, s in context.sessions.items() if key.rpartition(".")[0] == name), None)
    if found is None:
        raise ModelFileError(
            f"package {context.package.name!r} of {context.card.id!r} has no {name} tower",
            found=", ".join(sorted(context.sessions)),
            expected="two graphs, visual and textual",
        )
    return found


class EmbeddingModel(SingleGraph):
    """Embeds pictures and texts. Safe to call from several threads.

    Args:
        context: What the core hands to a factory; sessions `visual` and `textual`.
        preprocess: How pictures become the network's input.
        tokenizer: Texts to ids.
        logit_scale: Factor of the calibrated scores.
        logit_bias: Added to them.
        image_batch: Pictures in one run where the caller does not say.

    Raises:
        ModelFileError: The graphs do not take pictures and token ids, or their vectors differ in length.
    """

    def __init__(
        self,
        context: BuildContext,
        preprocess: Preprocess,
        tokenizer: ClipTokenizer,
        *,
        logit_scale: float,
        logit_bias: float = 0.0,
        image_batch: int = 16,
    ) -> None:
        visual, textual = tower(context, "visual"), tower(context, "textual")
        super().__init__(replace(context, sessions={"visual": visual}), preprocess)
        self.text_encoder = TextEncoder(context, textual, tokenizer)
        self.tokenizer = tokenizer
        sizes = {spec.shape[-1] for spec in (visual.outputs[0], textual.outputs[0]) if spec.shape}
        known = {size for size in sizes if isinstance(size, int)}
        if len(known) != 1:
            raise ModelFileError(
                f"the towers of {context.card.id!r} do not give vectors of one known length", found=str(sorted(known))
            )
        self.dimension: int = known.pop()
        self.fingerprint = context.fingerprint
        self.logit_scale = logit_scale
        self.logit_bias = logit_bias
        self.image_batch = image_batch

    # --- pictures -----------------------------------------------------------------------------------------------------

    def __call__(
        self, images: Any, *, batch_size: int | None = None, normalize: bool = True, color: Color | None = None
    ) -> list[Embeddings]:
        """Embeds pictures: a list with one result of one row for each; see `embed_images`."""
        flag("normalize", normalize)

        def make(batch: EmbeddedBatch) -> list[Embeddings]:
            made = self._result(batch.vectors, normalize)
            return [made[[row]] for row in range(len(made))]

        return self._each(images, batch_size, color, make)

    def _each(
        self, images: Any, size: int | None, color: Color | None, make: Callable[[EmbeddedBatch], list[R]]
    ) -> list[R]:
        """A result for each picture.

        Raises:
            NotFiniteError: The network gave a picture's vector NaN or infinity; it has the others' results.
        """
        faults: dict[int, str] = {}
        names: dict[int, str | None] = {}
        by_place: dict[int, R] = {}

        def failed(name: str, error: LensmountError) -> None:
            if not isinstance(error, NotFiniteError):
                raise error
            faults.update(error.faults)
            names.update(dict.fromkeys(error.faults, name))

        for batch in self.embed_batches(images, batch_size=size, color=color, on_error=failed):
            by_place.update(zip(batch.indices, make(batch), strict=True))
        if faults:
            raise not_finite(self, faults, [by_place.get(i) for i in range(len(by_place) + len(faults))], names)
        return [by_place[i] for i in range(len(by_place))]

    def embed_images(
        self,
        images: Any,
        *,
        batch_size: int | None = None,
        normalize: bool = True,
        color: Color | None = None,
        progress: bool = False,
    ) -> Embeddings:
        """Embeds any number of pictures; decoding overlaps the network, and memory holds two batches of pictures.

        Args:
            images: One picture or an iterable of them (see `lensmount_vision.images.load`), a folder, or a glob.
            batch_size: Pictures in one run; None for the model's own choice.
            normalize: Vectors of length 1.
            color: Channel order of arrays and tensors, `"bgr"` or `"rgb"`.
            progress: Show a bar on standard error.

        Returns:
            `.vectors` float32 `(N, D)`, one row per picture in order.

        Raises:
            ImageError: A picture cannot be used; nothing is returned of the others.
            OptionError: An option is out of range.
            BackendError: The runtime failed, or gave a picture's vector NaN or infinity: a call of the model has the
                others' results in the error, `embed_batches(on_error=...)` leaves such pictures out.
        """
        parts = [
            batch.vectors for batch in self.embed_batches(images, batch_size=batch_size, color=color, progress=progress)
        ]
        return self._result(np.concatenate(parts) if parts else np.empty((0, self.dimension), np.float32), normalize)

    def embed_batches(
        self,
        images: Any,
        *,
        batch_size: int | None = None,
        color: Color | None = None,
        progress: bool = False,
        on_error: Callable[[str, LensmountError], None] | None = None,
    ) -> Iterator[EmbeddedBatch]:
        """Embeds pictures batch by batch, for more of them than one wants to hold.

        Args:
            images: As for `embed_images`; drawn from as results are taken, so a generator may be endless.
            batch_size: As for `embed_images`.
            color: As for `embed_images`.
            progress: As for `embed_images`.
            on_error: Called with name and error for a picture that cannot be used (`ImageError`), or whose vector is
                not finite (`BackendError`), which is then left out; None raises.

        Yields:
            Names, original sizes and vectors (not normalised) of each batch.
        """
        self.check_open()
        size = self.image_batch if batch_size is None else positive("batch_size", batch_size)
        return stream(self, images, size=size, color=color, progress=progress, on_error=on_error)

    def forward_images(self, batch: NDArray[Any]) -> Vectors:
        """Runs the image tower: `(B, C, H, W)` as `preprocess` made it to `(B, D)` float32, not normalised.

        Raises:
            NotFiniteError: A picture's vector holds NaN or infinity; those of the others are in its `results`.
        """
        return self._finite(self._checked(next(iter(self.forward(batch).values()))), "picture")

    def forward_pictures(self, pictures: Sequence[Image]) -> Vectors:
        """Prepares pictures and runs the image tower: `(B, D)` float32, not normalised."""
        raw, _ = self.infer_pictures(pictures)
        return self._finite(self._checked(host_array(next(iter(raw.values())))), "picture")

    # --- texts --------------------------------------------------------------------------------------------------------

    def tokenize(self, texts: str | Sequence[str]) -> NDArray[np.integer[Any]]:
        """Token ids `(N, L)` of texts, trimmed to the longest where the graph allows, else of the graph's length.

        Raises:
            InputError: Something is not text.
            ModelFileError: The model came without a tokeniser.
        """
        return self.text_encoder.tokenize(as_texts(texts))

    def forward_text(self, tokens: NDArray[np.integer[Any]]) -> Vectors:
        """Runs the text tower: ids `(B, L)` to `(B, D)` float32, not normalised."""
        self.check_open()
        return self._finite(self._checked(self.text_encoder.forward(tokens)), "text")

    def embed_text(
        self, texts: str | Sequence[str], *, batch_size: int | None = None, normalize: bool = True
    ) -> Embeddings:
        """Embeds texts; those embedded before come from the cache, and equal ones are run once.

        Args:
            texts: One text or several; texts beyond the context length are cut, as the reference does.
            batch_size: Texts in one run. They are sorted by length, and each run trimmed to its longest.
            normalize: Vectors of length 1.

        Returns:
            `.vectors` float32 `(N, D)`, one row per text in order.

        Raises:
            InputError: Something is not text.
            ModelFileError: The model came without a tokeniser, or with another one.
            BackendError: The runtime failed, or gave a text's vector NaN or infinity.
        """
        self.check_open()
        size = TEXT_BATCH if batch_size is None else positive("batch_size", batch_size)
        words = as_texts(texts)
        vectors = self.text_encoder.vectors(words, size, self.dimension)
        if faults := bad_rows({"vectors": vectors}, len(words)):
            good = [None if i in faults else self._result(vectors[[i]], normalize) for i in range(len(words))]
            raise not_finite(self, faults, good, {i: repr(words[i])[:80] for i in faults}, of="text")
        return self._result(self._checked(vectors), normalize)

    # --- both ---------------------------------------------------------------------------------------------------------

    def compare(self, images: Any, texts: Any, *, batch_size: int | None = None) -> Comparison:
        """Compares pictures with texts.

        Args:
            images: Pictures as for `embed_images`, or `Embeddings` of them.
            texts: Texts, or `Embeddings` of them.
            batch_size: Pictures in one run.

        Returns:
            Cosines and calibrated scores `(N, M)`.
        """
        pictures = images if isinstance(images, Embeddings) else self.embed_images(images, batch_size=batch_size)
        words = texts if isinstance(texts, Embeddings) else self.embed_text(texts)
        cosine = pictures.similarity(words).astype(np.float32, copy=False)
        logits = cosine * np.float32(self.logit_scale) + np.float32(self.logit_bias)
        return Comparison(cosine, logits.astype(np.float32, copy=False))

    def embed_labels(self, labels: Sequence[str], templates: str | Sequence[str] = TEMPLATES) -> Embeddings:
        """One vector per label: the mean over templates of the normalised embeddings, normalised again.

        Raises:
            InputError: A template without `{}`, no template, or no text.
        """
        patterns = as_texts(templates)
        if not patterns or any("{}" not in pattern for pattern in patterns):
            raise InputError("templates are not usable", found=str(patterns)[:120], expected="texts with {} in each")
        names = as_texts(labels)
        every = self.embed_text([p.replace("{}", name) for name in names for p in patterns])
        means = every.vectors.reshape(len(names), len(patterns), self.dimension).mean(axis=1)
        return Embeddings(vectors=means, normalized=False).normalize()

    def classify(
        self,
        images: Any,
        labels: Sequence[str],
        *,
        templates: str | Sequence[str] = TEMPLATES,
        batch_size: int | None = None,
        color: Color | None = None,
    ) -> list[Classification]:
        """Zero-shot classification: which label fits each picture best.

        Args:
            images: As for `embed_images`.
            labels: Two or more names; they are taken to exclude each other.
            templates: Sentences with `{}` for the label; embeddings are averaged over them.
            batch_size: Pictures in one run.
            color: Channel order of arrays and tensors.

        Returns:
            One result per picture: probabilities (softmax of the calibrated scores) by label.

        Raises:
            InputError: No labels, or as for `embed_labels`.
        """
        names = tuple(as_texts(labels))
        if not names:
            raise InputError("there are no labels to choose from", found="an empty list", expected="two or more")
        words = self.embed_labels(names, templates)

        def make(batch: EmbeddedBatch) -> list[Classification]:
            scores = self.compare(Embeddings(vectors=batch.vectors, normalized=False), words).probabilities
            return [
                Classification(probabilities=row, class_names=names, image_size=size, path=path)
                for row, size, path in zip(scores, batch.image_sizes, batch.paths, strict=True)
            ]

        return self._each(images, batch_size, color, make)

    def warmup(self) -> None:
        """Runs both towers once."""
        super().warmup()
        self.text_encoder.warmup()

    def close(self) -> None:
        """Frees both sessions; later calls raise `ClosedError`."""
        super().close()
        self.text_encoder.close()

    def _result(self, vectors: Vectors, normalize: bool) -> Embeddings:
        made = Embeddings(vectors=vectors, normalized=False)
        if not flag("normalize", normalize):
            return made
        return made.normalize() if len(made) else replace(made, normalized=True)

    def _finite(self, vectors: Vectors, of: str) -> Vectors:
        if faults := bad_rows({"vectors": vectors}, len(vectors)):
            raise not_finite(self, faults, [None if i in faults else v for i, v in enumerate(vectors)], of=of)
        return vectors

    def _checked(self, vectors: NDArray[Any]) -> Vectors:
        if vectors.ndim != 2 or vectors.shape[1] != self.dimension:
            raise ModelFileError(
                f"a tower of {self.card.id!r} gave something else than one vector for each row",
                found=str(vectors.shape),
                expected=f"(batch, {self.dimension})",
            )
        return vectors.astype(np.float32, copy=False)
