"""Encoded pictures, each encoded once as long as a cache keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lensmount.caches.keys import make_key
from lensmount.errors import InputError
from lensmount_sam2.runner import MAPS
from lensmount_vision.images.geometry import Geometry, plan
from lensmount_vision.images.source_keys import image_key
from lensmount_vision.models.numbers import bad_rows

if TYPE_CHECKING:
    from lensmount.contracts.cache import Cache
    from lensmount_sam2.runner import Runner
    from lensmount_vision.images.image import Image


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class ImageEmbedding:
    """What the image encoder makes of a picture: all that prompts need, whatever becomes of the picture.

    Attributes:
        maps: Embedding `(1, 256, h, w)` and the maps of high resolution `(1, 32, 4h, 4w)` and `(1, 64, 2h, 2w)`:
            tensors on the model's device (torch), or host arrays. Read-only.
        geometry: How the picture lies in the network's input.
        key: Identifies the picture's content.
        fingerprint: Identifies weights, input size, backend, device and precision; another model refuses it.
        path: Where the picture came from.
    """

    maps: tuple[Any, Any, Any]
    geometry: Geometry
    key: str
    fingerprint: str
    path: str | None = None

    @property
    def image_size(self) -> tuple[int, int]:
        """`(height, width)` of the picture."""
        return self.geometry.original_size

    def __repr__(self) -> str:
        height, width = self.image_size
        return f"<ImageEmbedding of a picture of {width}x{height}, {self.path or self.key[:12]}>"


class ImageEmbedder:
    """Encodes pictures.

    Args:
        runner: The networks.
        cache: Where maps are kept; it may be shared with other models.
        fingerprint: Part of every key, and of every embedding.
    """

    def __init__(self, runner: Runner, cache: Cache, fingerprint: str) -> None:
        self._runner = runner
        self.cache = cache
        self._fingerprint = fingerprint

    def key(self, image: str) -> str:
        """The cache's key for the maps of a picture, by the picture's key."""
        return make_key("sam2 embedding", self._fingerprint, image)

    def embed(self, pictures: Sequence[Image], use_cache: bool) -> tuple[list[ImageEmbedding], dict[int, str]]:
        """One embedding per picture; equal pictures are encoded once.

        Args:
            pictures: Decoded.
            use_cache: Look the pictures up in the cache, and keep the maps there.

        Returns:
            The embeddings; and what is wrong with those that are not finite, by place. These are not kept.
        """
        keys = [image_key(picture) for picture in pictures]
        found: dict[str, Any] = {}
        wrong: dict[str, str] = {}
        if use_cache:
            cached = {key: self.cache.get(self.key(key)) for key in dict.fromkeys(keys)}
            found = {key: tuple(maps) for key, maps in cached.items() if maps is not None}
        missing = [index for index, key in enumerate(keys) if key not in found and key not in keys[:index]]
        spec = self._runner.preprocess_spec
        for group in self._runner.groups(len(missing)):
            indices = [missing[position] for position in group]
            batch, _ = self._runner.prepare([pictures[index] for index in indices], spec)
            for index, maps in zip(indices, self._runner.encode(batch), strict=True):
                found[keys[index]] = maps
                if fault := bad_rows(dict(zip(MAPS, maps, strict=True)), 1):
                    wrong[keys[index]] = fault[0]
                elif use_cache:
                    self.cache.put(self.key(keys[index]), maps)
        made = [
            ImageEmbedding(
                maps=found[key],
                geometry=plan(picture.size, spec),
                key=key,
                fingerprint=self._fingerprint,
                path=picture.path,
            )
            for picture, key in zip(pictures, keys, strict=True)
        ]
        return made, {index: wrong[key] for index, key in enumerate(keys) if key in wrong}

    def check(self, embeddings: Sequence[Any]) -> None:
        """Refuses what is no embedding, or not of this model.

        Raises:
            InputError: One of them is not.
        """
        for item in embeddings:
            if not isinstance(item, ImageEmbedding):
                raise InputError(
                    "this is no embedding", found=type(item).__name__, expected="what embed_images returned"
                )
            if item.fingerprint != self._fingerprint:
                raise InputError(
                    "an embedding was made by another model, or on another device", fix="embed the picture again"
                )


def check_same(embeddings: Sequence[ImageEmbedding], pictures: Sequence[Image]) -> None:
    """Refuses embeddings of other pictures than those given.

    Raises:
        InputError: A picture is another, or their number differs.
    """
    keys = [image_key(picture) for picture in pictures]
    if keys != [item.key for item in embeddings]:
        raise InputError(
            "the embeddings are not those of the pictures",
            found=f"{len(embeddings)} embeddings, {len(keys)} pictures",
            expected="one embedding of each picture, in order",
            fix="pass the embeddings alone",
        )
