"""Every setting of RF-DETR's files is read, refused by name, or changes nothing; every tensor is used or refused."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

from lensmount.errors import ModelFileError, UnsupportedModelError
from lensmount_rfdetr.layout import read_layout
from lensmount_rfdetr.settings import PREPROCESS, check_args, check_config, preprocess_of, windowed

#: What decides what a network computes, as rfdetr 1.11 writes it, for the small network of `conftest`.
ARGS = {
    "encoder": "dinov2_windowed_small", "patch_size": 16, "num_windows": 2, "out_feature_indexes": [1, 3],
    "positional_encoding_size": 4, "hidden_dim": 64, "dec_layers": 2, "num_queries": 10, "resolution": 64,
    "segmentation_head": False, "two_stage": True, "projector_scale": ["P4"], "sa_nheads": 2, "ca_nheads": 4,
    "dec_n_points": 2, "bbox_reparam": True, "lite_refpoint_refine": True, "layer_norm": True, "num_channels": 3,
    "num_decoder_registers": 0, "use_grouppose_keypoints": False, "dual_projector": False,
    "dual_projector_kp_only": False, "position_embedding": "sine", "rms_norm": False, "use_cls_token": False,
    "encoder_only": False, "backbone_only": False, "dim_feedforward": 128, "decoder_norm": "LN",
    "num_feature_levels": 1, "window_block_indexes": None, "mask_downsample_ratio": 4,
}  # fmt: skip
TRAINING = {"lr": 1e-4, "epochs": 3, "group_detr": 2, "backbone_lora": True, "aux_loss": True, "wandb": True}
PROCESSOR = {
    "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225], "resample": 2, "rescale_factor": 1 / 255, "size": {"height": 64, "width": 64},
    "image_processor_type": "RfDetrImageProcessor",
}  # fmt: skip


@pytest.fixture(scope="module")
def shapes(rfdetr_kit):
    return {name: value.shape for name, value in rfdetr_kit.tensors().items()}


@pytest.fixture(scope="module")
def layout(shapes):
    return read_layout(shapes, ARGS, "file")


def other(value):
    if value is None:
        return [1]
    if isinstance(value, bool):
        return not value
    if isinstance(value, list):
        return [other(item) for item in value] if value != ["P4"] else ["P3", "P4"]
    if isinstance(value, dict):
        return {name: other(item) for name, item in value.items()}
    if isinstance(value, int | float):
        return value * 2 if value else 1
    return f"{value}_other"


def test_the_usual_settings_are_what_is_built(layout) -> None:
    assert check_args({**ARGS, **TRAINING}, layout, "file") == ()
    assert check_args({**ARGS, "window_block_indexes": windowed(layout)}, layout, "file") == ()
    assert check_args({**ARGS, "of_tomorrow": 1}, layout, "file") == ("of_tomorrow",)


@pytest.mark.parametrize("key", [key for key in ARGS if key not in ("encoder", "num_windows")])
def test_each_setting_is_read_or_refused(key, shapes, layout) -> None:
    args = {**ARGS, key: other(ARGS[key])}
    try:
        made = read_layout(shapes, args, "file")
        check_args(args, made, "file")
    except ModelFileError as error:
        assert error
        return
    assert made != layout, f"{key} was dropped"


def test_windows_are_read(shapes, layout) -> None:
    assert read_layout(shapes, {**ARGS, "num_windows": 1}, "file").windows == 1


#: As transformers 5.23 writes it, for the same network.
CONFIG = {
    "model_type": "rf_detr", "is_encoder_decoder": False,
    "backbone_config": {
        "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 1, "mlp_ratio": 4, "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.02,
        "layer_norm_eps": 1e-6, "image_size": 64, "patch_size": 16, "num_channels": 3, "qkv_bias": True,
        "layerscale_value": 1.0, "drop_path_rate": 0.0, "use_swiglu_ffn": False, "apply_layernorm": True,
        "reshape_hidden_states": True, "use_mask_token": True, "num_windows": 2, "stage_names": ["stem", "stage1"],
        "window_block_indexes": [0, 2], "num_register_tokens": 0, "model_type": "rf_detr_dinov2",
        "out_features": ["stage1", "stage3"], "out_indices": [1, 3],
    },
    "hidden_expansion": 0.5, "c2f_num_blocks": 3, "activation_function": "silu", "dropout": 0.1, "decoder_ffn_dim": 128,
    "decoder_n_points": 2, "decoder_layers": 2, "decoder_self_attention_heads": 2, "decoder_cross_attention_heads": 4,
    "decoder_activation_function": "relu", "num_queries": 10, "attention_bias": True, "attention_dropout": 0.0,
    "activation_dropout": 0.0, "group_detr": 2, "init_std": 0.02, "disable_custom_kernels": True, "class_cost": 2,
    "bbox_cost": 5, "giou_cost": 2, "class_loss_coefficient": 1, "dice_loss_coefficient": 1, "bbox_loss_coefficient": 5,
    "giou_loss_coefficient": 2, "eos_coefficient": 0.1, "focal_alpha": 0.25, "auxiliary_loss": True, "d_model": 64,
    "layer_norm_eps": 1e-5, "num_feature_levels": 1, "mask_loss_coefficient": 1, "mask_point_sample_ratio": 16,
    "mask_downsample_ratio": 4, "mask_class_loss_coefficient": 5.0, "mask_dice_loss_coefficient": 5.0,
    "segmentation_head_activation_function": "gelu", "intermediate_size": 1024,
}  # fmt: skip
CONFIG_HARMLESS = {
    "hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range", "image_size", "layerscale_value",
    "drop_path_rate", "use_mask_token", "stage_names", "num_hidden_layers", "hidden_expansion", "c2f_num_blocks",
    "dropout", "attention_dropout", "activation_dropout", "group_detr", "init_std", "disable_custom_kernels",
    "class_cost", "bbox_cost", "giou_cost", "class_loss_coefficient", "dice_loss_coefficient", "bbox_loss_coefficient",
    "giou_loss_coefficient", "eos_coefficient", "focal_alpha", "auxiliary_loss", "mask_loss_coefficient",
    "mask_point_sample_ratio", "mask_class_loss_coefficient", "mask_dice_loss_coefficient", "intermediate_size",
}  # fmt: skip


def config_keys():
    for key, value in CONFIG.items():
        if isinstance(value, dict):
            yield from ((key, inner) for inner in value)
        else:
            yield (key,)


def from_config(config, shapes, folder):
    from lensmount_rfdetr.checkpoint import read_config

    (folder / "config.json").write_text(json.dumps(config))
    made = read_layout(shapes, read_config({"config.json": folder / "config.json"}), "file")
    return made, check_config(config, made, "config.json")


def test_the_usual_configuration_is_what_is_built(shapes, tmp_path) -> None:
    made, unknown = from_config({**CONFIG, "of_tomorrow": 1}, shapes, tmp_path)
    assert made.stages == (1, 3) and unknown == ("of_tomorrow",)


@pytest.mark.parametrize("key", list(config_keys()), ids=".".join)
def test_each_setting_of_a_configuration(key, shapes, tmp_path) -> None:
    usual, _ = from_config(CONFIG, shapes, tmp_path)
    config = copy.deepcopy(CONFIG)
    inner = config if len(key) == 1 else config[key[0]]
    inner[key[-1]] = other(inner[key[-1]]) if key[-1] != "out_features" else ["stage2", "stage3"]
    if key[-1] == "out_features":
        del inner["out_indices"], inner["window_block_indexes"]
    try:
        made, unknown = from_config(config, shapes, tmp_path)
    except ModelFileError:
        assert key[-1] not in CONFIG_HARMLESS
        return
    assert not unknown
    assert (made == usual) == (key[-1] in CONFIG_HARMLESS or key == ("backbone_config", "model_type"))


@pytest.mark.parametrize("key", PROCESSOR)
@pytest.mark.parametrize("form", ["preprocessor_config.json", "processor_config.json"])
def test_each_setting_of_an_image_processor(key, form, tmp_path) -> None:
    settings = {**PROCESSOR, key: other(PROCESSOR[key])}
    path = tmp_path / form
    path.write_text(json.dumps(settings if form.startswith("pre") else {"image_processor": settings}))
    try:
        spec, side, unknown = preprocess_of({form: path})
    except UnsupportedModelError as error:
        assert key in str(error)
        return
    assert (spec, side) != (PREPROCESS, 64) and not unknown


@pytest.mark.parametrize(
    "name",
    ["backbone.0.encoder.encoder.extra.weight", "transformer.decoder.layers.0.adapter.weight",
     "transformer.decoder.layers.7.norm1.weight", "transformer.decoder.layers.0.self_attn.out_proj.lora_A.weight"],
)  # fmt: skip
def test_tensors_without_a_place_are_refused(name, rfdetr_kit, tmp_path) -> None:
    pytest.importorskip("torch")
    from lensmount import registry

    made = {**rfdetr_kit.tensors(), name: np.ones((4, 4), np.float32)}
    path = rfdetr_kit.write_checkpoint(tmp_path / "w.pth", made, rfdetr_kit.ARGS)
    with pytest.raises(UnsupportedModelError):
        registry.load(path, backend="torch", device="cpu")


def test_training_groups_and_blocks_behind_the_last_stage_are_harmless(rfdetr_kit, tmp_path) -> None:
    pytest.importorskip("torch")
    from lensmount import registry

    made = rfdetr_kit.tensors(groups=13)
    block = "backbone.0.encoder.encoder.encoder.layer."
    made |= {name.replace(f"{block}2.", f"{block}3."): value for name, value in made.items() if f"{block}2." in name}
    path = rfdetr_kit.write_checkpoint(
        tmp_path / "w.pth", made, rfdetr_kit.ARGS, optimizer={"state": {0: {"exp_avg": __import__("torch").ones(3)}}}
    )
    registry.load(path, backend="torch", device="cpu")
