"""Every setting that open_clip says of a PE-Core is obeyed, refused or noted; every tensor is used or refused."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tokenizers")

from lensmount import registry  # noqa: E402 - after the skips
from lensmount.errors import ModelFileError, UnsupportedModelError  # noqa: E402


@pytest.fixture(scope="module")
def state(embedding_goldens):
    weights = embedding_goldens.recipe.weights(embedding_goldens.shapes["pe-timm"])
    return {name: torch.from_numpy(value) for name, value in weights.items()}


def described(state) -> dict:
    """What open_clip writes next to these weights."""
    prefix = "text." if "text.positional_embedding" in state else ""
    context, width = state[f"{prefix}positional_embedding"].shape
    patch = state["visual.trunk.patch_embed.proj.weight"].shape[-1]
    places = state["visual.trunk.pos_embed"].shape[1] - ("visual.trunk.cls_token" in state)
    layers = {name.split("resblocks.")[1].split(".")[0] for name in state if "resblocks." in name}
    return {
        "model_cfg": {
            "embed_dim": state["visual.trunk.head.weight"].shape[0], "custom_text": True,
            "vision_cfg": {
                "image_size": patch * round(places**0.5), "timm_model_name": "vit_pe_core_base_patch16_224",
                "timm_model_pretrained": False, "timm_pool": "map", "timm_proj": None,
            },
            "text_cfg": {
                "context_length": context, "vocab_size": state[f"{prefix}token_embedding.weight"].shape[0],
                "width": width, "heads": max(1, width // 64), "layers": len(layers), "norm_kwargs": None,
                "act_kwargs": None, "no_causal_mask": False, "pool_type": "argmax", "tokenizer_kwargs": None,
            },
        },
        "preprocess_cfg": {
            "size": patch * round(places**0.5), "mode": "RGB", "mean": [0.5] * 3, "std": [0.5] * 3,
            "interpolation": "bilinear", "resize_mode": "squash",
        },
    }  # fmt: skip


def write(folder, state, config):
    folder.mkdir()
    torch.save(state, folder / "weights.pt")
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder / "weights.pt"


def facts(path):
    model = registry.load(path, backend="torch", device="cpu")
    return model.preprocess_spec, model.forward_text(np.array([[298, 5, 9, 299]]))


KEYS = [
    ("model_cfg", "embed_dim", 7), ("model_cfg", "quick_gelu", True),
    *(("model_cfg.vision_cfg", *pair) for pair in (
        ("image_size", 512), ("timm_model_name", "vit_base_patch16"), ("timm_pool", "avg"), ("timm_proj", "linear"),
        ("act_kwargs", {"approximate": "tanh"}),
    )),
    *(("model_cfg.text_cfg", *pair) for pair in (
        ("context_length", 99), ("vocab_size", 99), ("width", 99), ("heads", 2), ("layers", 9),
        ("norm_kwargs", {"eps": 1e-2}), ("act_kwargs", {"approximate": "tanh"}), ("no_causal_mask", True),
        ("pool_type", "last"), ("tokenizer_kwargs", {"clean": "canonicalize"}), ("hf_tokenizer_name", "bert"),
    )),
    *(("preprocess_cfg", *pair) for pair in (
        ("size", 512), ("mode", "L"), ("mean", [0.1] * 3), ("std", [0.1] * 3), ("interpolation", "bicubic"),
        ("resize_mode", "shortest"),
    )),
]  # fmt: skip


@pytest.mark.parametrize(("place", "key", "value"), KEYS, ids=lambda part: part if isinstance(part, str) else "")
def test_each_setting_is_obeyed_or_refused(place, key, value, state, tmp_path) -> None:
    config = described(state)
    spec, text = facts(write(tmp_path / "usual", state, config))
    changed = copy.deepcopy(config)
    inner = changed
    for name in place.split("."):
        inner = inner[name]
    inner[key] = value
    try:
        other, words = facts(write(tmp_path / "changed", state, changed))
    except ModelFileError as error:
        assert key in str(error) or (key == "size" and "another size" in str(error))
        return
    assert other != spec or np.abs(words - text).max() > 1e-4, f"{key} was dropped"


def test_unknown_settings_are_noted(state, tmp_path) -> None:
    config = described(state)
    config["model_cfg"]["text_cfg"]["of_tomorrow"] = 1
    notes = registry.describe(write(tmp_path / "pe", state, config)).notes
    assert any("text_cfg.of_tomorrow" in note for note in notes)


@pytest.mark.parametrize("name", ["visual.trunk.blocks.0.attn.qkv.lora_A.weight", "adapter.weight", "visual.extra"])
def test_tensors_without_a_place_are_refused(name, state, tmp_path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({**state, name: torch.ones(4, 4)}, path)
    with pytest.raises(UnsupportedModelError):
        registry.load(path, backend="torch", device="cpu")
