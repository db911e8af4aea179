"""From a checkpoint's tensors, under the authors' keys, to those of `detector.RFDETR`.

Networks for inference have layer scales in the products before them: that is computed once, here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lensmount.errors import ModelFileError
from lensmount_networks.layers import declared
from lensmount_rfdetr.layout import BLOCK, DECODER, Layout
from lensmount_vision.models.leftovers import require_all_used

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lensmount_networks import Layer

    Arrays = Mapping[str, NDArray[Any]]

#: Behind the backbone's products, by the names of their layer scales.
_SCALED = {"layer_scale1.lambda1": "attention.output.dense", "layer_scale2.lambda1": "mlp.fc2"}
#: Of which training has several groups, and inference the first.
_GROUPED = ("query_feat.weight", "refpoint_embed.weight")


def fit(layer: Layer, layout: Layout, tensors: Arrays, where: str, *, training: bool = False) -> dict[str, Any]:
    """The tensors that a network takes.

    Args:
        layer: A `detector.RFDETR` of this layout.
        layout: Its sizes.
        tensors: The checkpoint's tensors under the authors' keys, float32.
        where: The file, for messages.
        training: Whether it has the parts that only training needs.

    Raises:
        ModelFileError: A tensor is missing or has another shape.
        UnsupportedModelError: There are tensors that have no place.
    """
    made = dict(tensors)
    used = set(_join(made, layout))
    if not training:
        made |= {name: made[name][: layout.queries] for name in _GROUPED if name in made}
        used |= set(_fold(made, layout))
    expected = {name: value.shape for name, _, _, value in declared(layer) if value.array is None}
    for name, shape in expected.items():
        found = made[name].shape if name in made else None
        if found != shape:
            raise ModelFileError(
                f"{where} lacks a tensor of its network, or has one of another shape",
                found=f"{name}: {found or 'nothing'}",
                expected=str(shape),
                fix="download or export the checkpoint again",
            )
    require_all_used(tensors, used.union(expected), where, harmless=_unused(layout))
    return {name: made[name] for name in expected}


def _unused(layout: Layout) -> tuple[str, ...]:
    """Tensors that only training asks for: other groups of queries, blocks behind the last stage, masked patches."""
    behind = "|".join(str(block) for block in range(layout.stages[-1], layout.stages[-1] + 64))
    return (
        r"^transformer\.enc_out\w*\.[1-9]\d*\.",
        rf"^backbone\.0\.encoder\.encoder\.encoder\.layer\.({behind})\.",
        r"embeddings\.mask_token$",
        r"_kp_active_mask$",
    )


def _join(made: dict[str, Any], layout: Layout) -> list[str]:
    """Puts the decoder's query, key and value together, which transformers keeps apart; the names of those."""
    used = []
    for index in range(layout.layers):
        key = DECODER.format(index) + "self_attn."
        for part in ("weight", "bias"):
            names = [f"{key}{name}_proj.{part}" for name in "qkv"]
            if all(name in made for name in names):
                made[f"{key}in_proj_{part}"] = np.concatenate([made[name] for name in names])
                used += names
    return used


def _fold(made: dict[str, Any], layout: Layout) -> list[str]:
    """Takes layer scales into the products before them; the names of the scales."""
    used = []
    for index in range(layout.stages[-1]):
        for scale, product in _SCALED.items():
            name, weight, bias = (
                BLOCK.format(index) + part for part in (scale, f"{product}.weight", f"{product}.bias")
            )
            if name in made and weight in made and bias in made and made[weight].shape[:1] == made[name].shape:
                made[weight] = made[weight] * made[name][:, None]
                made[bias] = made[bias] * made[name]
                used.append(name)
    return used
