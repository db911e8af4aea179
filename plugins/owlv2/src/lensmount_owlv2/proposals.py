"""What the image tower finds in one picture, ready to be compared with queries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lensmount.backend import settled
from lensmount.backend.tensors import host_array, is_tensor
from lensmount_vision.results.boxes import cxcywh_to_xyxy, top_candidates

#: Added to norms before dividing, as the network's class head does.
EPSILON = np.float32(1e-6)

_ROWS = ("objectness_logits", "boxes", "class_embeds", "logit_shift", "logit_scale")

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Proposals:
    """Proposals of one picture, those most likely to be an object first. Arrays are read-only.

    Attributes:
        boxes: float32 `(N, 4)` xyxy as shares of the padded square's side, which is `max(image_size)`.
        embeddings: float32 `(N, D)`, of length 1.
        objectness: float32 `(N,)` logits, descending.
        shift: float32 `(N,)`: added to cosines, for words and one-shot queries.
        scale: float32 `(N,)`: then multiplies them.
        image_size: `(height, width)` of the picture.
    """

    boxes: Floats
    embeddings: Floats
    objectness: Floats
    shift: Floats
    scale: Floats
    image_size: tuple[int, int]

    def __post_init__(self) -> None:
        for array in (self.boxes, self.embeddings, self.objectness, self.shift, self.scale):
            array.flags.writeable = False

    def __len__(self) -> int:
        return len(self.objectness)

    def top(self, count: int | None) -> Proposals:
        """The `count` most likely; it shares memory."""
        if count is None or count >= len(self):
            return self
        return Proposals(
            boxes=self.boxes[:count],
            embeddings=self.embeddings[:count],
            objectness=self.objectness[:count],
            shift=self.shift[:count],
            scale=self.scale[:count],
            image_size=self.image_size,
        )

    @property
    def visible(self) -> NDArray[np.bool_]:
        """`(N,)`: boxes of which some area lies in the picture rather than in its padding."""
        height, width = self.image_size
        side = max(height, width)
        x1, y1, x2, y2 = self.boxes.T
        right, bottom = np.float32(width / side), np.float32(height / side)
        shown: NDArray[np.bool_] = (np.minimum(x2, right) > np.maximum(x1, 0)) & (
            np.minimum(y2, bottom) > np.maximum(y1, 0)
        )
        return shown

    def pixels(self, rows: NDArray[np.int64]) -> Floats:
        """Boxes of some rows, `(n, 4)` xyxy in pixels of the picture, clipped to it."""
        height, width = self.image_size
        scaled = self.boxes[rows] * np.float32(max(height, width))
        boxes: Floats = np.clip(scaled, 0, np.array((width, height, width, height), np.float32))
        return boxes


_ROW, _NUMBER = np.zeros((0, 1), np.float32), np.zeros(0, np.float32)
NONE = Proposals(np.zeros((0, 4), np.float32), _ROW, _NUMBER, _NUMBER, _NUMBER, (1, 1))
"""No proposals, in the place of those of a picture that the network gave no numbers for."""


def normalise(vectors: NDArray[np.floating]) -> Floats:
    """Rows of length 1, float32: `v / (|v| + 1e-6)`."""
    array = np.asarray(vectors, np.float32)
    result: Floats = array / (np.linalg.norm(array, axis=-1, keepdims=True) + EPSILON)
    return result


@settled()
def on_host(raw: Mapping[str, Any], count: int | None) -> Mapping[str, NDArray[np.floating]]:
    """Outputs as arrays; of tensors only the rows that will be kept leave the device, all in one download.

    Args:
        raw: Outputs of the image tower by name: arrays, which are returned as they are, or tensors.
        count: Proposals kept of each picture, those most likely to be an object; None for all.
    """
    objectness = raw["objectness_logits"]
    if not is_tensor(objectness):
        return raw
    import torch

    order = objectness.float().sort(dim=1, descending=True, stable=True).indices[:, :count]
    parts = [raw[name] if raw[name].ndim == 3 else raw[name][..., None] for name in _ROWS]
    chosen = [part.float().gather(1, order[..., None].expand(-1, -1, part.shape[2])) for part in parts]
    columns = np.cumsum([part.shape[2] for part in chosen])[:-1]
    made = np.split(host_array(torch.cat(chosen, 2)), columns, axis=2)
    return {name: array if raw[name].ndim == 3 else array[..., 0] for name, array in zip(_ROWS, made, strict=True)}


def from_outputs(
    raw: Mapping[str, NDArray[np.floating]], row: int, image_size: tuple[int, int], count: int | None
) -> Proposals:
    """Proposals of one picture of a batch.

    Args:
        raw: Outputs of the image tower by name.
        row: Which picture.
        image_size: Its `(height, width)`.
        count: How many to keep, those most likely to be an object; None for all. Of equals the earlier patch.
    """
    objectness = raw["objectness_logits"][row].astype(np.float32, copy=False)
    order = top_candidates(objectness, len(objectness) if count is None else count)
    return Proposals(
        boxes=cxcywh_to_xyxy(raw["boxes"][row][order]),
        embeddings=normalise(raw["class_embeds"][row][order]),
        objectness=objectness[order],
        shift=raw["logit_shift"][row][order].astype(np.float32),
        scale=raw["logit_scale"][row][order].astype(np.float32),
        image_size=image_size,
    )
