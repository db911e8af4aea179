"""Words to query embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from lensmount.caches.keys import make_key
from lensmount.errors import InputError
from lensmount_owlv2.proposals import Floats, normalise
from lensmount_vision.models.numbers import bad_rows, not_finite
from lensmount_vision.towers.recognise import CONTEXT, VOCABULARY, metadata_number
from lensmount_vision.towers.tokens import Cleaning, ClipTokenizer, pad
from lensmount_vision.towers.vocabulary import load_vocabulary

if TYPE_CHECKING:
    from lensmount.contracts.cache import Cache
    from lensmount.contracts.model import BuildContext
    from lensmount.contracts.session import Session
    from lensmount_vision.models.loaded import LoadedModel

_BATCH = 64
#: OWLv2 is a model of transformers in all its forms.
CLEANING: Cleaning = "transformers"


class TextEmbedder:
    """Embeds texts, each once as long as the cache keeps it.

    Args:
        context: For the tokeniser's files; without any, CLIP's vocabulary is used.
        session: The text tower.
        cache: Keeps vectors.
        identity: Stands for the network in keys.
        model: What errors name.
    """

    def __init__(
        self, context: BuildContext, session: Session, cache: Cache, identity: str, model: LoadedModel
    ) -> None:
        self._model = model
        self._session = session
        self.cache = cache
        self._identity = identity
        rows = int(metadata_number(session.metadata, VOCABULARY, 0))
        loader = partial(
            load_vocabulary, dict(context.files), rows, context.card.id, otherwise="example boxes work without them"
        )
        # One more than fits, so that a text that would be cut shows.
        self._context = int(metadata_number(session.metadata, CONTEXT, 16))
        self._tokenizer = ClipTokenizer(loader, self._context + 1, cleaning=CLEANING)

    def embed(self, texts: Sequence[str]) -> Floats:
        """Vectors of length 1, float32 `(T, D)`.

        Raises:
            InputError: A text has more tokens than the network takes.
            NotFiniteError: The network gave a text's vector NaN or infinity; those of the others are kept.
        """
        keys = [make_key(self._identity, CLEANING, text) for text in texts]
        found: dict[str, Floats] = {}
        missing: dict[str, str] = {}
        for key, text in zip(keys, texts, strict=True):
            kept = self.cache.get(key)
            if kept is None:
                missing[key] = text
            else:
                found[key] = kept
        pending, faults = list(missing.items()), dict[str, str]()
        for start in range(0, len(pending), _BATCH):
            part = pending[start : start + _BATCH]
            made = self._run([text for _, text in part])
            bad = bad_rows({"text_embeds": made}, len(part))
            for row, (key, text) in enumerate(part):
                if row in bad:
                    faults[text] = bad[row]
                    continue
                vector = made[row].copy()
                vector.flags.writeable = False
                self.cache.put(key, vector)
                found[key] = vector
        if faults:
            rows = [found.get(key) for key in keys]
            places = {i: faults[text] for i, text in enumerate(texts) if text in faults}
            raise not_finite(self._model, places, rows, {i: repr(texts[i])[:80] for i in places}, of="text")
        return np.stack([found[key] for key in keys])

    def _run(self, texts: Sequence[str]) -> Floats:
        rows = self._tokenizer.encode(texts)
        for text, row in zip(texts, rows, strict=True):
            if len(row) > self._context:
                raise InputError(
                    "a text is too long for the network",
                    found=repr(text)[:200],
                    expected=f"at most {self._context - 2} tokens, about as many words",
                )
        (spec,), (output,) = self._session.inputs, self._session.outputs
        length = spec.shape[1] if isinstance(spec.shape[1], int) else None
        vectors = self._session.run({spec.name: pad(rows, length)})[output.name].astype(np.float32)
        # The reference normalises twice, first without the small addend.
        with np.errstate(invalid="ignore", divide="ignore"):  # what is not finite is reported
            return normalise(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))
