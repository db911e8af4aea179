"""What a checkpoint's network looks like, read from its tensors; never from a file's name.

Most of it follows from shapes. Three facts do not: the number of attention windows, the stages whose features are
used, and the training resolution. They come from what the file says of itself (`args` of an official checkpoint,
`config.json` of a Hugging Face folder), else from the released variant that has the same shapes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lensmount.errors import ModelFileError, UnsupportedModelError

Shapes = Mapping[str, Sequence[int]]

PATCHES = "backbone.0.encoder.encoder.embeddings.patch_embeddings.projection.weight"
POSITIONS = "backbone.0.encoder.encoder.embeddings.position_embeddings"
BLOCK = "backbone.0.encoder.encoder.encoder.layer.{}."
STAGE = "backbone.0.projector.stages.{}."
SAMPLING = "backbone.0.projector.stages_sampling.{}.{}."
DECODER = "transformer.decoder.layers.{}."
CLASSES = "class_embed.bias"

#: Parts that no network here has; a checkpoint with one would give wrong answers if they were left out.
_FOREIGN = {
    "register_tokens": "a backbone with register tokens",
    "cross_attn_projector": "a second projector",
    "keypoint": "keypoints",
    "lora_": "LoRA adapters that are not merged",
    "mlp.weights_in": "SwiGLU layers",
}
_HEAD_WIDTH = 64  # of every DINOv2; only a Hugging Face folder can say otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Sizes of a network.

    Attributes:
        patch: Side of a patch in pixels.
        grid: Side of the table of position encodings, in patches.
        width: Channels of the backbone.
        heads: Attention heads of the backbone.
        mlp: Hidden width of the backbone's feed-forward layers.
        stages: Stages (number of blocks run) whose features go to the projector, ascending.
        windows: Windows per side that attention is confined to.
        levels: Scale of each feature level against the patch grid: 2.0, 1.0, 0.5.
        bottlenecks: Bottlenecks of each projector stage.
        hidden: Channels of the decoder.
        layers: Decoder layers.
        self_heads: Heads of the decoder's self-attention.
        cross_heads: Heads of its deformable attention.
        points: Sampling points per head and level.
        feedforward: Hidden width of the decoder's feed-forward layers.
        queries: Object queries.
        groups: Groups of them that it was trained with; inference uses the first.
        columns: Columns of the classifier, the background slot included.
        mask_blocks: Blocks of the mask head; 0 without masks.
        mask_ratio: Network pixels per mask pixel.
        resolution: Side of the input that it was trained with, in pixels.
        projector_eps: What the projector's normalisations add to the variance.
    """

    patch: int
    grid: int
    width: int
    heads: int
    mlp: int
    stages: tuple[int, ...]
    windows: int
    levels: tuple[float, ...]
    bottlenecks: int
    hidden: int
    layers: int
    self_heads: int
    cross_heads: int
    points: int
    feedforward: int
    queries: int
    groups: int
    columns: int
    mask_blocks: int
    mask_ratio: int
    resolution: int
    projector_eps: float

    @property
    def divisor(self) -> int:
        """Sides of the input must be multiples of this."""
        return self.patch * self.windows

    @property
    def task(self) -> str:
        """What it does, in lensmount's word."""
        return "instance-segmentation" if self.mask_blocks else "object-detection"


@dataclass(frozen=True, slots=True)
class Variant:
    """A released size: what tells it apart by shapes, and what shapes do not tell: `windows`, `resolution`."""

    name: str
    patch: int
    grid: int
    layers: int
    queries: int
    masks: bool
    windows: int
    resolution: int
    width: int | None = None

    @property
    def stages(self) -> tuple[int, ...]:
        """Stages used: the first generation (patch 14) had others."""
        return (2, 5, 8, 11) if self.patch == 14 else (3, 6, 9, 12)


