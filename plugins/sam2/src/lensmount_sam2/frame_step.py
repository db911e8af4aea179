"""One frame, one object: the networks in the order that tracking wants them. Tensors stay on the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from lensmount.backend import settled
from lensmount.errors import ClosedError
from lensmount_sam2.memory_bank import Recall, Record
from lensmount_sam2.networks.memory import MASK_BIAS, MASK_SCALE
from lensmount_sam2.on_device import stability
from lensmount_sam2.on_host import CLAMP, STABILITY_DELTA, STABILITY_THRESHOLD

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from lensmount_sam2.networks.decoder import MaskDecoder
    from lensmount_sam2.networks.encoder import ImageEncoder
    from lensmount_sam2.networks.memory import Memory
    from lensmount_sam2.runner import Runner

ABSENT = -1024.0
"""Logit of every pixel of an object that is not in sight."""


@dataclass(frozen=True, slots=True)
class Found:
    """Masks of B objects on a frame, before they become memories.

    Attributes:
        logits: `(B, 1, 4h, 4w)`.
        presence: `(B, 1)` logits.
        token: `(B, 256)` that each pointer is made of.
    """

    logits: Tensor
    presence: Tensor
    token: Tensor


class Stepper:
    """The networks of a model that `Runner.require_tracking` has no objection to, as a tracker uses them."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self.reach = self._memory.reach

    def _module(self, name: str) -> Any:
        try:
            module = self._runner.module(name)
        except ClosedError:
            module = None
        if module is None:
            raise ClosedError("the model of this tracker was closed", fix="load it again")
        return module

    @property
    def _encoder(self) -> ImageEncoder:
        return cast("ImageEncoder", self._module("encoder"))

    @property
    def _decoder(self) -> MaskDecoder:
        return cast("MaskDecoder", self._module("decoder").decoder)

    @property
    def _memory(self) -> Memory:
        return cast("Memory", self._module("memory"))

    def _tensor(self, array: NDArray[Any] | Tensor) -> Tensor:
        tensor = array if isinstance(array, Tensor) else torch.from_numpy(array)
        return tensor.to(self._memory.cosines.device)

    @settled()
    def encode(self, batch: NDArray[np.float32] | Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Maps of a frame, without the mark of an image that has no past."""
        encoder = self._encoder
        return encoder.maps(self._tensor(batch).to(encoder.no_mem_embed.dtype))

    @settled()
    def prompt(
        self,
        maps: tuple[Tensor, Tensor, Tensor],
        points: NDArray[np.float32],
        labels: NDArray[np.int64],
        earlier: Tensor | None,
        recall: Recall | None,
        longest: int,
    ) -> Found:
        """An object's mask from points; see `PromptEncoder.sparse` for their labels.

        Args:
            maps: Of the frame.
            points: `(1, N, 2)` network pixels, a blank at the end.
            labels: `(1, N)`.
            earlier: `(1, 1, 4h, 4w)` logits of the object on this frame.
            recall: The object's memory where it was tracked up to this frame; None for a new start.
            longest: See `Bank.recall`.
        """
        embedding = self._fresh(maps[0]) if recall is None else self._condition(maps[0], [recall], longest)
        several = labels.shape[1] <= 2  # one point and the blank: in doubt
        mask = None if earlier is None else earlier.clamp(-CLAMP, CLAMP)
        return self._decode((embedding, *maps[1:]), self._tensor(points), self._tensor(labels), mask, several)

    @settled()
    def track(self, maps: tuple[Tensor, Tensor, Tensor], recalls: list[Recall], longest: int) -> Found:
        """Masks of B objects whose recalls have one shape, from their memories alone."""
        embedding = self._condition(maps[0], recalls, longest)
        return self._decode((embedding, *maps[1:]), *self._nowhere(len(recalls)), None, several=True)

    @settled()
    def adopt(self, maps: tuple[Tensor, Tensor, Tensor], mask: NDArray[np.bool_]) -> tuple[Found, Tensor]:
        """An object's mask `(H, W)` as it is given; and its presence, for `Found` has the decoder's opinion of it."""
        side = self._runner.image_size
        share = self._tensor(mask).float()[None, None]
        share = F.interpolate(share, size=(side, side), mode="bilinear", align_corners=False, antialias=True)
        share = (share >= 0.5).float()
        certain = share * MASK_SCALE + MASK_BIAS
        logits = F.interpolate(
            certain, size=(side // 4, side // 4), mode="bilinear", align_corners=False, antialias=True
        )
        small = self._memory.mask_downsample(share.to(maps[0].dtype))
        found = self._decode(maps, *self._nowhere(1), small, several=False)
        there = (mask.any() * MASK_SCALE) + MASK_BIAS
        presence = torch.full_like(found.presence, float(there))
        return Found(logits.to(maps[0].dtype), found.presence, found.token), presence

    @settled()
    def record(
        self,
        maps: tuple[Tensor, Tensor, Tensor],
        frame: int,
        found: Found,
        prompted: bool,
        stated: Tensor | None = None,
    ) -> list[Record]:
        """Memories and pointers of B objects.

        Args:
            maps: Of the frame.
            frame: Its number.
            found: Of the objects.
            prompted: Whether prompts made the masks.
            stated: `(B, 1)` presence that the caller states by a mask, in addition to the decoder's.
        """
        memory = self._memory
        pointers = memory.pointer(found.token, found.presence)
        presence = found.presence
        if stated is not None:
            presence = stated
            pointers = torch.where(stated > 0, pointers, memory.no_obj_ptr)
        memories = memory.remember(maps[0], found.logits, presence, prompted)
        rows = range(len(memories))
        # Copies of their own: a row of a batch would keep the whole batch alive for as long as its oldest row counts.
        return [
            Record(
                frame,
                memories[i : i + 1].clone(),
                pointers[i : i + 1].clone(),
                found.logits[i : i + 1].clone(),
                presence[i : i + 1].clone(),
            )
            for i in rows
        ]

    @settled()
    def finite(self, records: Sequence[Record]) -> list[bool]:
        """Which records hold numbers alone: no others may be remembered."""
        flags = [
            torch.stack([part.isfinite().all() for part in (one.memory, one.pointer, one.logits, one.presence)]).all()
            for one in records
        ]
        return cast("list[bool]", torch.stack(flags).tolist())

    def _fresh(self, embedding: Tensor) -> Tensor:
        mark: Tensor = self._encoder.no_mem_embed.reshape(1, -1, 1, 1)
        return embedding + mark

    def _condition(self, embedding: Tensor, recalls: list[Recall], longest: int) -> Tensor:
        memories = torch.stack([torch.stack(recall.memories) for recall in recalls])
        first = recalls[0]
        width = self._memory.no_obj_ptr.shape[1]
        pointers = embedding.new_zeros(len(recalls), 0, width)
        if first.pointers:
            pointers = torch.stack([torch.stack(recall.pointers) for recall in recalls])
        times = torch.tensor(first.times, dtype=torch.float32, device=embedding.device) / max(longest - 1, 1)
        seen: Tensor = self._memory.condition(embedding, memories, first.ages, pointers, times)
        return seen

    def _nowhere(self, count: int) -> tuple[Tensor, Tensor]:
        """Two blanks, as the networks were trained with where there is no prompt."""
        device = self._memory.cosines.device
        blank = torch.zeros(count, 2, 2, device=device)
        return blank, torch.full((count, 2), -1, dtype=torch.int64, device=device)

    def _decode(
        self, maps: tuple[Tensor, Tensor, Tensor], points: Tensor, labels: Tensor, mask: Tensor | None, several: bool
    ) -> Found:
        decoder = self._decoder
        sparse = decoder.prompts.sparse(points, labels)
        if mask is None:
            dense = decoder.prompts.no_mask_embed.reshape(1, -1, 1, 1)
        else:
            side = self._runner.mask_size
            if mask.shape[2:] != side:
                mask = F.interpolate(mask.float(), size=side, mode="bilinear", align_corners=False, antialias=True)
            dense = decoder.prompts.mask_downscaling(mask.to(maps[0].dtype))
        logits, scores, presence, tokens = decoder.decode(maps, sparse, dense)
        rows = torch.arange(len(logits), device=logits.device)
        if several:
            best = 1 + scores[:, 1:].argmax(dim=1)
            chosen, token = logits[rows, best], tokens[rows, best]
        else:
            steady = stability(logits[:, 0], 0.0, STABILITY_DELTA) >= STABILITY_THRESHOLD
            best = torch.where(steady, 0, 1 + scores[:, 1:].argmax(dim=1))
            chosen, token = logits[rows, best], tokens[:, 0]
        masked = torch.where(presence[..., None] > 0, chosen, ABSENT)
        return Found(masked[:, None], presence, token)
