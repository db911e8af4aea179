"""Recognises CLIP by tensor names, and pairs of graphs by what is embedded in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lensmount_clip.strangers import STRANGERS
from lensmount_reading import first_stranger
from lensmount_vision.towers.layouts import has_text_tower, strip_names
from lensmount_vision.towers.recognise import beside_files, pair_card, weights_card

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lensmount.contracts import NotRunnable
    from lensmount.specs import ModelCard
    from lensmount_reading import FileFacts

_HF = ("text_model.final_layer_norm.weight", "vision_model.post_layernorm.weight", "visual_projection.weight")


def layout(names: Iterable[str]) -> str | None:
    """`vit`, `resnet` or `huggingface` for plain names of a CLIP, else None."""
    held = set(names)
    if set(_HF) <= held:
        return "huggingface" if not any(name.startswith(("class_head", "box_head")) for name in held) else None
    if not has_text_tower(held):
        return None
    if "visual.attnpool.c_proj.weight" in held and "visual.layer1.0.conv1.weight" in held:
        return "resnet"
    if {"visual.class_embedding", "visual.proj", "visual.ln_pre.weight"} <= held:
        pooled = any(name.startswith("visual.attn_pool.") for name in held)  # Perception Encoder, CoCa
        return None if pooled else "vit"
    return None


def recognise(facts: FileFacts) -> ModelCard | NotRunnable | None:
    """A card for a bare CLIP file, why one near it is not run, or None when it is something else.

    Raises:
        ModelFileError: It is one half of a pair of graphs, and the other is missing; or a file next to it is malformed.
        UnsupportedModelError: A file next to it describes towers that work otherwise.
    """
    if facts.kind == "onnx":
        return pair_card(facts, "clip") or first_stranger(facts, STRANGERS)
    detector = any(name.startswith(("class_head.", "box_head.")) for name in facts.tensors)  # OWL-ViT, OWLv2
    plain = strip_names(facts.tensors)
    kind = layout(plain)
    if detector:
        return None
    if kind is None:
        return first_stranger(facts, STRANGERS)
    from lensmount_clip.settings import GUESSED, check, is_guess

    beside = beside_files(facts.path)
    notes = check(beside, kind)
    if is_guess(beside, kind, plain, lambda: facts.tree):
        notes += (GUESSED,)
    return weights_card(facts, "clip", notes=notes)
