"""The YAML file that lies beside a checkpoint in Meta's layout: each setting is read, or must be what is built.

It says how the class `SAM2Base` is made. What it leaves out has that class's default, which is often not what the
released networks have: `modeling/sam2_base.py`, `backbones/hieradet.py` and `backbones/image_encoder.py` of sam2.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lensmount.errors import ModelFileError, UnsupportedModelError
from lensmount_reading import printable
from lensmount_sam2.geometry import POINTERS, STRIDE, Geometry, Trunk, read_geometry
from lensmount_vision.models.settings import HARMLESS, READ, Only, Table, check_settings

YAML = "config.yaml"
"""Name of the file among a package's."""
_LARGEST, _MOST = 256 << 10, 40  # bytes of a file, files of a folder that are looked into
_MARKS = (b"image_encoder", b"trunk", b"embed_dim")
_REFERENCE = re.compile(r"\$\{([\w.]+)\}")

_TRUNK = {
    "embed_dim": 96, "num_heads": 1, "stages": (2, 3, 16, 3), "window_spec": (8, 4, 14, 7),
    "global_att_blocks": (12, 16, 20), "window_pos_embed_bkg_spatial_size": (14, 14), "q_pool": 3, "q_stride": (2, 2),
    "dim_mul": 2, "head_mul": 2,
}  # fmt: skip
_NECK = {"d_model": 256, "fpn_interp_model": "bilinear", "fpn_top_down_levels": (0, 1, 2, 3)}
_BASE = {
    "image_size": 512, "sigmoid_scale_for_mem_enc": 1, "sigmoid_bias_for_mem_enc": 0, "multimask_min_pt_num": 1,
    "multimask_max_pt_num": 1, "add_tpos_enc_to_obj_ptrs": True,
    **dict.fromkeys(
        ("use_mask_input_as_output_without_sam", "directly_add_no_mem_embed", "use_high_res_features_in_sam",
         "multimask_output_in_sam", "multimask_output_for_tracking", "use_multimask_token_for_obj_ptr",
         "iou_prediction_use_sigmoid", "use_obj_ptrs_in_encoder", "proj_tpos_enc_in_obj_ptrs",
         "use_signed_tpos_enc_to_obj_ptrs", "only_obj_ptrs_in_the_past_for_eval", "pred_obj_scores",
         "pred_obj_scores_mlp", "fixed_no_obj_ptr", "use_mlp_for_obj_ptr_proj", "no_obj_embed_spatial"),
        False,
    ),
}  # fmt: skip
_TRAINING = re.compile(r"_for_(train|eval)$|^(add_all_frames_to_correct_as_cond|num_correction_pt_per_frame)$|ckpt")
"""Settings of sam2's training class: which prompts it makes up, and what it saves memory with."""
_CLASSES = frozenset(
    ("SAM2Base", "SAM2Train", "SAM2VideoPredictor", "SAM2VideoPredictorVOS", "ImageEncoder", "Hiera", "FpnNeck",
     "PositionEmbeddingSine", "MemoryAttention", "MemoryAttentionLayer", "RoPEAttention", "MemoryEncoder",
     "MaskDownSampler", "Fuser", "CXBlock")
)  # fmt: skip


def find(folder: Path, shapes: Mapping[str, Sequence[int]]) -> tuple[Path | None, tuple[str, ...]]:
    """The YAML file in a checkpoint's folder that describes its network, and a note where all describe others.

    Args:
        folder: Where the checkpoint lies.
        shapes: Shapes of its tensors under the official keys.

    Raises:
        ModelFileError: A file of a SAM 2 is malformed.
        UnsupportedModelError: Several files describe the network, and not in the same way.
    """
    fitting: dict[Path, Any] = {}
    others: list[str] = []
    for path in _candidates(folder):
        model = read(path)
        try:
            geometry = read_geometry(shapes, trunk_of(model, path.name)[0])
            fits = not geometry.tracking or _versions(model) == (geometry.occlusion, geometry.pointer_time)
        except UnsupportedModelError:
            fits = False
        if fits:
            fitting[path] = model
        else:
            others.append(path.name)
    if len(fitting) > 1 and any(model != next(iter(fitting.values())) for model in fitting.values()):
        raise UnsupportedModelError(
            f"several files in {folder} describe this network, and they differ",
            found=", ".join(printable(path.name, 80) for path in fitting),
            fix="leave the one beside the checkpoint that belongs to it",
        )
    notes = (f"{', '.join(printable(name, 80) for name in others[:4])} describes another network, and is not read",)
    return next(iter(fitting), None), notes if others and not fitting else ()


