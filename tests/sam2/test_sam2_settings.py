"""Every setting of a SAM 2 folder is read, refused by name, or changes nothing; every tensor is used or refused."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

import sam2_tiny
from lensmount.errors import ModelFileError, UnsupportedModelError
from lensmount_sam2.geometry import RELEASED, Geometry, Trunk
from lensmount_sam2.hf_keys import read_config
from lensmount_sam2.settings import PREPROCESS, check, preprocess_of

COMMON = {
    "architectures": None, "output_hidden_states": False, "return_dict": True, "dtype": None,
    "chunk_size_feed_forward": 0, "is_encoder_decoder": False, "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0},
    "problem_type": None, "output_attentions": False, "_name_or_path": "", "initializer_range": 0.02,
}  # fmt: skip
#: As transformers 5.23 writes that of sam2.1-hiera-tiny.
CONFIG = {
    **COMMON, "model_type": "sam2_video", "transformers_version": "5.23.0",
    "vision_config": {
        **COMMON, "model_type": "sam2_vision_model",
        "backbone_config": {
            **COMMON, "model_type": "sam2_hiera_det_model", "hidden_size": 96, "num_attention_heads": 1,
            "num_channels": 3, "image_size": [1024, 1024], "patch_kernel_size": [7, 7], "patch_stride": [4, 4],
            "patch_padding": [3, 3], "query_stride": [2, 2],
            "window_positional_embedding_background_size": [7, 7], "num_query_pool_stages": 3,
            "blocks_per_stage": [1, 2, 7, 2], "embed_dim_per_stage": [96, 192, 384, 768],
            "num_attention_heads_per_stage": [1, 2, 4, 8], "window_size_per_stage": [8, 4, 14, 7],
            "global_attention_blocks": [5, 7, 9], "mlp_ratio": 4.0, "hidden_act": "gelu", "layer_norm_eps": 1e-6,
        },
        "backbone_channel_list": [768, 384, 192, 96], "backbone_feature_sizes": [[256, 256], [128, 128], [64, 64]],
        "fpn_hidden_size": 256, "fpn_kernel_size": 1, "fpn_stride": 1, "fpn_padding": 0, "fpn_top_down_levels": [2, 3],
        "num_feature_levels": 3, "hidden_act": "gelu", "layer_norm_eps": 1e-6,
    },
    "prompt_encoder_config": {
        **COMMON, "model_type": "sam2_video_prompt_encoder", "hidden_size": 256, "image_size": 1024, "patch_size": 16,
        "mask_input_channels": 16, "num_point_embeddings": 4, "hidden_act": "gelu", "layer_norm_eps": 1e-6, "scale": 1,
    },
    "mask_decoder_config": {
        **COMMON, "model_type": "sam2_video_mask_decoder", "hidden_size": 256, "hidden_act": "gelu", "mlp_dim": 2048,
        "num_hidden_layers": 2, "num_attention_heads": 8, "attention_downsample_rate": 2, "num_multimask_outputs": 3,
        "iou_head_depth": 3, "iou_head_hidden_dim": 256, "dynamic_multimask_via_stability": True,
        "dynamic_multimask_stability_delta": 0.05, "dynamic_multimask_stability_thresh": 0.98,
    },
    "num_maskmem": 7, "image_size": 1024, "sigmoid_scale_for_mem_enc": 20.0, "sigmoid_bias_for_mem_enc": -10.0,
    "enable_occlusion_spatial_embedding": True, "multimask_output_in_sam": True, "multimask_min_pt_num": 0,
    "multimask_max_pt_num": 1, "multimask_output_for_tracking": True, "max_object_pointers_in_encoder": 16,
    "max_cond_frame_num": -1, "enable_temporal_pos_encoding_for_object_pointers": True,
    "memory_attention_hidden_size": 256, "memory_attention_num_layers": 4, "memory_attention_num_attention_heads": 1,
    "memory_attention_downsample_rate": 1, "memory_attention_feed_forward_hidden_size": 2048,
    "memory_attention_feed_forward_hidden_act": "relu", "memory_attention_dropout": 0.1,
    "memory_attention_rope_feat_sizes": [64, 64], "memory_attention_rope_dropout": 0.1,
    "memory_encoder_hidden_size": 256, "memory_encoder_output_channels": 64,
    "rope_parameters": {"rope_theta": 10000.0, "rope_type": "axial"}, "mask_downsampler_embed_dim": 256,
    "mask_downsampler_kernel_size": 3, "mask_downsampler_stride": 2, "mask_downsampler_padding": 1,
    "mask_downsampler_total_stride": 16, "mask_downsampler_hidden_act": "gelu", "memory_fuser_num_layers": 2,
    "memory_fuser_embed_dim": 256, "memory_fuser_intermediate_dim": 1024, "memory_fuser_kernel_size": 7,
    "memory_fuser_padding": 3, "memory_fuser_layer_scale_init_value": 1e-6, "memory_fuser_hidden_act": "gelu",
}  # fmt: skip
HARMLESS = {
    *COMMON, "model_type", "transformers_version", "memory_attention_dropout", "memory_attention_rope_dropout",
    "memory_fuser_layer_scale_init_value", "scale",
} - {"is_encoder_decoder"}  # fmt: skip
PROCESSOR = {
    "do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True,
    "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "mask_size": {"height": 256, "width": 256},
    "resample": 2, "rescale_factor": 1 / 255, "size": {"height": 1024, "width": 1024},
    "image_processor_type": "Sam2ImageProcessor",
}  # fmt: skip
NAME, HEADS, WINDOWS, GLOBAL = RELEASED[96, (1, 2, 7, 2)]
TRUNK = Trunk(width=96, heads=HEADS, blocks=(1, 2, 7, 2), windows=WINDOWS, global_blocks=GLOBAL, background=(7, 7))
GEOMETRY = Geometry(trunk=TRUNK, occlusion=True, pointer_time=True)


def leaves(tree, path=()):
    for key, value in tree.items():
        if isinstance(value, dict) and key not in ("id2label", "label2id", "size", "mask_size"):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key)


def changed(tree, path):
    made = copy.deepcopy(tree)
    inner = made
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = other(inner[path[-1]])
    return made


def other(value):
    if isinstance(value, bool):
        return not value
    if isinstance(value, list):
        return [other(item) for item in value]
    if isinstance(value, dict):
        return {name: other(item) for name, item in value.items()}
    if isinstance(value, int | float):
        return value * 2 if value else 1
    return f"{value}_other"


def test_the_usual_configuration_is_what_is_built() -> None:
    trunk, side = read_config(CONFIG, "config.json")
    assert (trunk, side) == (TRUNK, 1024)
    assert check(CONFIG, GEOMETRY, side, "config.json") == ()


@pytest.mark.parametrize("key", [k for k in leaves(CONFIG) if k[-1] not in HARMLESS], ids=".".join)
def test_each_setting_is_read_or_refused(key) -> None:
    config = changed(CONFIG, key)
    try:
        trunk, side = read_config(config, "config.json")
        check(config, GEOMETRY, side, "config.json")
    except ModelFileError as error:
        told = str(error)
        # What two settings say alike is told by either name.
        assert key[-1] in told or "image_size" in told or "backbone_feature_sizes" in told or "per_stage" in told
        return
    assert (trunk, side) != (TRUNK, 1024), f"{key} was dropped"


def test_what_changes_nothing() -> None:
    config = CONFIG
    for key in leaves(CONFIG):
        if key[-1] in HARMLESS:
            config = changed(config, key)
    assert check(config, GEOMETRY, 1024, "config.json") == ()


def test_settings_of_video_say_nothing_without_its_tensors() -> None:
    images = Geometry(trunk=TRUNK, tracking=False)
    config = changed(changed(CONFIG, ("num_maskmem",)), ("rope_parameters", "rope_theta"))
    assert check(config, images, 1024, "config.json") == ()


@pytest.mark.parametrize("place", [(), ("vision_config", "backbone_config"), ("mask_decoder_config",)])
def test_unknown_settings_are_named(place) -> None:
    config = copy.deepcopy(CONFIG)
    inner = config
    for key in place:
        inner = inner[key]
    inner["of_tomorrow"] = 1
    assert check(config, GEOMETRY, 1024, "config.json") == (".".join((*place, "of_tomorrow")),)


def processor_files(folder, **content):
    for name, value in content.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return {f"{name}.json": folder / f"{name}.json" for name in content}


@pytest.mark.parametrize("key", [k for k in PROCESSOR if k not in ("do_convert_rgb", "mask_size")])
@pytest.mark.parametrize("form", ["preprocessor_config", "processor_config", "video_processor"])
def test_each_setting_of_an_image_processor(key, form, tmp_path) -> None:
    settings = {**PROCESSOR, key: other(PROCESSOR[key])}
    content = {
        "preprocessor_config": {"preprocessor_config": settings},
        "processor_config": {"processor_config": {"image_processor": settings, "target_size": 1024}},
        "video_processor": {"processor_config": {"image_processor": PROCESSOR, "video_processor": settings}},
    }[form]
    try:
        spec, unknown = preprocess_of(processor_files(tmp_path, **content), 1024)
    except UnsupportedModelError as error:
        assert key in str(error) or form == "video_processor"
        return
    assert spec != PREPROCESS and not unknown


def test_the_usual_processor_is_what_is_built(tmp_path) -> None:
    files = processor_files(
        tmp_path,
        processor_config={"image_processor": PROCESSOR, "target_size": 1024, "point_pad_value": -10, "new": 1},
    )
    assert preprocess_of(files, 1024) == (PREPROCESS, ("new",))
    files = processor_files(tmp_path, processor_config={"image_processor": PROCESSOR, "target_size": 512})
    with pytest.raises(UnsupportedModelError, match="target_size"):
        preprocess_of(files, 1024)


@pytest.fixture
def tiny_folder(tmp_path):
    pytest.importorskip("torch")
    return sam2_tiny.write_folder(tmp_path / "tiny")


def test_a_folder_is_prepared_as_it_says(tiny_folder) -> None:
    from lensmount import registry

    side = {"height": sam2_tiny.SIDE, "width": sam2_tiny.SIDE}
    settings = {**PROCESSOR, "size": side, "image_mean": [0.5] * 3, "do_rescale": True, "rescale_factor": 1 / 127.5}
    (tiny_folder / "processor_config.json").write_text(json.dumps({"image_processor": settings, "later": 1}))
    model = registry.load(tiny_folder, backend="torch", device="cpu")
    assert model.preprocess_spec.mean == (0.5, 0.5, 0.5)
    assert model.preprocess_spec.scale == 1 / 127.5
    assert any("later" in note for note in model.card.notes)


@pytest.mark.parametrize(
    "name",
    ["memory_attention.layers.4.linear1.weight", "vision_encoder.backbone.blocks.0.attn.qkv.lora_A.weight",
     "memory_encoder.extra.weight", "mask_decoder.adapter.weight"],
)  # fmt: skip
def test_tensors_without_a_place_are_refused(name, tiny_folder) -> None:
    from lensmount import registry

    safetensors = pytest.importorskip("safetensors.numpy")
    path = next(tiny_folder.glob("*.safetensors"))
    safetensors.save_file({**safetensors.load_file(path), name: np.ones((4, 4), np.float32)}, path)
    with pytest.raises(UnsupportedModelError) as caught:
        registry.load(tiny_folder, backend="torch", device="cpu")
    assert name.rpartition(".")[0].rpartition(".")[2] in str(caught.value)
