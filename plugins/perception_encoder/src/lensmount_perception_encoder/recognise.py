"""Recognises PE-Core by tensor names, and pairs of graphs by what is embedded in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lensmount_vision.models.settings import unknown_note
from lensmount_vision.towers.configs import OPEN_CLIP, check_open_clip
from lensmount_vision.towers.layouts import has_text_tower, read_config, strip_names
from lensmount_vision.towers.recognise import beside_files, pair_card, weights_card

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lensmount.specs import ModelCard
    from lensmount_reading import FileFacts

#: How timm's names of PE-Core's image towers begin.
TIMM = "vit_pe_core_"
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
        ModelFileError: It is one half of a pair of graphs, and the other is missing; or a file next to it is malformed.
        UnsupportedModelError: A file next to it describes towers that work otherwise.
    """
    if facts.kind == "onnx":
        return pair_card(facts, "perception_encoder")
    if layout(strip_names(facts.tensors)) is None:
        return None
    beside = beside_files(facts.path)
    notes: tuple[str, ...] = ()
    if OPEN_CLIP in beside:
        said = read_config(beside, OPEN_CLIP)
        notes = unknown_note(check_open_clip(said, str(beside[OPEN_CLIP]), timm=TIMM), OPEN_CLIP)
    return weights_card(facts, "perception_encoder", notes=notes)
