"""PE-Core's weights in the layouts of Meta and open_clip (timm), brought to Meta's names, and their sizes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lensmount_perception_encoder.network import VisionTower, rope_rows, rope_table
from lensmount_perception_encoder.options import LoadOptions
from lensmount_perception_encoder.recognise import TIMM, layout
from lensmount_vision.towers.configs import EPSILON, OPEN_CLIP, TowerSizes, check_open_clip, open_clip_epsilon
from lensmount_vision.towers.layouts import count_blocks, heads_of, read_config, square, table, text_geometry, whole
from lensmount_vision.towers.transformer import PatchSizes
from lensmount_vision.towers.weights import TowerWeights, read_tensors, transpose_text_projection

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lensmount_reading import Checkpoint

    Arrays = Mapping[str, NDArray[Any]]

#: Heads of the image tower that are not width / 64 (Meta's core/vision_encoder/config.py: G14).
HEADS = {1536: 16}
POOL_HEADS = 8
_TIMM_PARTS = (
    ("patch_embed.proj", "conv1"),
    ("blocks.", "transformer.resblocks."),
    ("norm_pre", "ln_pre"),
    ("attn_pool.norm", "attn_pool.layernorm"),
    (".norm1", ".ln_1"),
    (".norm2", ".ln_2"),
    ("attn.qkv.", "attn.in_proj_"),
    ("attn.proj.", "attn.out_proj."),
    ("attn_pool.proj.", "attn_pool.attn.out_proj."),
    ("mlp.fc1", "mlp.c_fc"),
    ("mlp.fc2", "mlp.c_proj"),
)


def read_weights(checkpoint: Checkpoint, files: Mapping[str, Path], options: LoadOptions) -> TowerWeights:
    """Both towers' tensors under Meta's names, which are OpenAI's.

    Raises:
        ModelFileError: Shapes contradict one another, or a configuration is malformed.
        UnsupportedModelError: The tensors are not PE-Core's, or a configuration describes towers that work otherwise.
    """
    kind, held = read_tensors(
        checkpoint,
        layout,
        label="PE-Core",
        expected="Meta or open_clip (PE-Lang and PE-Spatial have no text)",
    )
    tensors = transpose_text_projection(_from_timm(held) if kind == "timm" else held)
    sizes = vision_sizes(tensors, options)
    said = read_config(files, OPEN_CLIP)
    text_heads, text_epsilon = options.text_heads, EPSILON
    if said:
        where, words = str(files[OPEN_CLIP]), table(table(said, "model_cfg") or said, "text_cfg")
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        text = text_geometry(shapes, 1)
        check_open_clip(
            said,
            where,
            timm=TIMM,
            image=TowerSizes(side=sizes.resolution, dimension=sizes.dimension),
            text=TowerSizes(
                width=text["width"],
                layers=text["layers"],
                hidden=text["hidden"],
                vocabulary=text["vocabulary"],
                context=text["context"],
            ),
        )
        text_heads = text_heads or whole(words, "heads", where)
        text_epsilon = open_clip_epsilon(words, "text_cfg", where)
    pool_heads = heads_of(sizes.width, options.pool_heads or POOL_HEADS, "the attention pooling")
    return TowerWeights(
        tensors=tensors,
        image_tower=partial(
            VisionTower,
            sizes,
            pool_heads=pool_heads,
            pool_hidden=tensors["visual.attn_pool.mlp.c_fc.weight"].shape[0],
            projection_bias="visual.proj_bias" in tensors,
        ),
        image_tensors=vision_tensors(tensors, sizes, pool_heads),
        resolution=sizes.resolution,
        dimension=sizes.dimension,
        text_heads=text_heads,
        text_epsilon=text_epsilon,
    )


def _from_timm(tensors: Arrays) -> dict[str, NDArray[Any]]:
    made: dict[str, NDArray[Any]] = {}
    for name, tensor in tensors.items():
        if not name.startswith("visual.trunk."):
            made[name] = tensor
            continue
        plain = name.removeprefix("visual.trunk.")
        for theirs, ours in _TIMM_PARTS:
            plain = plain.replace(theirs, ours)
        made[f"visual.{plain}"] = tensor
    made["visual.proj"] = np.ascontiguousarray(made.pop("visual.head.weight").T)
    bias = made.pop("visual.head.bias", None)
    if bias is not None and bias.any():  # timm's head has one, which is zero for Meta's weights
        made["visual.proj_bias"] = bias
    made["visual.positional_embedding"] = made.pop("visual.pos_embed").reshape(-1, made["visual.conv1.weight"].shape[0])
    if "visual.cls_token" in made:
        made["visual.class_embedding"] = made.pop("visual.cls_token").reshape(-1)
    made["visual.attn_pool.probe"] = made.pop("visual.attn_pool.latent")
    for part in ("weight", "bias"):
        made[f"visual.ln_post.{part}"] = made.pop(f"visual.norm.{part}")
        pair = (made.pop(f"visual.attn_pool.q.{part}"), made.pop(f"visual.attn_pool.kv.{part}"))
        made[f"visual.attn_pool.attn.in_proj_{part}"] = np.concatenate(pair)
    return made


def vision_sizes(tensors: Arrays, options: LoadOptions) -> PatchSizes:
    """Sizes of the image tower.

    Raises:
        ModelFileError: Shapes contradict one another.
    """
    width, _, patch, _ = tensors["visual.conv1.weight"].shape
    class_token = "visual.class_embedding" in tensors
    places = tensors["visual.positional_embedding"].shape[0] - class_token
    return PatchSizes(
        resolution=patch * square(places, "the positions of visual.positional_embedding"),
        patch=patch,
        width=width,
        layers=count_blocks(tensors, "visual.transformer.resblocks."),
        heads=heads_of(width, options.heads or HEADS.get(width), "the image tower"),
        hidden=tensors["visual.transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
        dimension=tensors["visual.proj"].shape[1],
        class_token=class_token,
    )


def vision_tensors(tensors: Arrays, sizes: PatchSizes, pool_heads: int) -> dict[str, NDArray[Any]]:
    """The image tower's own parameters: rotary tables, halves instead of neighbours, the pooling's query folded."""
    made = {n.removeprefix("visual."): t for n, t in tensors.items() if n.startswith("visual.")}
    for number in range(sizes.layers):
        for part in ("weight", "bias"):
            name = f"transformer.resblocks.{number}.attn.in_proj_{part}"
            made[name] = rope_rows(made[name], sizes.heads)
    width, grid = sizes.width, sizes.resolution // sizes.patch
    made["rope_cos"], made["rope_sin"] = rope_table(grid, width // sizes.heads, sizes.class_token)
    weight, bias = made.pop("attn_pool.attn.in_proj_weight"), made.pop("attn_pool.attn.in_proj_bias")
    probe = made.pop("attn_pool.probe").reshape(-1, width)
    query = probe @ weight[:width].T + bias[:width]
    made["attn_pool.query"] = np.ascontiguousarray(query.reshape(-1, pool_heads, width // pool_heads).swapaxes(0, 1))
    made["attn_pool.key_value.weight"] = weight[width:]
    made["attn_pool.key_value.bias"] = bias[width:]
    for part in ("weight", "bias"):
        made[f"attn_pool.out_proj.{part}"] = made.pop(f"attn_pool.attn.out_proj.{part}")
    return made