#: Sizes of the authors' releases (rfdetr 1.11 `config.py`; the two largest detectors: their published table).
VARIANTS = (
    Variant("rfdetr-nano", 16, 24, 2, 300, False, 2, 384),
    Variant("rfdetr-small", 16, 32, 3, 300, False, 2, 512),
    Variant("rfdetr-medium", 16, 36, 4, 300, False, 2, 576),
    Variant("rfdetr-large", 16, 44, 4, 300, False, 2, 704),
    Variant("rfdetr-base", 14, 37, 3, 300, False, 4, 560, 384),
    Variant("rfdetr-large-deprecated", 14, 37, 3, 300, False, 4, 560, 768),
    Variant("rfdetr-xlarge", 20, 35, 5, 300, False, 1, 700),
    Variant("rfdetr-2xlarge", 20, 44, 5, 300, False, 2, 880),
    Variant("rfdetr-seg-nano", 12, 26, 4, 100, True, 1, 312),
    Variant("rfdetr-seg-small", 12, 32, 4, 100, True, 2, 384),
    Variant("rfdetr-seg-preview", 12, 36, 4, 200, True, 2, 432),
    Variant("rfdetr-seg-medium", 12, 36, 5, 200, True, 2, 432),
    Variant("rfdetr-seg-large", 12, 42, 5, 200, True, 2, 504),
    Variant("rfdetr-seg-xlarge", 12, 52, 6, 300, True, 2, 624),
    Variant("rfdetr-seg-2xlarge", 12, 64, 6, 300, True, 2, 768),
)
#: Other names of variants, in packages and in the authors' code.
SYNONYMS = {
    "rfdetr-xl": "rfdetr-xlarge",
    "rfdetr-2xl": "rfdetr-2xlarge",
    "rfdetr-seg-xl": "rfdetr-seg-xlarge",
    "rfdetr-seg-2xl": "rfdetr-seg-2xlarge",
    "rfdetr-seg-xxlarge": "rfdetr-seg-2xlarge",
}


def is_rfdetr(shapes: Shapes) -> bool:
    """Whether tensors (under the authors' keys, see `keys`) are those of an RF-DETR."""
    return PATCHES in shapes and CLASSES in shapes and DECODER.format(0) + "cross_attn.value_proj.weight" in shapes


def read_layout(shapes: Shapes, facts: Mapping[str, Any], where: str) -> Layout:
    """Works out the network's sizes.

    Args:
        shapes: Shapes of the tensors under the authors' keys.
        facts: What the file says of itself, under the names of the authors' `args`; empty where it says nothing.
        where: The file, for messages.

    Raises:
        ModelFileError: Tensors are missing, or contradict one another or `facts`.
        UnsupportedModelError: A part that is not run here, or sizes that no release has and `facts` do not give.
    """
    for part, meaning in _FOREIGN.items():
        found = next((key for key in shapes if part in key and "_kp_active_mask" not in key), None)
        if found is not None:
            raise UnsupportedModelError(f"{where} has {meaning}, which is not run here", found=found)
    try:
        sizes = _from_shapes(shapes, facts)
    except (KeyError, ValueError, ZeroDivisionError, IndexError) as error:
        raise ModelFileError(
            f"{where} is not a whole RF-DETR checkpoint",
            found=f"{len(shapes)} tensors, without or with another shape of {error}",
            expected="all tensors of the model",
            fix="download or export the checkpoint again",
        ) from error
    _check_facts(sizes, facts, where)
    layout = Layout(**sizes, **_beyond_shapes(sizes, facts, where))
    _check_consistent(layout, shapes, where)
    return layout


