"""Against transformers' own classes on other random weights, where transformers is installed."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lensmount import registry

pytest.importorskip("transformers", reason="the reference implementation")


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_same_outputs(tiny, tmp_path, activation):
    import torch
    from transformers.models.owlv2.configuration_owlv2 import Owlv2Config
    from transformers.models.owlv2.modeling_owlv2 import Owlv2ForObjectDetection

    folder = tmp_path / "owl"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes((tiny / "model.safetensors").read_bytes())
    config = json.loads((tiny / "config.json").read_text())
    config["vision_config"]["hidden_act"] = activation
    (folder / "config.json").write_text(json.dumps(config))
    reference = Owlv2ForObjectDetection(Owlv2Config(**config)).eval()
    from lensmount_reading import as_torch_state_dict, read_checkpoint

    state = as_torch_state_dict(read_checkpoint(folder / "model.safetensors"))
    missing, unexpected = reference.load_state_dict(state, strict=False)
    assert not unexpected and all("position_ids" in name or "box_bias" in name for name in missing)
    random = np.random.default_rng(0)
    batch = random.standard_normal((2, 3, 96, 96)).astype(np.float32)
    tokens = np.array([[49406, 320, 2368, 49407, 0, 0], [49406, 518, 7, 9, 11, 49407]])
    with torch.inference_mode():
        expected = reference(
            input_ids=torch.from_numpy(np.concatenate((tokens, tokens))), pixel_values=torch.from_numpy(batch)
        )
    with registry.load(folder, backend="torch", device="cpu") as model:
        raw = model.forward(batch)
        assert np.abs(raw["objectness_logits"] - expected.objectness_logits.numpy()).max() <= 1e-4
        assert np.abs(raw["boxes"] - expected.pred_boxes.numpy()).max() <= 1e-5
        vectors = model._text.run({"tokens": tokens})["text_embeds"]
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        assert np.abs(vectors - expected.text_embeds[0].numpy()).max() <= 1e-5
