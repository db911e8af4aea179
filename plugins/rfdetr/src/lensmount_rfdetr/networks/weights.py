"""From a checkpoint's tensors, under the authors' keys, to the parameters of `detector.RFDETR`.

What is constant is computed once, here: layer scales, the unit of sampling offsets and the two projections of the
mask head go into the products before them, queries, keys and values become one product, and position encodings are
resampled to the input. Products of float32 weights are taken in float64, so that folding costs no accuracy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from lensmount.errors import ModelFileError
from lensmount_rfdetr.layout import BLOCK, DECODER, PATCHES, POSITIONS, SAMPLING, STAGE, Layout
from lensmount_rfdetr.networks.detector import RFDETR
from lensmount_vision.models.leftovers import Taken

_EMBEDDINGS = "backbone.0.encoder.encoder.embeddings."


def build(layout: Layout, size: tuple[int, int], tensors: Mapping[str, Tensor], where: str) -> RFDETR:
    """Builds the network with its weights, in eval mode, float32, on the CPU.

    Args:
        layout: The network's sizes.
        size: Input `(height, width)` in pixels.
        tensors: The checkpoint's tensors under the authors' keys, float32.
        where: The file, for messages.

    Raises:
        ModelFileError: A tensor is missing or has another shape.
    """
    with torch.device("meta"):  # nothing is initialised only to be overwritten
        network = RFDETR(layout, size)
    expected = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    try:
        with torch.no_grad():
            taken = Taken(tensors)
            state = _state(layout, size, taken)
    except (KeyError, RuntimeError, IndexError) as error:
        raise ModelFileError(
            f"{where} lacks a tensor of its network, or has one of another shape",
            found=str(error),
            expected="a whole checkpoint",
            fix="download or export the checkpoint again",
        ) from error
    for name, shape in expected.items():
        found = tuple(state[name].shape) if name in state else None
        if found != shape:
            raise ModelFileError(
                f"{where} does not fit its network at {name}", found=str(found or "nothing"), expected=str(shape)
            )
    taken.require_all(where, harmless=_unused(layout))
    network.load_state_dict(state, strict=True, assign=True)
    return network.eval().requires_grad_(False)


def _unused(layout: Layout) -> tuple[str, ...]:
    """Tensors that only training asks for: other groups of queries, blocks behind the last stage, masked patches."""
    behind = "|".join(str(block) for block in range(layout.stages[-1], layout.stages[-1] + 64))
    return (
        r"^transformer\.enc_out\w*\.[1-9]\d*\.",
        rf"^backbone\.0\.encoder\.encoder\.encoder\.layer\.({behind})\.",
        r"embeddings\.mask_token$",
        r"_kp_active_mask$",
    )


def _state(layout: Layout, size: tuple[int, int], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    _backbone(state, layout, size, tensors)
    for level in range(len(layout.levels)):
        _stage(state, layout, level, tensors)
    _copy(state, tensors, "enc_output", "transformer.enc_output.0")
    _copy(state, tensors, "enc_norm", "transformer.enc_output_norm.0")
    _copy(state, tensors, "enc_class", "transformer.enc_out_class_embed.0")
    _copy(state, tensors, "class_embed", "class_embed")
    for i in range(3):
        _copy(state, tensors, f"enc_box.layers.{i}", f"transformer.enc_out_bbox_embed.0.layers.{i}")
        _copy(state, tensors, f"box_embed.layers.{i}", f"bbox_embed.layers.{i}")
    # Training uses several groups of queries, inference the first.
    state["query_feat"] = tensors["query_feat.weight"][: layout.queries]
    state["query_box"] = tensors["refpoint_embed.weight"][: layout.queries]
    _copy(state, tensors, "decoder.norm", "transformer.decoder.norm")
    for i in range(2):
        _copy(state, tensors, f"decoder.ref_point_head.layers.{i}", f"transformer.decoder.ref_point_head.layers.{i}")
    for index in range(layout.layers):
        _decoder_layer(state, layout, index, tensors)
    if layout.mask_blocks:
        _masks(state, layout, tensors)
    return state


def _copy(state: dict[str, Tensor], tensors: Mapping[str, Tensor], to: str, key: str) -> None:
    state[f"{to}.weight"], state[f"{to}.bias"] = tensors[f"{key}.weight"], tensors[f"{key}.bias"]


def _backbone(state: dict[str, Tensor], layout: Layout, size: tuple[int, int], tensors: Mapping[str, Tensor]) -> None:
    table = tensors[POSITIONS]
    state["backbone.start"] = tensors[_EMBEDDINGS + "cls_token"] + table[:, :1]
    state["backbone.positions"] = _positions(table[:, 1:], layout, size)
    state["backbone.patches.weight"] = tensors[PATCHES].flatten(1)
    state["backbone.patches.bias"] = tensors[_EMBEDDINGS + "patch_embeddings.projection.bias"]
    _copy(state, tensors, "backbone.norm", "backbone.0.encoder.encoder.layernorm")
    for index in range(layout.stages[-1]):
        key, to = BLOCK.format(index), f"backbone.blocks.{index}."
        for name in ("norm1", "norm2"):
            _copy(state, tensors, to + name, key + name)
        _copy(state, tensors, to + "fc1", key + "mlp.fc1")
        for part in ("weight", "bias"):
            parts = [tensors[f"{key}attention.attention.{name}.{part}"] for name in ("query", "key", "value")]
            state[f"{to}attention.qkv.{part}"] = torch.cat(parts)
        for name, product, scale in (("attention.out", "attention.output.dense", 1), ("fc2", "mlp.fc2", 2)):
            factor = tensors[f"{key}layer_scale{scale}.lambda1"]
            state[f"{to}{name}.weight"] = tensors[f"{key}{product}.weight"] * factor[:, None]
            state[f"{to}{name}.bias"] = tensors[f"{key}{product}.bias"] * factor


def _positions(table: Tensor, layout: Layout, size: tuple[int, int]) -> Tensor:
    """Position encodings `(1, windows², cells, width)`, resampled as the authors do it, in the order of the windows."""
    rows, columns = size[0] // layout.patch, size[1] // layout.patch
    n, width = layout.windows, table.shape[2]
    grid = table.reshape(1, layout.grid, layout.grid, width).permute(0, 3, 1, 2)
    if (rows, columns) != (layout.grid, layout.grid):
        grid = F.interpolate(grid, size=(rows, columns), mode="bicubic", align_corners=False, antialias=True)
    grid = grid.reshape(width, n, rows // n, n, columns // n).permute(1, 3, 2, 4, 0)
    return grid.reshape(1, n * n, -1, width).contiguous()


def _stage(state: dict[str, Tensor], layout: Layout, level: int, tensors: Mapping[str, Tensor]) -> None:
    key, to = STAGE.format(level), f"projector.{level}."
    for tap in range(len(layout.stages)):
        sampling = SAMPLING.format(level, tap) + "0"
        if layout.levels[level] == 2.0:
            _copy(state, tensors, f"{to}resample.{tap}", sampling)
        elif layout.levels[level] == 0.5:
            _conv_norm(state, tensors, f"{to}resample.{tap}", sampling)
    half = layout.hidden // 2
    first = tensors[f"{key}0.cv1.conv.weight"].flatten(1)
    _mix_norm(state, tensors, to + "cv1", f"{key}0.cv1", [first.shape[1] // len(layout.stages)] * len(layout.stages))
    _mix_norm(state, tensors, to + "cv2", f"{key}0.cv2", [2 * half] + [half] * layout.bottlenecks)
    for i in range(layout.bottlenecks):
        for j in range(2):
            _conv_norm(state, tensors, f"{to}m.{i}.{j}", f"{key}0.m.{i}.cv{j + 1}")
    _copy(state, tensors, to + "norm", key + "1")


def _conv_norm(state: dict[str, Tensor], tensors: Mapping[str, Tensor], to: str, key: str) -> None:
    state[f"{to}.weight"] = tensors[f"{key}.conv.weight"]
    _copy(state, tensors, f"{to}.norm", f"{key}.bn")


def _mix_norm(
    state: dict[str, Tensor], tensors: Mapping[str, Tensor], to: str, key: str, widths: Sequence[int]
) -> None:
    parts = torch.split(tensors[f"{key}.conv.weight"].flatten(1), list(widths), 1)
    state.update({f"{to}.weights.{i}": part.contiguous() for i, part in enumerate(parts)})
    _copy(state, tensors, f"{to}.norm", f"{key}.bn")


def _decoder_layer(state: dict[str, Tensor], layout: Layout, index: int, tensors: Mapping[str, Tensor]) -> None:
    key, to = DECODER.format(index), f"decoder.layers.{index}."
    for name in ("norm1", "norm2", "norm3", "linear1", "linear2"):
        _copy(state, tensors, to + name, key + name)
    _copy(state, tensors, to + "self_attn.out", key + "self_attn.out_proj")
    for part in ("weight", "bias"):
        stacked = _stacked(tensors, key + "self_attn.", part)
        state[f"{to}self_attn.qk.{part}"] = stacked[: 2 * layout.hidden]
        state[f"{to}self_attn.v.{part}"] = stacked[2 * layout.hidden :]
        # Offsets are in halves of a box over the number of points; grid coordinates run from -1 to 1.
        offsets = tensors[f"{key}cross_attn.sampling_offsets.{part}"] / layout.points
        weights = tensors[f"{key}cross_attn.attention_weights.{part}"]
        state[f"{to}cross_attn.sampling.{part}"] = torch.cat((offsets, weights))
    _copy(state, tensors, to + "cross_attn.value", key + "cross_attn.value_proj")
    _copy(state, tensors, to + "cross_attn.out", key + "cross_attn.output_proj")


def _stacked(tensors: Mapping[str, Tensor], key: str, part: str) -> Tensor:
    """Query, key and value of a self-attention; transformers keeps them apart."""
    if f"{key}q_proj.{part}" in tensors:
        return torch.cat([tensors[f"{key}{name}_proj.{part}"] for name in ("q", "k", "v")])
    return tensors[f"{key}in_proj_{part}"]


def _masks(state: dict[str, Tensor], layout: Layout, tensors: Mapping[str, Tensor]) -> None:
    key = "segmentation_head."
    for i in range(layout.mask_blocks):
        for name, original in (("dwconv", "dwconv"), ("norm", "norm"), ("pwconv", "pwconv1")):
            _copy(state, tensors, f"masks.blocks.{i}.{name}", f"{key}blocks.{i}.{original}")
    block = key + "query_features_block."
    for name, original in (("norm", "norm_in"), ("fc1", "layers.0"), ("fc2", "layers.2")):
        _copy(state, tensors, f"masks.{name}", block + original)
    double: Callable[[str], Tensor] = lambda name: tensors[key + name].double()  # noqa: E731  # one use, four times
    spatial = double("spatial_features_proj.weight").flatten(1)
    offset = double("spatial_features_proj.bias")
    query_weight, query_bias = double("query_features_proj.weight"), double("query_features_proj.bias")
    both = torch.cat((spatial.T, offset[None]))  # (hidden + 1, hidden): the last row carries the features' bias
    state["masks.project.weight"] = (both @ query_weight).float()
    bias = both @ query_bias
    bias[-1] += double("bias")[0]
    state["masks.project.bias"] = bias.float()
