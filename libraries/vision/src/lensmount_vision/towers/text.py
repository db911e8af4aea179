"""The text side of a two-tower model: tokenising, trimming, batches by length, and the cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lensmount.backend.batching import batch_policy, run_batched
from lensmount.caches.keys import make_key
from lensmount.caches.memory import MemoryCache
from lensmount.errors import InputError, ModelFileError
from lensmount_vision.towers.tokens import ClipTokenizer, pad

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lensmount.contracts.model import BuildContext
    from lensmount.contracts.session import Session

    Vectors = NDArray[np.float32]

CACHED_TEXTS = 4096


def as_texts(texts: str | Sequence[str]) -> list[str]:
    """One text or several as a list.

    Raises:
        InputError: Something is not text.
    """
    if isinstance(texts, str):
        return [texts]
    if isinstance(texts, bytes | dict) or not hasattr(texts, "__iter__"):
        raise InputError("texts are expected", found=type(texts).__name__, expected="a str, or a list of them")
    found = list(texts)
    for i, text in enumerate(found):
        if not isinstance(text, str):
            raise InputError(f"text {i} is not text", found=type(text).__name__, expected="str")
    return found


class TextEncoder:
    """Texts to vectors; each text is run once and kept in a cache.

    Args:
        context: What the core handed to the factory; its cache `text` is used where there is one.
        session: The text tower.
        tokenizer: Texts to ids; its context length is cut to what the graph takes.

    Attributes:
        cache: Vectors by model and text.
        fixed_length: Tokens of a graph that takes one length only, else None.

    Raises:
        ModelFileError: The graph does not take token ids alone.
    """

    def __init__(self, context: BuildContext, session: Session, tokenizer: ClipTokenizer) -> None:
        self._session = session
        self._input = session.inputs[0]
        if len(session.inputs) != 1 or len(self._input.shape) != 2 or self._input.dtype not in ("int64", "int32"):
            raise ModelFileError(
                f"the text graph of {context.card.id!r} should take token ids alone",
                found=str([(spec.name, spec.shape, spec.dtype) for spec in session.inputs]),
                expected="one int64 or int32 input of shape (batch, length)",
            )
        length = self._input.shape[1]
        self.fixed_length = length if isinstance(length, int) else None
        self.tokenizer = tokenizer
        if self.fixed_length is not None and self.fixed_length < tokenizer.context_length:
            tokenizer.context_length = self.fixed_length
        self._policy = batch_policy(session)
        given = context.caches.get("text")  # an empty cache is falsy
        self.cache: Any = MemoryCache(max_entries=CACHED_TEXTS) if given is None else given
        # Everything but the text that an embedding depends on; hashed once.
        self._key = make_key(
            "text-embedding",
            context.fingerprint,
            session.backend,
            session.precision,
            context.options,
            tokenizer.context_length,
            tokenizer.cleaning,
        )

    def tokenize(self, texts: Sequence[str]) -> NDArray[np.integer[Any]]:
        """Ids `(N, L)`, trimmed to the longest where the graph allows."""
        return self._pad(self.tokenizer.encode(texts))

    def _pad(self, rows: Sequence[Sequence[int]]) -> NDArray[np.integer[Any]]:
        return pad(rows, self.fixed_length, self._input.dtype)

    def forward(self, tokens: NDArray[np.integer[Any]]) -> NDArray[Any]:
        """Runs the tower: ids `(B, L)` to `(B, D)`."""
        outputs = run_batched(self._session, {self._input.name: tokens}, self._policy)
        vectors: NDArray[Any] = next(iter(outputs.values())).astype(np.float32, copy=False)
        return vectors

    def vectors(self, texts: Sequence[str], size: int, dimension: int) -> Vectors:
        """Vectors `(N, D)`, not normalised; from the cache where they are in it.

        Args:
            texts: Texts, equal ones among them perhaps.
            size: Texts in one run; they are sorted by length, and each run trimmed to its longest.
            dimension: Length of the vectors.
        """
        keys = [make_key(self._key, text) for text in texts]
        found: dict[str, Vectors] = {}
        missing: dict[str, str] = {}
        for key, text in zip(keys, texts, strict=True):
            if key not in found and key not in missing:
                cached = self.cache.get(key)
                if cached is None:
                    missing[key] = text
                else:
                    found[key] = cached
        if missing:
            found.update(self._run(missing, size))
        return np.stack([found[key] for key in keys]) if keys else np.empty((0, dimension), np.float32)

    def _run(self, missing: dict[str, str], size: int) -> dict[str, Vectors]:
        rows = dict(zip(missing, self.tokenizer.encode(list(missing.values())), strict=True))
        order = sorted(rows, key=lambda key: len(rows[key]))
        found: dict[str, Vectors] = {}
        for start in range(0, len(order), size):
            keys = order[start : start + size]
            for key, vector in zip(keys, self.forward(self._pad([rows[key] for key in keys])), strict=True):
                vector = vector.copy()  # a row would keep its whole batch alive
                vector.flags.writeable = False
                found[key] = vector
                if np.isfinite(vector).all():  # the caller refuses the others: they are not worth keeping
                    self.cache.put(key, vector)
        return found

    def warmup(self) -> None:
        """Runs the tower once."""
        self.forward(np.zeros((1, self.fixed_length or 2), self._input.dtype))

    def close(self) -> None:
        """Frees the session."""
        self._session.close()
