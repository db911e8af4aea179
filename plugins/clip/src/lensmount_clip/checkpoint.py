"""CLIP's weights in the layouts of OpenAI, Hugging Face and open_clip, brought to OpenAI's names, and their sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lensmount.errors import ModelFileError, UnsupportedModelError
from lensmount_clip.network import ModifiedResNet, VisionTransformer
from lensmount_clip.options import LoadOptions
from lensmount_clip.recognise import layout
from lensmount_vision.towers.layouts import (
    count_blocks,
    heads_of,
    read_config,
    refuse_open_clip_variants,
    square,
    table,
    whole,
)
from lensmount_vision.towers.transformer import Activation, PatchSizes
from lensmount_vision.towers.weights import TowerWeights, read_tensors, transpose_text_projection

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lensmount_networks import Layer
    from lensmount_reading import Checkpoint

    Arrays = Mapping[str, NDArray[Any]]

#: Channels of a head in the image towers of open_clip that do not have 64, by width (its model_configs).
HEAD_WIDTHS = {1280: 80, 1408: 88, 1664: 104, 1792: 112}
_BATCH_NORM_EPS = 1e-5
_HF_BLOCK = {
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
_HF_SINGLE = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.weight": "visual.ln_pre.weight",  # misspelt so in every file
    "vision_model.pre_layrnorm.bias": "visual.ln_pre.bias",
    "vision_model.post_layernorm.weight": "visual.ln_post.weight",
    "vision_model.post_layernorm.bias": "visual.ln_post.bias",
    "logit_scale": "logit_scale",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What shapes do not tell.

    Attributes:
        activation: Of both towers' MLPs.
        heads: Of the image tower; None for what its width says.
        text_heads: Of the text tower; None for what its width says.
    """

    activation: Activation = "quick_gelu"
    heads: int | None = None
    text_heads: int | None = None


def read_settings(files: Mapping[str, Path], checkpoint: Checkpoint, options: LoadOptions) -> Settings:
    """Options first, then the configuration next to the weights, then what the kind of file says.

    Raises:
        ModelFileError: A configuration is malformed.
        UnsupportedModelError: It describes towers that work otherwise.
    """
    open_clip, hf = read_config(files, "open_clip_config.json"), read_config(files, "config.json")
    activation: Any = None
    heads = text_heads = None
    if open_clip:
        where = str(files["open_clip_config.json"])
        refuse_open_clip_variants(open_clip, where)
        model = table(open_clip, "model_cfg") or open_clip
        activation = "quick_gelu" if model.get("quick_gelu") else "gelu"
        vision, text = table(model, "vision_cfg"), table(model, "text_cfg")
        width, head_width = whole(vision, "width", where), whole(vision, "head_width", where)
        heads = width // head_width if width and head_width else None
        text_heads = whole(text, "heads", where)
    elif hf.get("model_type") == "clip":
        where = str(files["config.json"])
        vision, text = table(hf, "vision_config"), table(hf, "text_config")
        activation = vision.get("hidden_act", "quick_gelu")
        if activation not in ("quick_gelu", "gelu") or text.get("hidden_act", activation) != activation:
            raise UnsupportedModelError(
                f"{where} names activations that are not supported",
                found=f"{activation}, {text.get('hidden_act')}",
                expected="quick_gelu or gelu in both towers",
            )
        heads, text_heads = whole(vision, "num_attention_heads", where), whole(text, "num_attention_heads", where)
    elif isinstance(checkpoint.tree, dict) and {"epoch", "state_dict"} <= set(checkpoint.tree):
        activation = "gelu"  # a training checkpoint of open_clip, whose default it is
    return Settings(
        activation=options.activation or activation or "quick_gelu",
        heads=options.heads or heads,
        text_heads=options.text_heads or text_heads,
    )


def read_weights(checkpoint: Checkpoint, files: Mapping[str, Path], options: LoadOptions) -> TowerWeights:
    """Both towers' tensors under OpenAI's names, BatchNorm folded.

    Raises:
        ModelFileError: A configuration is malformed, or shapes contradict one another.
        UnsupportedModelError: The tensors are not CLIP's, or a configuration describes towers that work otherwise.
    """
    settings = read_settings(files, checkpoint, options)
    kind, tensors = read_tensors(
        checkpoint,
        layout,
        label="CLIP",
        expected="OpenAI, Hugging Face or open_clip",
        skipped=(".num_batches_tracked", "position_ids"),
    )
    if kind == "huggingface":
        tensors = _from_hugging_face(tensors)
    else:
        tensors = transpose_text_projection(tensors)
        if kind == "resnet":
            tensors = fold_batch_norms(tensors)
    image_tower, resolution, dimension = image_tower_of(tensors, settings)
    return TowerWeights(
        tensors=tensors,
        image_tower=image_tower,
        image_tensors={n.removeprefix("visual."): t for n, t in tensors.items() if n.startswith("visual.")},
        resolution=resolution,
        dimension=dimension,
        activation=settings.activation,
        text_heads=settings.text_heads,
    )


