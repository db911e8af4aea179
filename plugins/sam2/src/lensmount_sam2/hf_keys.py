"""Names of a Hugging Face folder's tensors, and of its configuration, in the official checkpoints' words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from lensmount.errors import ModelFileError, UnsupportedModelError
from lensmount_sam2.geometry import Trunk

#: Rewritten one after the other; each pattern is tried on the whole key.
_RULES: tuple[tuple[str, str], ...] = (
    (r"^no_memory_embedding$", "no_mem_embed"),
    (r"^no_memory_positional_encoding$", "no_mem_pos_enc"),
    (r"^memory_temporal_positional_encoding$", "maskmem_tpos_enc"),
    (r"^no_object_pointer$", "no_obj_ptr"),
    (r"^occlusion_spatial_embedding_parameter$", "no_obj_embed_spatial"),
    (r"^object_pointer_proj\.", "obj_ptr_proj."),
    (r"^temporal_positional_encoding_projection_layer\.", "obj_ptr_tpos_proj."),
    (r"^vision_encoder\.backbone\.", "image_encoder.trunk."),
    (r"^vision_encoder\.neck\.convs\.(\d+)\.", r"image_encoder.neck.convs.\1.conv."),
    (r"\.patch_embed\.projection\.", ".patch_embed.proj."),
    (r"^prompt_encoder\.shared_embedding\.positional_embedding$",
     "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"),
    (r"^prompt_encoder\.mask_embed\.conv1\.", "sam_prompt_encoder.mask_downscaling.0."),
    (r"^prompt_encoder\.mask_embed\.layer_norm1\.", "sam_prompt_encoder.mask_downscaling.1."),
    (r"^prompt_encoder\.mask_embed\.conv2\.", "sam_prompt_encoder.mask_downscaling.3."),
    (r"^prompt_encoder\.mask_embed\.layer_norm2\.", "sam_prompt_encoder.mask_downscaling.4."),
    (r"^prompt_encoder\.mask_embed\.conv3\.", "sam_prompt_encoder.mask_downscaling.6."),
    (r"^prompt_encoder\.", "sam_prompt_encoder."),
    (r"^mask_decoder\.upscale_conv1\.", "sam_mask_decoder.output_upscaling.0."),
    (r"^mask_decoder\.upscale_layer_norm\.", "sam_mask_decoder.output_upscaling.1."),
    (r"^mask_decoder\.upscale_conv2\.", "sam_mask_decoder.output_upscaling.3."),
    (r"^mask_decoder\.", "sam_mask_decoder."),
    (r"\.layer_norm_final_attn\.", ".norm_final_attn."),
    (r"\.o_proj\.", ".out_proj."),
    (r"^memory_attention\.layer_norm\.", "memory_attention.norm."),
    (r"\.memory_fuser\.", ".fuser."),
    (r"\.depthwise_conv\.", ".dwconv."),
    (r"\.pointwise_conv(\d)\.", r".pwconv\1."),
    (r"(\.fuser\.layers\.\d+)\.scale$", r"\1.gamma"),
    (r"(\.fuser\.layers\.\d+)\.layer_norm\.", r"\1.norm."),
    (r"\.layer_norm(\d)\.", r".norm\1."),
    (r"\.feature_projection\.", ".pix_feat_proj."),
    (r"^memory_encoder\.projection\.", "memory_encoder.out_proj."),
    (r"\.mask_downsampler\.final_conv\.", ".mask_downsampler.encoder.12."),
    # A perceptron is proj_in, layers.0, …, proj_out there. Which number the last one has follows from the part.
    (r"\.layers\.0\.(weight|bias)$", r".layers.1.\1"),
    (r"\.proj_in\.", ".layers.0."),
    (r"((?:\.mlp))\.proj_out\.", r"\1.layers.1."),
    (r"\.proj_out\.", ".layers.2."),
)  # fmt: skip
_DOWNSAMPLER = re.compile(r"\.mask_downsampler\.layers\.(\d+)\.(conv|layer_norm)\.")
_COMPILED = tuple((re.compile(pattern), replacement) for pattern, replacement in _RULES)


def is_hf(keys: Iterable[str]) -> bool:
    """Whether tensors are named as transformers' Sam2Model and Sam2VideoModel name them."""
    wanted = {"vision_encoder.backbone.pos_embed_window", "mask_decoder.obj_score_token.weight"}
    return wanted <= set(keys)


def official_key(key: str) -> str | None:
    """The official name of a tensor; None for one that is there twice."""
    if key == "shared_image_embedding.positional_embedding":
        return None
    found = _DOWNSAMPLER.search(key)
    if found:
        index = 3 * int(found[1]) + (found[2] == "layer_norm")
        return f"{key[: found.start()]}.mask_downsampler.encoder.{index}.{key[found.end() :]}"
    for pattern, replacement in _COMPILED:
        key = pattern.sub(replacement, key)
    return key


def read_config(config: Mapping[str, Any], where: str) -> tuple[Trunk, int]:
    """Trunk and input size of a `config.json`.

    Raises:
        ModelFileError: A value is missing or of another type.
        UnsupportedModelError: It asks for something that is not built here.
    """
    try:
        vision = config["vision_config"]
        trunk = vision["backbone_config"]
        heads = trunk.get("num_attention_heads_per_stage", [1, 2, 4, 8])
        made = Trunk(
            width=int(trunk.get("hidden_size", 96)),
            heads=int(heads[0]),
            blocks=_numbers(trunk.get("blocks_per_stage", [1, 2, 7, 2])),
            windows=_numbers(trunk.get("window_size_per_stage", [8, 4, 14, 7])),
            global_blocks=_numbers(trunk.get("global_attention_blocks", [5, 7, 9])),
            background=_pair(trunk.get("window_positional_embedding_background_size", [7, 7])),
        )
        size = trunk.get("image_size") or config.get("image_size") or 1024
        side = int(size if isinstance(size, int) else size[0])
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ModelFileError(f"{where} is malformed", found=f"{type(error).__name__}: {error}") from error
    widths = _numbers(trunk.get("embed_dim_per_stage", made.widths))
    plain = {
        "embed_dim_per_stage": (widths, made.widths),
        "num_attention_heads_per_stage": (_numbers(heads), tuple(made.heads << i for i in range(4))),
        "fpn_hidden_size": (vision.get("fpn_hidden_size", 256), 256),
        "fpn_top_down_levels": (_numbers(vision.get("fpn_top_down_levels") or [2, 3]), (2, 3)),
        "num_feature_levels": (vision.get("num_feature_levels", 3), 3),
    }
    for name, (found, expected) in plain.items():
        if found != expected:
            raise UnsupportedModelError(
                f"{where} asks for a network that is not built here", found=f"{name} {found}", expected=str(expected)
            )
    return made, side


def _numbers(values: Iterable[Any]) -> tuple[int, ...]:
    return tuple(int(value) for value in values)


def _pair(values: Any) -> tuple[int, int]:
    rows, columns = values
    return int(rows), int(columns)
