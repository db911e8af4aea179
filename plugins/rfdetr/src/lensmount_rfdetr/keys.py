"""The two ways in which RF-DETR's tensors are named, brought to one: the authors' own."""

from __future__ import annotations

import re
from collections.abc import Iterable

#: Hugging Face transformers' names -> the authors', applied in order to keys without the leading `model.`.
_RENAMES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^backbone\.backbone\.", "backbone.0.encoder.encoder."),
        (r"^backbone\.projector\.projector_layer\.", "backbone.0.projector.stages.0.0."),
        (r"^backbone\.projector\.layer_norm\.", "backbone.0.projector.stages.0.1."),
        (r"(stages\.0\.0\.)bottlenecks\.", r"\1m."),
        (r"(stages\.0\.0\..*)conv([12])\.conv\.", r"\1cv\2.conv."),
        (r"(stages\.0\.0\..*)conv([12])\.norm\.", r"\1cv\2.bn."),
        (r"\.attention\.q_proj\.", ".attention.attention.query."),
        (r"\.attention\.k_proj\.", ".attention.attention.key."),
        (r"\.attention\.v_proj\.", ".attention.attention.value."),
        (r"\.attention\.o_proj\.", ".attention.output.dense."),
        (r"^decoder\.layernorm\.", "transformer.decoder.norm."),
        (r"^decoder\.", "transformer.decoder."),
        (r"(decoder\.layers\.\d+\.)self_attn_layer_norm\.", r"\1norm1."),
        (r"(decoder\.layers\.\d+\.)cross_attn_layer_norm\.", r"\1norm2."),
        (r"(decoder\.layers\.\d+\.)layer_norm\.", r"\1norm3."),
        (r"(decoder\.layers\.\d+\.)mlp\.fc([12])\.", r"\1linear\2."),
        (r"(self_attn\.)o_proj\.", r"\1out_proj."),
        (r"^enc_out", "transformer.enc_out"),
        (r"^reference_point_embed\.", "refpoint_embed."),
        (r"^blocks\.(\d+)\.layernorm\.", r"segmentation_head.blocks.\1.norm."),
        (r"^blocks\.(\d+)\.depthwise_conv\.", r"segmentation_head.blocks.\1.dwconv."),
        (r"^blocks\.(\d+)\.pointwise_conv\.", r"segmentation_head.blocks.\1.pwconv1."),
        (r"^query_features_block\.norm\.", "segmentation_head.query_features_block.norm_in."),
        (r"^query_features_block\.mlp\.fc1\.", "segmentation_head.query_features_block.layers.0."),
        (r"^query_features_block\.mlp\.fc2\.", "segmentation_head.query_features_block.layers.2."),
        (r"^(query|spatial)_features_proj\.", r"segmentation_head.\1_features_proj."),
        (r"^segmentation_bias$", "segmentation_head.bias"),
    )
)
_TRANSFORMERS = re.compile(r"(^|\.)backbone\.backbone\.embeddings\.")
_PREFIXES = ("model.", "state_dict.", "ema_model.")


def original_keys(keys: Iterable[str]) -> dict[str, str]:
    """Maps each key of a file to the authors' name for it.

    Prefixes that containers add (`model.`, `state_dict.`) are dropped; those of wrappers (`module.`, `_orig_mod.`) the
    reader has dropped already. Keys of other parts, such as optimisers, keep their names. The split query, key and
    value of transformers' decoder become `…self_attn.q_proj` and so on, which `weights` puts together.

    Args:
        keys: Dotted keys of all tensors in the file.
    """
    known = list(keys)
    bare = {key: _strip(key) for key in known}
    if not any(_TRANSFORMERS.search(name) for name in bare.values()):
        return bare
    return {key: _rename(name) for key, name in bare.items()}


def _strip(key: str) -> str:
    stripped = True
    while stripped:
        stripped = False
        for prefix in _PREFIXES:
            if key.startswith(prefix):
                key, stripped = key[len(prefix) :], True
    return key


def _rename(name: str) -> str:
    for pattern, replacement in _RENAMES:
        name = pattern.sub(replacement, name)
    return name