def _from_shapes(shapes: Shapes, facts: Mapping[str, Any]) -> dict[str, Any]:
    width, _, patch, _ = shapes[PATCHES]
    table = shapes[POSITIONS][1] - 1
    grid = math.isqrt(table)
    if grid * grid != table:
        raise ValueError(POSITIONS)
    blocks = _count(shapes, BLOCK + "norm1.weight")
    levels = tuple(_scale(shapes, i) for i in range(_count(shapes, STAGE + "0.cv1.conv.weight")))
    columns, hidden = shapes["class_embed.weight"]
    layers = _count(shapes, DECODER + "norm1.weight")
    groups = _count(shapes, "transformer.enc_output.{}.weight") or 1
    cross = DECODER.format(0) + "cross_attn."
    # Heads have 32 and 16 channels in every release; only a file that says otherwise has others.
    self_heads = int(facts.get("sa_nheads") or hidden // 32)
    cross_heads = int(facts.get("ca_nheads") or hidden // 16)
    points, rest = divmod(shapes[cross + "attention_weights.bias"][0], cross_heads * len(levels))
    if rest or not points or not blocks or not layers or not levels:
        raise ValueError(cross + "attention_weights.bias")
    return {
        "patch": patch,
        "grid": grid,
        "width": width,
        "heads": int(facts.get("backbone_heads") or width // _HEAD_WIDTH),
        "mlp": shapes[BLOCK.format(0) + "mlp.fc1.weight"][0],
        "levels": levels,
        "bottlenecks": _count(shapes, STAGE.format(0) + "0.m.{}.cv1.conv.weight"),
        "hidden": hidden,
        "layers": layers,
        "self_heads": self_heads,
        "cross_heads": cross_heads,
        "points": points,
        "feedforward": shapes[DECODER.format(0) + "linear1.weight"][0],
        "queries": shapes["query_feat.weight"][0] // groups,
        "groups": groups,
        "columns": columns,
        "mask_blocks": _count(shapes, "segmentation_head.blocks.{}.dwconv.weight"),
    }


def _count(shapes: Shapes, pattern: str) -> int:
    count = 0
    while pattern.format(count) in shapes:
        count += 1
    return count


def _scale(shapes: Shapes, level: int) -> float:
    if SAMPLING.format(level, 0) + "0.conv.weight" in shapes:
        return 0.5
    if SAMPLING.format(level, 0) + "3.weight" in shapes:
        raise ValueError(SAMPLING.format(level, 0) + "3.weight")  # fourfold upsampling: in no release
    return 2.0 if SAMPLING.format(level, 0) + "0.weight" in shapes else 1.0


_FACT_NAMES = {"patch_size": "patch", "hidden_dim": "hidden", "dec_layers": "layers", "num_queries": "queries"}


def _check_facts(sizes: Mapping[str, Any], facts: Mapping[str, Any], where: str) -> None:
    for name, key in _FACT_NAMES.items():
        if facts.get(name) is not None and int(facts[name]) != sizes[key]:
            raise ModelFileError(
                f"{where} contradicts itself: its tensors are of another variant than its settings say",
                found=f"{name} {sizes[key]} by the tensors",
                expected=f"{name} {facts[name]}",
                fix="load the checkpoint that the settings belong to",
            )
    if facts.get("segmentation_head") is not None and bool(facts["segmentation_head"]) != bool(sizes["mask_blocks"]):
        raise ModelFileError(
            f"{where} contradicts itself about masks",
            found=f"{sizes['mask_blocks']} mask blocks by the tensors",
            expected=f"segmentation_head={facts['segmentation_head']}",
        )


def _beyond_shapes(sizes: Mapping[str, Any], facts: Mapping[str, Any], where: str) -> dict[str, Any]:
    known = find_variant(sizes)
    windows = facts.get("num_windows") or (known.windows if known else None)
    stages = facts.get("out_feature_indexes") or (known.stages if known else None)
    if windows is None or stages is None:
        shown = ", ".join(f"{name} {sizes[name]}" for name in ("patch", "grid", "layers", "queries", "mask_blocks"))
        raise UnsupportedModelError(
            f"{where} has the sizes of no released RF-DETR, and does not say its attention windows and stages",
            found=shown,
            expected="an official checkpoint with `args`, or a Hugging Face folder with config.json",
        )
    resolution = facts.get("resolution") or (known.resolution if known else sizes["patch"] * sizes["grid"])
    return {
        "windows": int(windows),
        "stages": tuple(int(stage) for stage in stages),
        "mask_ratio": int(facts.get("mask_downsample_ratio") or 4),
        "resolution": int(resolution),
        "projector_eps": float(facts.get("projector_eps") or 1e-6),
    }


def find_variant(sizes: Mapping[str, Any] | Layout) -> Variant | None:
    """The release with these sizes, or None."""
    get = sizes.__getitem__ if isinstance(sizes, Mapping) else lambda name: getattr(sizes, name)
    wanted = (get("patch"), get("grid"), get("layers"), get("queries"), bool(get("mask_blocks")))
    for variant in VARIANTS:
        shape = (variant.patch, variant.grid, variant.layers, variant.queries, variant.masks)
        if shape == wanted and variant.width in (None, get("width")):
            return variant
    return None


def _check_consistent(layout: Layout, shapes: Shapes, where: str) -> None:
    problem = None
    if not layout.stages or list(layout.stages) != sorted(set(layout.stages)) or layout.stages[0] < 1:
        problem = f"stages {layout.stages}"
    elif BLOCK.format(layout.stages[-1] - 1) + "norm1.weight" not in shapes:
        problem = f"stage {layout.stages[-1]} of fewer blocks"
    elif layout.resolution % layout.divisor:
        problem = f"a resolution of {layout.resolution} for patches of {layout.patch} in {layout.windows} windows"
    elif layout.width % layout.heads or layout.hidden % layout.self_heads or layout.hidden % layout.cross_heads:
        problem = f"widths {layout.width} and {layout.hidden} that its heads do not divide"
    if problem is not None:
        raise ModelFileError(f"{where} has settings that do not fit its tensors", found=problem)
