"""Against Hugging Face transformers' RF-DETR, an independent reading of the same network, and its folders."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lensmount import registry
from lensmount.errors import ModelFileError, UnsupportedModelError

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
transformers = pytest.importorskip("transformers")
if not hasattr(transformers, "RfDetrConfig"):
    pytest.skip("transformers before 5.23 has no RF-DETR", allow_module_level=True)


def reference(masks, original_keys, folder, *, heads=1, ratio=4, eps=1e-6):
    """A small network of transformers with random weights, saved as a folder.

    The projector's `eps` is 1e-6 in the authors' code; transformers' default differs.
    """
    from safetensors.torch import save_file
    from transformers.models.rf_detr.configuration_rf_detr import RfDetrConfig
    from transformers.models.rf_detr.modeling_rf_detr import RfDetrForInstanceSegmentation, RfDetrForObjectDetection

    backbone = {
        "model_type": "rf_detr_dinov2",
        "hidden_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": heads,
        "mlp_ratio": ratio,
        "image_size": 64,
        "patch_size": 16,
        "num_windows": 2,
        "out_features": ["stage1", "stage3"],
    }
    config = RfDetrConfig(
        backbone_config=backbone,
        d_model=64,
        decoder_layers=2,
        decoder_self_attention_heads=2,
        decoder_cross_attention_heads=4,
        decoder_n_points=2,
        decoder_ffn_dim=128,
        intermediate_size=256,
        num_queries=10,
        group_detr=2,
        layer_norm_eps=eps,
        id2label={0: "nut", 1: "bolt", 2: "gear"},
        attn_implementation="eager",
    )
    torch.manual_seed(0)
    network = (RfDetrForInstanceSegmentation if masks else RfDetrForObjectDetection)(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    folder.mkdir()
    if original_keys:
        network.save_pretrained(folder)
    else:
        save_file(
            {key: value.contiguous() for key, value in network.state_dict().items()}, folder / "model.safetensors"
        )
        (folder / "config.json").write_text(json.dumps(config.to_dict(), default=str))
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": {"height": 64, "width": 64}}))
    return network


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("original_keys", [False, True])
def test_same_outputs(tmp_path, masks, original_keys, picture):
    network = reference(masks, original_keys, tmp_path / "folder")
    model = registry.load(tmp_path / "folder", backend="torch", device="cpu")
    # With three names there are three columns: transformers counts the background among the labels.
    assert model.card.classes == ("nut", "bolt", "gear")
    batch, _ = model.preprocess([picture, picture[::3]])
    raw = model.forward(batch)
    with torch.inference_mode():
        expected = network(torch.from_numpy(batch))
    np.testing.assert_allclose(raw["dets"], expected.pred_boxes.numpy(), atol=2e-5)
    np.testing.assert_allclose(raw["labels"], expected.logits.numpy(), atol=2e-4)
    if masks:
        np.testing.assert_allclose(raw["masks"], expected.pred_masks.numpy(), atol=1e-3)


def test_sizes_of_no_release(tmp_path, picture):
    """Heads and the projector's eps are in no tensor: the configuration says them."""
    network = reference(False, True, tmp_path / "folder", heads=4, ratio=2, eps=0.3)
    model = registry.load(tmp_path / "folder", backend="torch", device="cpu")
    batch, _ = model.preprocess([picture])
    raw = model.forward(batch)
    with torch.inference_mode():
        expected = network(torch.from_numpy(batch))
    np.testing.assert_allclose(raw["dets"], expected.pred_boxes.numpy(), atol=2e-5)
    np.testing.assert_allclose(raw["labels"], expected.logits.numpy(), atol=2e-4)


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        (None, "activation_function", "relu"),
        (None, "decoder_activation_function", "gelu"),
        (None, "segmentation_head_activation_function", "silu"),
        ("backbone_config", "hidden_act", "relu"),
        ("backbone_config", "layer_norm_eps", 0.1),
        ("backbone_config", "apply_layernorm", False),
    ],
)
def test_settings_that_are_not_run(tmp_path, part, name, value):
    reference(False, False, tmp_path / "folder")
    config = json.loads((tmp_path / "folder/config.json").read_text())
    (config[part] if part else config)[name] = value
    (tmp_path / "folder/config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedModelError, match=name):
        registry.load(tmp_path / "folder", backend="torch", device="cpu")


def test_configuration_of_another_model(tmp_path):
    reference(False, False, tmp_path / "folder")
    (tmp_path / "folder/config.json").write_text(json.dumps({"model_type": "detr"}))
    with pytest.raises(ModelFileError, match="another model"):
        registry.load(tmp_path / "folder", backend="torch", device="cpu")
    (tmp_path / "folder/config.json").write_text("{")
    with pytest.raises(ModelFileError, match=r"config.json cannot be read"):
        registry.load(tmp_path / "folder", backend="torch", device="cpu")
