"""Recognises PE-Core by tensor names, and pairs of graphs by what is embedded in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lensmount_vision.towers.layouts import has_text_tower, strip_names
from lensmount_vision.towers.recognise import pair_card, weights_card

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lensmount.specs import ModelCard
    from lensmount_reading import FileFacts

_META = ("visual.attn_pool.probe", "visual.attn_pool.layernorm.weight", "visual.proj", "visual.conv1.weight")
_TIMM = ("visual.trunk.attn_pool.latent", "visual.trunk.norm_pre.weight", "visual.trunk.head.weight")


def layout(names: Iterable[str]) -> str | None:
    """`meta` or `timm` (open_clip's) for plain names of a PE-Core, else None."""
    held = set(names)
    if not has_text_tower(held):
        return None
    if set(_META) <= held:
        return "meta"
    return "timm" if set(_TIMM) <= held else None


def recognise(facts: FileFacts) -> ModelCard | None:
    """A card for a bare PE-Core file, or None when it is something else.

    Raises:
        ModelFileError: It is one half of a pair of graphs, and the other is missing.
    """
    if facts.kind == "onnx":
        return pair_card(facts, "perception_encoder")
    if layout(strip_names(facts.tensors)) is None:
        return None
    return weights_card(facts, "perception_encoder")