def _from_hugging_face(tensors: Arrays) -> dict[str, NDArray[Any]]:
    made = {_HF_SINGLE[name]: tensor for name, tensor in tensors.items() if name in _HF_SINGLE}
    made["text_projection"] = np.ascontiguousarray(tensors["text_projection.weight"].T)
    made["visual.proj"] = np.ascontiguousarray(tensors["visual_projection.weight"].T)
    for theirs, ours in (("text_model.", ""), ("vision_model.", "visual.")):
        for number in range(count_blocks(tensors, f"{theirs}encoder.layers.")):
            source, target = f"{theirs}encoder.layers.{number}.", f"{ours}transformer.resblocks.{number}."
            for kind in ("weight", "bias"):
                parts = [tensors.get(f"{source}self_attn.{name}_proj.{kind}") for name in "qkv"]
                if any(part is None for part in parts):
                    raise ModelFileError(f"{source}self_attn lacks a projection", expected="q_proj, k_proj and v_proj")
                made[f"{target}attn.in_proj_{kind}"] = np.concatenate([part for part in parts if part is not None])
                for name, renamed in _HF_BLOCK.items():
                    tensor = tensors.get(f"{source}{name}.{kind}")
                    if tensor is not None:
                        made[f"{target}{renamed}.{kind}"] = tensor
    return made


def fold_batch_norms(tensors: Arrays) -> dict[str, NDArray[Any]]:
    """Folds each `bnN` (and `downsample.1`) into the convolution before it, in float64."""
    made = dict(tensors)
    for name in tensors:
        if not name.endswith(".running_var"):
            continue
        norm = name.removesuffix(".running_var")
        owner, _, last = norm.rpartition(".")
        convolution = f"{owner}.0" if last == "1" and owner.endswith("downsample") else f"{owner}.conv{last[2:]}"
        weight = made.get(f"{convolution}.weight")
        parts = [made.pop(f"{norm}.{part}", None) for part in ("weight", "bias", "running_mean", "running_var")]
        if weight is None or any(part is None for part in parts):
            raise ModelFileError(f"the normalisation {norm} is not complete", expected=f"{convolution} before it")
        gain, shift, mean, variance = (part.astype(np.float64) for part in parts if part is not None)
        factor = gain / np.sqrt(variance + _BATCH_NORM_EPS)
        made[f"{convolution}.weight"] = (weight * factor[:, None, None, None]).astype(np.float32)
        made[f"{convolution}.bias"] = (shift - mean * factor).astype(np.float32)
    return made


def image_tower_of(tensors: Arrays, settings: Settings) -> tuple[Callable[[], Layer], int, int]:
    """What makes the image tower, the side of its input in pixels, and the length of its vectors.

    Raises:
        ModelFileError: Shapes contradict one another.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if "visual.attnpool.positional_embedding" in shapes:
        width = shapes["visual.layer1.0.conv1.weight"][0]
        positions, channels = shapes["visual.attnpool.positional_embedding"]
        resolution = 32 * square(positions - 1, "the positions of visual.attnpool")
        blocks = [count_blocks(shapes, f"visual.layer{number}.") for number in range(1, 5)]
        heads = heads_of(channels, settings.heads, "the attention pooling")
        dimension = shapes["visual.attnpool.c_proj.weight"][0]
        build = partial(
            ModifiedResNet, resolution=resolution, blocks=blocks, width=width, heads=heads, dimension=dimension
        )
        return build, resolution, dimension
    width, _, patch, _ = shapes["visual.conv1.weight"]
    positions = shapes["visual.positional_embedding"][0]
    sizes = PatchSizes(
        resolution=patch * square(positions - 1, "the positions of visual.positional_embedding"),
        patch=patch,
        width=width,
        layers=count_blocks(shapes, "visual.transformer.resblocks."),
        heads=heads_of(width, settings.heads, "the image tower", HEAD_WIDTHS.get(width, 64)),
        hidden=shapes["visual.transformer.resblocks.0.mlp.c_fc.weight"][0],
        dimension=shapes["visual.proj"][1],
    )
    return partial(VisionTransformer, sizes, settings.activation), sizes.resolution, sizes.dimension