def read(path: Path) -> dict[str, Any]:
    """The settings of the network in a YAML file, those of its classes' defaults included that matter here.

    Raises:
        ModelFileError: It is malformed.
    """
    import yaml  # type: ignore[import-untyped]  # comes without types

    try:
        document = yaml.safe_load(path.read_bytes())
        model = document.get("model") or document["trainer"]["model"]
        model = _resolved(model, document, 0)
        encoder = {"scalp": 0, **model["image_encoder"]}
        encoder["trunk"] = {**_TRUNK, **encoder["trunk"]}
        neck = encoder.get("neck") or {}
        encoder["neck"] = {**_NECK, **{key: value for key, value in neck.items() if value is not None}}
        return {**_BASE, **model, "image_encoder": encoder}
    except (OSError, ValueError, RecursionError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise ModelFileError(
            f"{path} is not a configuration of SAM 2",
            found=printable(f"{type(error).__name__}: {error}", 160),
            expected="`model:` with `image_encoder:` and its `trunk:`, as sam2's own files have it",
            fix="mend it, or move it away from the checkpoint",
        ) from error


def trunk_of(model: Mapping[str, Any], where: str) -> tuple[Trunk, int]:
    """Trunk and input size in pixels of what `read` gave.

    Raises:
        ModelFileError: A value is of another type.
    """
    trunk = model["image_encoder"]["trunk"]
    try:
        rows, columns = trunk["window_pos_embed_bkg_spatial_size"]
        made = Trunk(
            width=int(trunk["embed_dim"]),
            heads=int(trunk["num_heads"]),
            blocks=tuple(map(int, trunk["stages"])),
            windows=tuple(map(int, trunk["window_spec"])),
            global_blocks=tuple(map(int, trunk["global_att_blocks"])),
            background=(int(rows), int(columns)),
        )
        return made, int(model["image_size"])
    except (TypeError, ValueError) as error:
        raise ModelFileError(f"{where} is malformed", found=printable(str(error), 120), expected="numbers") from error


def check(model: Mapping[str, Any], geometry: Geometry, where: str) -> tuple[str, ...]:
    """Goes through what `read` gave.

    Args:
        model: The settings.
        geometry: What the tensors and the trunk's settings show.
        where: Names the file in messages.

    Returns:
        Keys that are not known.

    Raises:
        UnsupportedModelError: Naming a setting, or a class, that is not what is built.
        ModelFileError: It is malformed.
    """
    strange = sorted(set(_targets(model)) - _CLASSES)
    if strange:
        raise UnsupportedModelError(
            f"{where} asks for a network that is not built here",
            found=f"_target_ {printable(strange[0], 100)}",
            expected="classes of sam2",
            fix="run it in the library that wrote it",
        )
    return tuple(key for key in check_settings(model, _rules(geometry), where) if not _TRAINING.search(key))


def _rules(geometry: Geometry) -> Table:
    sine: Table = {"normalize": Only((True,)), "scale": Only((None,)), "temperature": Only((10_000,))}
    attention: Table = {
        "rope_theta": Only((10_000,)),
        # Meta's attention makes its table anew for the size that it gets.
        "feat_sizes": HARMLESS,
        "embedding_dim": Only((256,)),
        "num_heads": Only((1,)),
        "downsample_rate": Only((1,)),
        "dropout": HARMLESS,
    }
    true = Only((True,))
    rules: Table = {
        "image_encoder": {
            "scalp": Only((1,)),
            # `read_geometry` compares these with the tensors, and the network is built by them.
            "trunk": {
                **dict.fromkeys(
                    ("embed_dim", "num_heads", "stages", "window_spec", "global_att_blocks",
                     "window_pos_embed_bkg_spatial_size"),
                    READ,
                ),
                "q_pool": Only((3,)),
                "q_stride": Only(((2, 2),)),
                "dim_mul": Only((2,)),
                "head_mul": Only((2,)),
                "return_interm_layers": true,
                "drop_path_rate": HARMLESS,
                "weights_path": HARMLESS,
            },
            "neck": {
                "position_encoding": {"num_pos_feats": Only((256,)), **sine},
                "d_model": Only((256,)),
                "backbone_channel_list": Only((geometry.trunk.widths[::-1],)),
                "fpn_top_down_levels": Only(((2, 3),)),
                "fpn_interp_model": Only(("nearest",)),
                "fuse_type": Only(("sum",)),
                "kernel_size": Only((1,)),
                "stride": Only((1,)),
                "padding": Only((0,)),
            },
        },
        "memory_attention": {
            "d_model": Only((256,)),
            "pos_enc_at_input": true,
            "batch_first": true,
            "num_layers": Only((4,)),
            "layer": {
                "activation": Only(("relu",)),
                "dim_feedforward": Only((2048,)),
                "dropout": HARMLESS,
                "d_model": Only((256,)),
                "pos_enc_at_attn": Only((False,)),
                "pos_enc_at_cross_attn_keys": true,
                "pos_enc_at_cross_attn_queries": Only((False,)),
                "self_attention": attention,
                "cross_attention": {**attention, "rope_k_repeat": true, "kv_in_dim": Only((64,))},
            },
        },
        "memory_encoder": {
            "in_dim": Only((256,)),
            "out_dim": Only((64,)),
            "position_encoding": {"num_pos_feats": Only((64,)), **sine},
            "mask_downsampler": {
                "embed_dim": Only((256,)),
                "kernel_size": Only((3,)),
                "stride": Only((2,)),
                "padding": Only((1,)),
                "total_stride": Only((STRIDE,)),
            },
            "fuser": {
                "num_layers": Only((2,)),
                "layer": {
                    "dim": Only((256,)),
                    "kernel_size": Only((7,)),
                    "padding": Only((3,)),
                    "layer_scale_init_value": HARMLESS,
                    "drop_path": HARMLESS,
                    "use_dwconv": true,
                },
            },
        },
        **_of_base(geometry),
    }  # fmt: skip
    if not geometry.tracking:  # without its tensors nothing tracks, and the rest says nothing
        return {**dict.fromkeys(rules, HARMLESS), "image_encoder": rules["image_encoder"], "image_size": READ}
    return rules


def _of_base(geometry: Geometry) -> Table:
    fixed = {
        "num_maskmem": geometry.memories,
        "backbone_stride": STRIDE,
        "sigmoid_scale_for_mem_enc": 20,
        "sigmoid_bias_for_mem_enc": -10,
        "multimask_min_pt_num": 0,
        "multimask_max_pt_num": 1,
        "max_cond_frames_in_attn": -1,  # of the call: `Sam2.track(max_conditioning_frames=)`
        "max_obj_ptrs_in_encoder": POINTERS,
        "memory_temporal_stride_for_eval": 1,
        "no_obj_embed_spatial": geometry.occlusion,
        "add_tpos_enc_to_obj_ptrs": geometry.pointer_time,
        "proj_tpos_enc_in_obj_ptrs": geometry.pointer_time,
        "use_signed_tpos_enc_to_obj_ptrs": geometry.pointer_time,
        "non_overlap_masks_for_mem_enc": False,
        "soft_no_obj_ptr": False,
        # Meta's video predictor sets it, as everything here does.
        "binarize_mask_from_pts_for_mem_enc": True,
        **dict.fromkeys(
            ("use_mask_input_as_output_without_sam", "directly_add_no_mem_embed", "use_high_res_features_in_sam",
             "multimask_output_in_sam", "multimask_output_for_tracking", "use_multimask_token_for_obj_ptr",
             "iou_prediction_use_sigmoid", "use_obj_ptrs_in_encoder", "only_obj_ptrs_in_the_past_for_eval",
             "pred_obj_scores", "pred_obj_scores_mlp", "fixed_no_obj_ptr", "use_mlp_for_obj_ptr_proj"),
            True,
        ),
    }  # fmt: skip
    return {
        **{name: Only((value,)) for name, value in fixed.items()},
        "image_size": READ,
        "compile_image_encoder": HARMLESS,
        "sam_mask_decoder_extra_args": {
            "dynamic_multimask_via_stability": Only((True,)),
            "dynamic_multimask_stability_delta": Only((0.05,)),
            "dynamic_multimask_stability_thresh": Only((0.98,)),
        },
    }


def _versions(model: Mapping[str, Any]) -> tuple[bool, bool]:
    return model["no_obj_embed_spatial"] is True, model["proj_tpos_enc_in_obj_ptrs"] is True


def _candidates(folder: Path) -> Iterator[Path]:
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".yaml", ".yml"))
    for path in found[:_MOST]:
        try:
            if path.stat().st_size <= _LARGEST and all(mark in path.read_bytes() for mark in _MARKS):
                yield path
        except OSError:
            continue


def _resolved(value: Any, document: Any, depth: int) -> Any:
    """A value whose `${a.b}` are replaced by what they name, as Hydra does it; others stay, and are no numbers."""
    if depth > 40:
        raise ValueError("references or tables go too deep")
    if isinstance(value, dict):
        return {key: _resolved(item, document, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolved(item, document, depth + 1) for item in value]
    named = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
    if named is None:
        return value
    there = document
    for key in named[1].split("."):
        there = there[key]
    return _resolved(there, document, depth + 1)


def _targets(value: Any) -> Iterable[str]:
    if isinstance(value, Mapping):
        if "_target_" in value:
            yield str(value["_target_"]).rpartition(".")[2]
        for item in value.values():
            yield from _targets(item)
