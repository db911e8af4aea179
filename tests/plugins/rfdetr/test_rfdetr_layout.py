"""Variants are told by their tensors."""

from __future__ import annotations

import pytest

from lensmount.errors import ModelFileError, UnsupportedModelError
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
