"""Variants are told by their tensors."""

from __future__ import annotations

import json

import pytest

from lensmount.errors import ModelFileError, UnsupportedModelError
from lensmount_rfdetr.checkpoint import read_config
from lensmount_rfdetr.layout import VARIANTS, find_variant, read_layout


def shapes_of(rfdetr_kit, variant):
    """Shapes of a released network, from the small one's keys."""
    width = variant.width or 384
    small = rfdetr_kit.tensors(
        masks=variant.layers if variant.masks else 0, layers=variant.layers, groups=1, classes=90
    )
    shapes = {key: list(value.shape) for key, value in small.items()}
    body = "backbone.0.encoder.encoder."
    shapes[body + "embeddings.patch_embeddings.projection.weight"] = [width, 3, variant.patch, variant.patch]
    shapes[body + "embeddings.position_embeddings"] = [1, variant.grid**2 + 1, width]
    for i in range(12):
        shapes[f"{body}encoder.layer.{i}.norm1.weight"] = [width]
    shapes["query_feat.weight"] = [13 * variant.queries, 64]
    for group in range(13):
        shapes[f"transformer.enc_output.{group}.weight"] = [64, 64]
    return shapes


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.name)
def test_released_variants(rfdetr_kit, variant):
    layout = read_layout(shapes_of(rfdetr_kit, variant), {}, "file")
    assert find_variant(layout) is variant
    assert (layout.windows, layout.resolution, layout.stages) == (variant.windows, variant.resolution, variant.stages)
    assert layout.columns == 91
    assert layout.task == ("instance-segmentation" if variant.masks else "object-detection")
    assert variant.resolution % (variant.patch * variant.windows) == 0


def test_variants_differ():
    keys = {(v.patch, v.grid, v.layers, v.queries, v.masks, v.width) for v in VARIANTS}
    assert len(keys) == len(VARIANTS)


def test_settings_of_the_file_win(rfdetr_kit):
    facts = {"num_windows": 1, "out_feature_indexes": [2, 4], "resolution": 640}
    layout = read_layout(shapes_of(rfdetr_kit, VARIANTS[0]), facts, "file")
    assert (layout.windows, layout.stages, layout.resolution) == (1, (2, 4), 640)


def test_what_only_a_folder_says(rfdetr_kit, tmp_path):
    config = {"model_type": "rf_detr", "layer_norm_eps": 1e-5, "backbone_config": {"num_attention_heads": 12}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    shapes = shapes_of(rfdetr_kit, VARIANTS[0])
    layout = read_layout(shapes, read_config({"config.json": tmp_path / "config.json"}), "file")
    assert (layout.heads, layout.projector_eps) == (12, 1e-5)
    plain = read_layout(shapes, {}, "file")
    assert (plain.heads, plain.projector_eps) == (384 // 64, 1e-6)
    assert plain.mlp == shapes["backbone.0.encoder.encoder.encoder.layer.0.mlp.fc1.weight"][0]


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [(None, "decoder_activation_function", "gelu"), ("backbone_config", "hidden_act", "relu")],
)
def test_settings_that_are_not_run(tmp_path, part, name, value):
    config = {"model_type": "rf_detr", "backbone_config": {}}
    (config if part is None else config[part])[name] = value
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedModelError, match=name):
        read_config({"config.json": tmp_path / "config.json"})


def test_resolution_must_fit(rfdetr_kit):
    with pytest.raises(ModelFileError, match="resolution of 400"):
        read_layout(shapes_of(rfdetr_kit, VARIANTS[0]), {"resolution": 400}, "file")


def test_levels(rfdetr_kit):
    shapes = shapes_of(rfdetr_kit, VARIANTS[0])
    for key in [key for key in shapes if key.startswith("backbone.0.projector.stages.0.")]:
        shapes[key.replace("stages.0.", "stages.1.")] = shapes[key]
    shapes["backbone.0.projector.stages_sampling.0.0.0.weight"] = [384, 192, 2, 2]
    shapes["backbone.0.projector.stages_sampling.1.0.0.conv.weight"] = [384, 384, 3, 3]
    assert read_layout(shapes, {}, "file").levels == (2.0, 0.5)
    shapes["backbone.0.projector.stages_sampling.0.0.3.weight"] = [192, 96, 2, 2]
    with pytest.raises(ModelFileError):
        read_layout(shapes, {}, "file")


def test_lora(rfdetr_kit):
    shapes = {**shapes_of(rfdetr_kit, VARIANTS[0]), "backbone.0.encoder.encoder.x.lora_A.weight": [8, 384]}
    with pytest.raises(UnsupportedModelError, match="LoRA"):
        read_layout(shapes, {}, "file")
