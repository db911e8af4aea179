"""Pictures to proposals, through a cache that is asked before anything is decoded."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from lensmount_owlv2.proposals import NONE, Proposals, from_outputs, on_host
from lensmount_vision.images.requests import from_request
from lensmount_vision.images.source_keys import source_key
from lensmount_vision.models.numbers import bad_rows, not_finite

if TYPE_CHECKING:
    from collections.abc import Callable

    from lensmount.contracts.cache import Cache
    from lensmount_vision.images.geometry import Geometry
    from lensmount_vision.images.image import Color, Image


@dataclass(frozen=True, slots=True)
class Seen:
    """Proposals of one input.

    Attributes:
        proposals: What was found.
        path: Path or address of the input, None when it came as data.
        fault: What was wrong with the network's outputs; there are no proposals then.
    """

    proposals: Proposals
    path: str | None
    fault: str | None = None


class ImageEmbedder:
    """Embeds pictures, each once as long as the cache keeps it.

    Pixels live only while their batch is made; the cache holds proposals alone.

    Args:
        prepare: Pictures to the network's input and geometries.
        forward: The network's input to its outputs.
        cache: Keeps `Proposals`.
        identity: Stands for network, backend, device, precision and preprocessing in keys.
        batch: Most pictures in one run.
        model: Whose networks they are, for messages.
    """

    def __init__(
        self,
        prepare: Callable[[Sequence[Image]], tuple[Any, list[Geometry]]],
        forward: Callable[[Any], Mapping[str, Any]],
        cache: Cache,
        identity: str,
        batch: int,
        model: Any,
    ) -> None:
        self._model = model
        self._prepare = prepare
        self._forward = forward
        self.cache = cache
        self._identity = identity
        self.batch = batch

    def stream(self, sources: Iterable[Any], count: int | None, color: Color | None) -> Iterator[Seen]:
        """Proposals of inputs in their order, a batch at a time, holding no more than that.

        Args:
            sources: Single inputs.
            count: Proposals of each, those most likely to be an object; None for all.
            color: See `lensmount_vision.images.loading.load`.

        Raises:
            ImageError: A picture cannot be used.
            BackendError: The network failed.
        """
        items = iter(sources)
        while chunk := [settle(source, color) for source in islice(items, self.batch)]:
            yield from self._embed(chunk, count, color)

    def all(self, sources: Sequence[Any], count: int | None, color: Color | None) -> list[Seen]:
        """Proposals of reference pictures: those not kept yet share runs of the network.

        Raises:
            NotFiniteError: The network gave no usable numbers for one of them.
        """
        settled = [settle(source, color) for source in sources]
        every = self._embed(settled, count, color)
        if faults := {i: seen.fault for i, seen in enumerate(every) if seen.fault}:
            raise not_finite(self._model, faults, names={i: every[i].path for i in faults}, of="reference picture")
        return every

    def _embed(self, sources: Sequence[Any], count: int | None, color: Color | None) -> list[Seen]:
        keys = [f"{self._identity}:{source_key(source, color)}" for source in sources]
        found: dict[str, Proposals | str] = {}
        missing: dict[str, Any] = {}
        for key, source in zip(keys, sources, strict=True):
            if key in found or key in missing:
                continue
            kept = self._get(key, count)
            if kept is None:
                missing[key] = source
            else:
                found[key] = kept
        pending = list(missing.items())
        for start in range(0, len(pending), self.batch):
            found |= self._run(pending[start : start + self.batch], count, color)
        seen = []
        for key, source in zip(keys, sources, strict=True):
            made = found[key]
            fault = made if isinstance(made, str) else None
            seen.append(Seen(NONE if isinstance(made, str) else made, path_of(source), fault))
        return seen

    def _get(self, key: str, count: int | None) -> Proposals | None:
        """What is kept: exactly as many, or all, of which the first are as good."""
        kept = self.cache.get(f"{key}:{count}")
        if kept is None and count is not None:
            kept = self.cache.get(f"{key}:None")
        return None if kept is None else kept.top(count)

    def _run(
        self, pending: Sequence[tuple[str, Any]], count: int | None, color: Color | None
    ) -> dict[str, Proposals | str]:
        """Proposals by key, or what was wrong with the outputs."""
        from lensmount_vision.images.loading import load

        pictures = [load(source, color=color) for _, source in pending]
        batch, _ = self._prepare(pictures)
        sizes = [picture.size for picture in pictures]
        del pictures
        outputs = self._forward(batch)
        faults = bad_rows(outputs, len(pending))
        raw = on_host(outputs, count)
        made: dict[str, Proposals | str] = {}
        for row, ((key, _), size) in enumerate(zip(pending, sizes, strict=True)):
            if row in faults:
                made[key] = faults[row]
                continue
            made[key] = from_outputs(raw, row, size, count)
            self.cache.put(f"{key}:{count}", made[key])
        return made


def settle(source: Any, color: Color | None) -> Any:
    """An input that can be looked at twice: a file object is read."""
    if callable(getattr(source, "read", None)):
        from lensmount_vision.images.loading import load

        return load(source, color=color)
    return source


def path_of(source: Any) -> str | None:
    """Path or address of an input, or None."""
    source = from_request(source)
    if isinstance(source, str | os.PathLike):
        text = os.fsdecode(os.fspath(source))
        return None if text.startswith("data:") else text
    path = getattr(source, "path", None)
    return path if isinstance(path, str) else None
