"""What is cached, under which keys; and caches under the names that users of inference-models know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lensmount.caches.keys import make_key
from lensmount.caches.memory import MemoryCache

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lensmount.contracts.cache import Cache
    from lensmount_sam2.prompts import Prompts
    from lensmount_vision.results.kinds import PromptedMasks

EMBEDDINGS, MASKS = "embeddings", "masks"
"""Uses that `registry.load(caches={…})` names."""
KEPT_EMBEDDINGS = 8
KEPT_MASKS = 256
_SETS_PER_IMAGE = 64


def default_caches() -> dict[str, MemoryCache]:
    """Caches of a model that was given none: 8 pictures (about 16 MB each at 1024 pixels) and 256 masks."""
    return {EMBEDDINGS: MemoryCache(KEPT_EMBEDDINGS), MASKS: MemoryCache(KEPT_MASKS)}


class Sam2ImageEmbeddingsInMemoryCache:
    """`Sam2ImageEmbeddingsInMemoryCache.init(size_limit=…)` makes a `MemoryCache` for `caches={"embeddings": …}`."""

    @staticmethod
    def init(size_limit: int | None = None, send_to_cpu: bool = False) -> MemoryCache:
        """A cache of `size_limit` pictures (None: bounded by bytes alone), in host memory with `send_to_cpu`."""
        return MemoryCache(size_limit, send_to_cpu=send_to_cpu)


class Sam2LowResolutionMasksInMemoryCache:
    """`Sam2LowResolutionMasksInMemoryCache.init(size_limit=…)` makes a `MemoryCache` for `caches={"masks": …}`."""

    @staticmethod
    def init(size_limit: int | None = None, send_to_cpu: bool = False) -> MemoryCache:
        """A cache of `size_limit` entries (None: bounded by bytes alone); masks lie in host memory anyway."""
        return MemoryCache(size_limit, send_to_cpu=send_to_cpu)


class MaskCache:
    """Low-resolution logits of earlier prompts, by picture and prompt.

    A prompt set is kept under a key of its own; in addition each picture has a list of its latest sets, so that the
    largest one that a new set extends is found. The list is a hint: a set in it may have been dropped since.

    Args:
        cache: Where entries lie; it may be shared with other models.
        fingerprint: Part of every key.
    """

    def __init__(self, cache: Cache, fingerprint: str) -> None:
        self._cache = cache
        self._fingerprint = fingerprint

    def _list_key(self, image: str) -> str:
        return make_key("sam2 prompt sets", self._fingerprint, image)

    def _key(self, image: str, elements: frozenset[tuple[float, ...]]) -> str:
        return make_key("sam2 mask", self._fingerprint, image, elements)

    def put(self, image: str, prompts: Prompts, index: int, logits: NDArray[np.float32]) -> None:
        """Keeps the best mask's logits `(h, w)` of one prompt."""
        elements = prompts.elements(index)
        if not elements:
            return
        self._cache.put(self._key(image, elements), logits.copy())
        key = self._list_key(image)
        known = [item for item in self._sets(image) if item != elements]
        # Two threads may each miss the other's entry here: a hint lost, no result wrong.
        self._cache.put(key, [sorted(item) for item in (*known, elements)][-_SETS_PER_IMAGE:])

    def _sets(self, image: str) -> list[frozenset[tuple[float, ...]]]:
        listed: Any = self._cache.get(self._list_key(image)) or []
        return [frozenset(tuple(element) for element in item) for item in listed]

    def find(self, image: str, prompts: Prompts, index: int) -> NDArray[np.float32] | None:
        """Logits `(h, w)` of the largest earlier set that one prompt extends by a point or a box; None without one."""
        elements = prompts.elements(index)
        earlier = [(len(item), at, item) for at, item in enumerate(self._sets(image)) if item < elements]
        for _, _, item in sorted(earlier, reverse=True, key=lambda entry: entry[:2]):
            logits: NDArray[np.float32] | None = self._cache.get(self._key(image, item))
            if logits is not None:
                return logits
        return None

    def find_all(
        self, image: str, prompts: Prompts, size: tuple[int, int]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]] | None:
        """What `find` gives for every prompt on a picture.

        Args:
            image: The picture's key.
            prompts: P prompts.
            size: `(h, w)` of logits.

        Returns:
            Logits `(P, 1, h, w)`, zero where nothing was found, and `(P,)` 1 where something was; None without any.
        """
        found = [self.find(image, prompts, index) for index in range(len(prompts))]
        if all(item is None for item in found):
            return None
        blank = np.zeros(size, np.float32)
        stacked = np.stack([blank if item is None else item for item in found])
        return stacked[:, None], np.array([item is not None for item in found], np.int64)

    def put_best(self, image: str, prompts: Prompts, result: PromptedMasks) -> None:
        """Keeps the logits of the best mask of every prompt."""
        assert result.logits is not None
        scores = result.scores.reshape(len(prompts), -1)
        logits = result.logits.reshape(*scores.shape, *result.logits.shape[1:])
        for index, best in enumerate(scores.argmax(axis=1).tolist()):
            self.put(image, prompts, index, logits[index, best])
