"""Models that turn pictures and texts into vectors of one space: what CLIP and Perception Encoder share.

A plugin brings the networks, the tokeniser and the geometry of its input; batches, trimming, caching, streaming,
comparison and zero-shot classification are here. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lensmount.backends.batching import batch_policy, run_batched
from lensmount.caches.keys import make_key
from lensmount.caches.memory import MemoryCache
from lensmount.clip_tokens import ClipTokenizer, pad
from lensmount.embedding_stream import EmbeddedBatch, stream
from lensmount.errors import ClosedError, InputError, ModelFileError
from lensmount.options import flag, positive
from lensmount.results import Classification, Embeddings
from lensmount.single_graph import SingleGraph

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lensmount.backends.base import Session
    from lensmount.images import Color
    from lensmount.models import BuildContext
    from lensmount.specs import Preprocess

    Vectors = NDArray[np.float32]

TEMPLATES = ("a photo of a {}.",)
TEXT_BATCH = 64
CACHED_TEXTS = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """Pictures against texts.

    Attributes:
        cosine: float32 `(N, M)`: cosine of picture n and text m, -1..1.
        logits: float32 `(N, M)`: cosine times the model's learned scale (plus its bias): what softmax is taken of.
    """

    cosine: Vectors
    logits: Vectors

    @property
    def probabilities(self) -> Vectors:
        """float32 `(N, M)`: softmax over the texts of each picture, as if exactly one of them were true."""
        return softmax(self.logits)


def softmax(logits: Vectors) -> Vectors:
    """Softmax along the last axis, safe for large logits."""
    if not logits.shape[-1]:
        return logits
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    result: Vectors = shifted / shifted.sum(axis=-1, keepdims=True)
    return result


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
        visual, self._text = tower(context, "visual"), tower(context, "textual")
        super().__init__(replace(context, sessions={"visual": visual}), preprocess)
        self._tokens = self._text.inputs[0]
        if len(self._text.inputs) != 1 or len(self._tokens.shape) != 2 or self._tokens.dtype not in ("int64", "int32"):
            raise ModelFileError(
                f"the text graph of {context.card.id!r} should take token ids alone",
                found=str([(spec.name, spec.shape, spec.dtype) for spec in self._text.inputs]),
                expected="one int64 or int32 input of shape (batch, length)",
            )
        length = self._tokens.shape[1]
        self._fixed_length = length if isinstance(length, int) else None
        self.tokenizer = tokenizer
        if self._fixed_length is not None and self._fixed_length < tokenizer.context_length:
            tokenizer.context_length = self._fixed_length
        sizes = {spec.shape[-1] for spec in (visual.outputs[0], self._text.outputs[0]) if spec.shape}
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
        self._text_batch = batch_policy(self._text)
        given = context.caches.get("text")  # an empty cache is falsy
        self._texts = MemoryCache(max_entries=CACHED_TEXTS) if given is None else given
        # Everything but the text that an embedding depends on; hashed once.
        self._key = make_key(
            "text-embedding", context.fingerprint, self._text.backend, self._text.precision, context.options,
            tokenizer.context_length,
        )  # fmt: skip

    # --- pictures -----------------------------------------------------------------------------------------------------

    def __call__(
        self, images: Any, *, batch_size: int | None = None, normalize: bool = True, color: Color | None = None
    ) -> list[Embeddings]:
        """Embeds pictures: a list with one result of one row for each; see `embed_images`."""
        every = self.embed_images(images, batch_size=batch_size, normalize=normalize, color=color)
        return [every[[i]] for i in range(len(every))]

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
            images: One picture or an iterable of them (see `lensmount.images.load`), a folder, or a glob.
            batch_size: Pictures in one run; None for the model's own choice.
            normalize: Vectors of length 1.
            color: Channel order of arrays and tensors, `"bgr"` or `"rgb"`.
            progress: Show a bar on standard error.

        Returns:
            `.vectors` float32 `(N, D)`, one row per picture in order.

        Raises:
            ImageError: A picture cannot be used; nothing is returned of the others.
            OptionError: An option is out of range.
            BackendError: The runtime failed.
        """
        parts = [batch.vectors for batch in self.stream(images, batch_size=batch_size, color=color, progress=progress)]
        return self._result(np.concatenate(parts) if parts else np.empty((0, self.dimension), np.float32), normalize)

    def stream(
        self,
        images: Any,
        *,
        batch_size: int | None = None,
        color: Color | None = None,
        progress: bool = False,
        on_error: Callable[[str, Exception], None] | None = None,
    ) -> Iterator[EmbeddedBatch]:
        """Embeds pictures batch by batch, for more of them than one wants to hold.

        Args:
            images: As for `embed_images`; drawn from as results are taken, so a generator may be endless.
            batch_size: As for `embed_images`.
            color: As for `embed_images`.
            progress: As for `embed_images`.
            on_error: Called with name and `ImageError` for a picture that cannot be used, which is then left out; None
                raises.

        Yields:
            Names, original sizes and vectors (not normalised) of each batch.
        """
        self._check_open()
        size = self.image_batch if batch_size is None else positive("batch_size", batch_size)
        return stream(self, images, size=size, color=color, progress=progress, on_error=on_error)

    def forward_images(self, batch: NDArray[Any]) -> Vectors:
        """Runs the image tower: `(B, C, H, W)` as `preprocess` made it to `(B, D)` float32, not normalised."""
        return self._checked(next(iter(self.forward(batch).values())))

    # --- texts --------------------------------------------------------------------------------------------------------

    def tokenize(self, texts: str | Sequence[str]) -> NDArray[np.integer[Any]]:
        """Token ids `(N, L)` of texts, trimmed to the longest where the graph allows, else of the graph's length.

        Raises:
            InputError: Something is not text.
            ModelFileError: The model came without a tokeniser.
        """
        return pad(self.tokenizer.encode(_texts(texts)), self._fixed_length, self._tokens.dtype)

    def forward_text(self, tokens: NDArray[np.integer[Any]]) -> Vectors:
        """Runs the text tower: ids `(B, L)` to `(B, D)` float32, not normalised."""
        self._check_open()
        outputs = run_batched(self._text, {self._tokens.name: tokens}, self._text_batch)
        return self._checked(next(iter(outputs.values())))

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
            BackendError: The runtime failed.
        """
        self._check_open()
        size = TEXT_BATCH if batch_size is None else positive("batch_size", batch_size)
        wanted = _texts(texts)
        keys = [make_key(self._key, text) for text in wanted]
        found: dict[str, Vectors] = {}
        missing: dict[str, str] = {}
        for key, text in zip(keys, wanted, strict=True):
            if key not in found and key not in missing:
                cached = self._texts.get(key)
                if cached is None:
                    missing[key] = text
                else:
                    found[key] = cached
        if missing:
            found.update(self._embed_missing(missing, size))
        vectors = np.stack([found[key] for key in keys]) if keys else np.empty((0, self.dimension), np.float32)
        return self._result(vectors, normalize)

    def _embed_missing(self, missing: dict[str, str], size: int) -> dict[str, Vectors]:
        rows = dict(zip(missing, self.tokenizer.encode(list(missing.values())), strict=True))
        order = sorted(rows, key=lambda key: len(rows[key]))
        found: dict[str, Vectors] = {}
        for start in range(0, len(order), size):
            keys = order[start : start + size]
            tokens = pad([rows[key] for key in keys], self._fixed_length, self._tokens.dtype)
            for key, vector in zip(keys, self.forward_text(tokens), strict=True):
                vector = vector.copy()  # a row would keep its whole batch alive
                vector.flags.writeable = False
                found[key] = vector
                self._texts.put(key, vector)
        return found

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
        patterns = _texts(templates)
        if not patterns or any("{}" not in pattern for pattern in patterns):
            raise InputError("templates are not usable", found=str(patterns)[:120], expected="texts with {} in each")
        names = _texts(labels)
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
        names = tuple(_texts(labels))
        if not names:
            raise InputError("there are no labels to choose from", found="an empty list", expected="two or more")
        words = self.embed_labels(names, templates)
        results = []
        for batch in self.stream(images, batch_size=batch_size, color=color):
            scores = self.compare(Embeddings(vectors=batch.vectors, normalized=False), words).probabilities
            results += [
                Classification(probabilities=row, class_names=names, image_size=size, path=path)
                for row, size, path in zip(scores, batch.image_sizes, batch.paths, strict=True)
            ]
        return results

    def warmup(self) -> None:
        """Runs both towers once."""
        super().warmup()
        length = self._fixed_length or 2
        self.forward_text(np.zeros((1, length), self._tokens.dtype))

    def close(self) -> None:
        """Frees both sessions; later calls raise `ClosedError`."""
        super().close()
        self._text.close()

    def _result(self, vectors: Vectors, normalize: bool) -> Embeddings:
        made = Embeddings(vectors=vectors, normalized=False)
        if not flag("normalize", normalize):
            return made
        return made.normalize() if len(made) else replace(made, normalized=True)

    def _checked(self, vectors: NDArray[Any]) -> Vectors:
        if vectors.ndim != 2 or vectors.shape[1] != self.dimension:
            raise ModelFileError(
                f"a tower of {self.card.id!r} gave something else than one vector for each row",
                found=str(vectors.shape),
                expected=f"(batch, {self.dimension})",
            )
        return vectors.astype(np.float32, copy=False)

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"model {self._card.id!r} was closed", fix="load it again")


def _texts(texts: str | Sequence[str]) -> list[str]:
    if isinstance(texts, str):
        return [texts]
    if isinstance(texts, bytes | dict) or not hasattr(texts, "__iter__"):
        raise InputError("texts are expected", found=type(texts).__name__, expected="a str, or a list of them")
    found = list(texts)
    for i, text in enumerate(found):
        if not isinstance(text, str):
            raise InputError(f"text {i} is not text", found=type(text).__name__, expected="str")
    return found
