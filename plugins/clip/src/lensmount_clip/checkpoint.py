"""CLIP's weights in the layouts of OpenAI, Hugging Face and open_clip, brought to OpenAI's names, and their sizes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lensmount.errors import ModelFileError
from lensmount_clip.network import ModifiedResNet, VisionTransformer
from lensmount_clip.options import GuessWarning, LoadOptions
from lensmount_clip.recognise import layout
from lensmount_clip.settings import GUESSED, Settings, check, is_guess, read_settings
from lensmount_vision.towers.configs import TowerSizes
from lensmount_vision.towers.layouts import Shapes, count_blocks, heads_of, square, text_geometry
from lensmount_vision.towers.transformer import PatchSizes
from lensmount_vision.towers.weights import TowerWeights, read_tensors, transpose_text_projection

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lensmount_networks import Layer
    from lensmount_reading import Checkpoint

    Arrays = Mapping[str, NDArray[Any]]

#: Channels of a head in the image towers of open_clip that do not have 64, by width (its model_configs).
HEAD_WIDTHS = {1280: 80, 1408: 88, 1664: 104, 1792: 112}
_BATCH_NORM_EPS = 1e-5
#: Endings of tensors that are counters and tables of constants.
SKIPPED = (".num_batches_tracked", "position_ids")
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


def read_weights(checkpoint: Checkpoint, files: Mapping[str, Path], options: LoadOptions) -> TowerWeights:
    """Both towers' tensors under OpenAI's names, BatchNorm folded.

    Raises:
        ModelFileError: A configuration is malformed, or shapes contradict one another.
        UnsupportedModelError: The tensors are not CLIP's, or a configuration describes towers that work otherwise.
    """
    kind, tensors = read_tensors(
        checkpoint, layout, label="CLIP", expected="OpenAI, Hugging Face or open_clip", skipped=SKIPPED
    )
    where = checkpoint.path.name
    if options.activation is None and is_guess(files, kind, tensors, lambda: checkpoint.tree):
        warnings.warn(f"{where}: {GUESSED}", GuessWarning, stacklevel=2)
    named: dict[str, NDArray[Any]] = tensors
    if kind == "huggingface":
        named = _from_hugging_face(tensors)
        tensors.require_all(where)
    else:
        named = transpose_text_projection(named)
        if kind == "resnet":
            named = fold_batch_norms(named)
    settings = read_settings(
        files,
        checkpoint,
        options,
        kind=kind,
        width=attention_width(named),
        text_width=named["ln_final.weight"].shape[0],
    )
    image_tower, resolution, dimension = image_tower_of(named, settings)
    image, text = sizes_of({name: tuple(tensor.shape) for name, tensor in named.items()}, resolution, dimension)
    check(files, kind, image=image, text=text)
    return TowerWeights(
        tensors=named,
        image_tower=image_tower,
        image_tensors={n.removeprefix("visual."): t for n, t in named.items() if n.startswith("visual.")},
        resolution=resolution,
        dimension=dimension,
        activation=settings.activation,
        text_heads=settings.text_heads,
        image_epsilon=settings.epsilon,
        text_epsilon=settings.text_epsilon,
        cleaning="transformers" if kind == "huggingface" else "openai",
    )


def attention_width(tensors: Arrays) -> int:
    """Channels of the image tower's attention: its width, or that of a ResNet's pooling."""
    pooling = tensors.get("visual.attnpool.positional_embedding")
    return int(tensors["visual.conv1.weight"].shape[0] if pooling is None else pooling.shape[1])


def sizes_of(shapes: Shapes, resolution: int, dimension: int) -> tuple[TowerSizes, TowerSizes]:
    """Sizes of both towers, for what configurations say of them; a ResNet's blocks and widths are told otherwise."""
    image = TowerSizes(side=resolution, dimension=dimension)
    if "visual.attnpool.positional_embedding" not in shapes:
        width, _, patch, _ = shapes["visual.conv1.weight"]
        image = TowerSizes(
            width=width,
            layers=count_blocks(shapes, "visual.transformer.resblocks."),
            hidden=shapes["visual.transformer.resblocks.0.mlp.c_fc.weight"][0],
            side=resolution,
            patch=patch,
            dimension=dimension,
        )
    text = text_geometry(shapes, 1)
    return image, TowerSizes(
        width=text["width"],
        layers=text["layers"],
        hidden=text["hidden"],
        vocabulary=text["vocabulary"],
        context=text["context"],
        dimension=text["dimension"],
    )


def _from_hugging_face(tensors: Arrays) -> dict[str, NDArray[Any]]:
    made = {ours: tensors[name] for name, ours in _HF_SINGLE.items() if name in tensors}
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
