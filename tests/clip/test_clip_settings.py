"""Every setting that CLIP's files say is obeyed, refused by name, or noted; every tensor is used or refused."""

from __future__ import annotations

import copy
import json
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tokenizers")
save_file = pytest.importorskip("safetensors.torch").save_file

from lensmount import registry  # noqa: E402 - after the skips
from lensmount.errors import ModelFileError, UnsupportedModelError  # noqa: E402
from lensmount_clip.options import GuessWarning  # noqa: E402

#: As transformers 5.23 `save_pretrained` writes it.
COMMON = {
    "architectures": None, "output_hidden_states": False, "return_dict": True, "dtype": None,
    "chunk_size_feed_forward": 0, "is_encoder_decoder": False, "id2label": {"0": "LABEL_0"},
    "label2id": {"LABEL_0": 0}, "problem_type": None, "output_attentions": False, "initializer_factor": 1.0,
    "_name_or_path": "",
}  # fmt: skip
TOWER = {
    **COMMON, "num_hidden_layers": 1, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "attention_dropout": 0.0,
    "initializer_range": 0.02, "projection_dim": 512,
}  # fmt: skip
CONFIG = {
    **COMMON, "model_type": "clip", "projection_dim": 12, "logit_scale_init_value": 2.6592,
    "transformers_version": "5.23.0",
    "text_config": {**TOWER, "model_type": "clip_text_model", "vocab_size": 300, "hidden_size": 32,
                    "intermediate_size": 48, "num_attention_heads": 2, "max_position_embeddings": 16,
                    "pad_token_id": 1, "bos_token_id": 298, "eos_token_id": 299},
    "vision_config": {**TOWER, "model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 64,
                      "num_attention_heads": 4, "num_channels": 3, "image_size": 32, "patch_size": 8},
}  # fmt: skip
#: What changes no vector of a trained network.
HARMLESS = {
    *COMMON, "model_type", "logit_scale_init_value", "attention_dropout", "initializer_range", "pad_token_id",
    "bos_token_id", "transformers_version", "text_config.projection_dim", "vision_config.projection_dim",
} - {"is_encoder_decoder"}  # fmt: skip
PROCESSOR = {
    "do_convert_rgb": True, "do_resize": True, "resample": 3, "do_rescale": True, "rescale_factor": 1 / 255,
    "do_normalize": True, "do_center_crop": True, "size": {"shortest_edge": 32},
    "crop_size": {"height": 32, "width": 32}, "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711], "image_processor_type": "CLIPImageProcessor",
}  # fmt: skip
OPEN_CLIP = {
    "model_cfg": {
        "embed_dim": 12, "quick_gelu": True, "custom_text": False, "init_logit_scale": 2.6,
        "vision_cfg": {
            "layers": 1, "width": 32, "head_width": 8, "mlp_ratio": 2.0, "patch_size": 8, "image_size": 32,
            "ls_init_value": None, "patch_dropout": 0.0, "attentional_pool": False, "attn_pooler_queries": 256,
            "attn_pooler_heads": 8, "no_ln_pre": False, "pos_embed_type": "learnable", "final_ln_after_pool": False,
            "pool_type": "tok", "output_tokens": False, "act_kwargs": None, "norm_kwargs": None, "block_type": None,
            "qk_norm": False, "scaled_cosine_attn": False, "scale_heads": False, "scale_attn_inner": False,
            "scale_attn": False, "scale_fc": False, "timm_model_name": None,
        },
        "text_cfg": {
            "context_length": 16, "vocab_size": 300, "hf_tokenizer_name": None, "tokenizer_mode": None,
            "tokenizer_kwargs": None, "width": 32, "heads": 2, "layers": 1, "mlp_ratio": 1.5, "ls_init_value": None,
            "embed_cls": False, "pad_id": 0, "eos_id": 2, "no_causal_mask": False, "final_ln_after_pool": False,
            "pool_type": "argmax", "proj_bias": False, "proj_type": "linear", "output_tokens": False,
            "act_kwargs": None, "norm_kwargs": None, "block_type": None, "qk_norm": False, "hf_model_name": None,
        },
    },
    "preprocess_cfg": {
        "size": 32, "mode": "RGB", "mean": [0.48145466, 0.4578275, 0.40821073],
        "std": [0.26862954, 0.26130258, 0.27577711], "interpolation": "bicubic", "resize_mode": "shortest",
        "fill_color": 0,
    },
}  # fmt: skip
OPEN_CLIP_HARMLESS = {
    "custom_text", "init_logit_scale", "patch_dropout", "attn_pooler_queries", "attn_pooler_heads", "output_tokens",
    "tokenizer_mode", "pad_id", "eos_id", "fill_color",
}  # fmt: skip
#: Values of settings whose usual one is None.
OTHERS = {
    "ls_init_value": 1e-4, "act_kwargs": {"approximate": "tanh"}, "norm_kwargs": {"eps": 1e-2}, "block_type": "custom",
    "timm_model_name": "vit_base", "hf_tokenizer_name": "bert-base-uncased", "hf_model_name": "roberta-base",
    "tokenizer_mode": "clips", "tokenizer_kwargs": {"clean": "canonicalize"},
}  # fmt: skip


def towers() -> dict[str, torch.Tensor]:
    """A tiny CLIP in transformers' layout."""
    g = torch.Generator().manual_seed(7)

    def some(*shape):
        return torch.randn(*shape, generator=g) * 0.3

    made = {
        "text_model.embeddings.token_embedding.weight": some(300, 32),
        "text_model.embeddings.position_embedding.weight": some(16, 32),
        "vision_model.embeddings.class_embedding": some(32),
        "vision_model.embeddings.patch_embedding.weight": some(32, 3, 8, 8),
        "vision_model.embeddings.position_embedding.weight": some(17, 32),
        "text_projection.weight": some(12, 32),
        "visual_projection.weight": some(12, 32),
        "logit_scale": torch.tensor(4.6),
    }
    norms = ["text_model.final_layer_norm", "vision_model.pre_layrnorm", "vision_model.post_layernorm"]
    for tower, hidden in (("text_model", 48), ("vision_model", 64)):
        block = f"{tower}.encoder.layers.0."
        norms += [block + "layer_norm1", block + "layer_norm2"]
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            made[f"{block}self_attn.{name}.weight"] = some(32, 32)
            made[f"{block}self_attn.{name}.bias"] = some(32)
        for name, out, into in (("fc1", hidden, 32), ("fc2", 32, hidden)):
            made[f"{block}mlp.{name}.weight"], made[f"{block}mlp.{name}.bias"] = some(out, into), some(out)
    for name in norms:
        made[f"{name}.weight"], made[f"{name}.bias"] = 1 + some(32), some(32)
    return made


TENSORS = towers()
PICTURE = np.random.default_rng(0).integers(0, 255, (48, 80, 3), np.uint8)
TOKENS = np.array([[298, 5, 9, 299], [298, 7, 299, 0]])


def folder(path, *, tensors=None, weights="model.safetensors", **files):
    path.mkdir()
    save_file(TENSORS if tensors is None else tensors, path / weights)
    for name, content in files.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    return path / weights


def vectors(path) -> np.ndarray:
    model = registry.load(path, backend="torch", device="cpu")
    return np.concatenate((model.embed_images(PICTURE).vectors.ravel(), model.forward_text(TOKENS).ravel()))


def leaves(tree, path=()):
    for key, value in tree.items():
        if isinstance(value, dict) and key not in ("id2label", "label2id", "size", "crop_size"):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key)


def changed(tree, path, value=None):
    """A copy with another value at one place."""
    made = copy.deepcopy(tree)
    inner = made
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = other(inner[path[-1]], path[-1]) if value is None else value
    return made


def other(value, key):
    if key in OTHERS:
        return OTHERS[key]
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return {"quick_gelu": "relu", "bicubic": "bilinear", "shortest": "squash"}.get(value, value + "_other")
    if isinstance(value, int | float):
        return 1e-2 if key == "layer_norm_eps" else 2 if key == "resample" else value * 2 if value else 1
    if isinstance(value, list):
        return [0.5] * 3
    if isinstance(value, dict):
        return {name: 48 if isinstance(side, int) else side for name, side in value.items()} | (
            {"0": "cat"} if key == "id2label" else {}
        )
    return ["Other"]


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    return vectors(folder(tmp_path_factory.mktemp("usual") / "clip", config=CONFIG))


@pytest.fixture(scope="module")
def usual_open_clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("usual") / "clip"
    return vectors(folder(path, weights="open_clip_model.safetensors", open_clip_config=OPEN_CLIP))


def refused_or_obeyed(path, key, before) -> None:
    try:
        after = vectors(path)
    except ModelFileError as error:
        assert key[-1] in str(error)
        return
    assert np.abs(after - before).max() > 1e-4, f"{key} was dropped"


def is_harmless(key, harmless) -> bool:
    return key[-1] in harmless or ".".join(key) in harmless


@pytest.mark.parametrize("key", [k for k in leaves(CONFIG) if not is_harmless(k, HARMLESS)], ids=".".join)
def test_settings_of_a_transformers_folder(key, usual, tmp_path) -> None:
    refused_or_obeyed(folder(tmp_path / "clip", config=changed(CONFIG, key)), key, usual)


def test_what_changes_nothing_in_a_transformers_folder(usual, tmp_path) -> None:
    config = CONFIG
    for key in leaves(CONFIG):
        if is_harmless(key, HARMLESS) and key != ("model_type",):
            config = changed(config, key)
    path = folder(tmp_path / "clip", config=config)
    assert not registry.describe(path).notes
    np.testing.assert_array_equal(vectors(path), usual)


@pytest.mark.parametrize("file", ["preprocessor_config", "processor_config"])
@pytest.mark.parametrize("key", [k for k in leaves(PROCESSOR) if k != ("do_convert_rgb",)], ids=".".join)
def test_settings_of_an_image_processor(key, file, usual, tmp_path) -> None:
    def wrapped(settings):
        return settings if file == "preprocessor_config" else {"image_processor": settings}

    same = folder(tmp_path / "same", config=CONFIG, **{file: wrapped(PROCESSOR)})
    np.testing.assert_array_equal(vectors(same), usual)
    path = folder(tmp_path / "clip", config=CONFIG, **{file: wrapped(changed(PROCESSOR, key))})
    refused_or_obeyed(path, key, usual)


def test_the_newer_processor_file_counts(tmp_path) -> None:
    newer = {"image_processor": changed(PROCESSOR, ("image_mean",))}
    both = folder(tmp_path / "both", config=CONFIG, processor_config=newer, preprocessor_config=PROCESSOR)
    spec = registry.load(both, backend="torch", device="cpu").preprocess_spec
    assert spec.mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"do_normalize": False}, {"mean": None, "std": None}),
        ({"do_rescale": False}, {"scale": 1.0}),
        ({"rescale_factor": 1 / 127.5}, {"scale": 1 / 127.5}),
        ({"resample": 2}, {"interpolation": "bilinear"}),
        ({"do_center_crop": False, "size": {"height": 32, "width": 32}}, {"resize": "stretch"}),
        ({"size": 32, "crop_size": 32}, {"resize": "short-side-crop", "size": (32, 32)}),
        ({"size": {"height": 32, "width": 32}}, {"resize": "stretch"}),
        ({"image_mean": 0.5, "image_std": 0.25}, {"mean": (0.5,) * 3, "std": (0.25,) * 3}),
    ],
)
def test_what_an_image_processor_makes(settings, expected, tmp_path) -> None:
    path = folder(tmp_path / "clip", config=CONFIG, preprocessor_config={**PROCESSOR, **settings})
    spec = registry.load(path, backend="torch", device="cpu").preprocess_spec
    assert {name: getattr(spec, name) for name in expected} == expected


@pytest.mark.parametrize(
    "settings",
    [
        {"do_center_crop": False},
        {"size": {"shortest_edge": 40}},
        {"size": {"shortest_edge": 48}, "crop_size": {"height": 48, "width": 48}},
        {"size": {"shortest_edge": 32, "longest_edge": 64}},
        {"size": {"longest_edge": 32}},
        {"crop_size": {"height": 24, "width": 32}},
        {"do_resize": False},
        {"do_pad": True},
        {"image_processor_type": "ViTImageProcessor"},
        {"image_std": [0.0, 1.0, 1.0]},
        {"image_mean": [0.5, 0.5]},
        {"rescale_factor": "half"},
    ],
)
def test_image_processors_that_are_refused(settings, tmp_path) -> None:
    path = folder(tmp_path / "clip", config=CONFIG, preprocessor_config={**PROCESSOR, **settings})
    with pytest.raises(ModelFileError):
        registry.load(path, backend="torch", device="cpu")


@pytest.mark.parametrize("key", [k for k in leaves(OPEN_CLIP) if k[-1] not in OPEN_CLIP_HARMLESS], ids=".".join)
def test_settings_of_open_clip(key, usual_open_clip, tmp_path) -> None:
    path = folder(tmp_path / "clip", weights="open_clip_model.safetensors", open_clip_config=changed(OPEN_CLIP, key))
    refused_or_obeyed(path, key, usual_open_clip)


def test_open_clips_defaults_are_the_same_towers(usual, usual_open_clip) -> None:
    np.testing.assert_array_equal(usual, usual_open_clip)


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("config", CONFIG, ()),
        ("config", CONFIG, ("text_config",)),
        ("config", CONFIG, ("vision_config",)),
        ("open_clip_config", OPEN_CLIP, ("model_cfg",)),
        ("open_clip_config", OPEN_CLIP, ("model_cfg", "vision_cfg")),
        ("open_clip_config", OPEN_CLIP, ("model_cfg", "text_cfg")),
    ],
)
def test_unknown_settings_are_noted(name, content, place, tmp_path) -> None:
    made = copy.deepcopy(content)
    inner = made
    for key in place:
        inner = inner[key]
    inner["of_tomorrow"] = 3
    weights = "model.safetensors" if name == "config" else "open_clip_model.safetensors"
    notes = registry.describe(folder(tmp_path / "clip", weights=weights, **{name: made})).notes
    assert any(".".join((*place, "of_tomorrow")) in note for note in notes)


@pytest.mark.parametrize(
    ("name", "shape", "meaning"),
    [
        ("text_projection.bias", (12,), "no place"),
        ("vision_model.encoder.layers.0.self_attn.q_proj.lora_A.weight", (4, 32), "LoRA"),
        ("vision_model.adapter.down.weight", (4, 32), "adapters"),
        ("vision_model.embeddings.register_tokens", (4, 32), "register_tokens"),
        ("text_model.embeddings.position_embedding_res.weight", (60, 32), "position_embedding_res"),
        ("logit_bias", (), "logit_bias"),
    ],
)
def test_tensors_without_a_place_are_refused(name, shape, meaning, tmp_path) -> None:
    path = folder(tmp_path / "clip", tensors={**TENSORS, name: torch.ones(shape)}, config=CONFIG)
    with pytest.raises(UnsupportedModelError, match=meaning):
        registry.load(path, backend="torch", device="cpu")


def test_constants_and_training_are_no_tensors_of_the_network(tmp_path) -> None:
    more = {"vision_model.embeddings.position_ids": torch.arange(17)[None], "optimizer.state.0": torch.ones(3)}
    path = folder(tmp_path / "clip", tensors={**TENSORS, **more}, config=CONFIG)
    registry.load(path, backend="torch", device="cpu")


def openai_layout(goldens) -> dict[str, torch.Tensor]:
    weights = goldens.recipe.weights(goldens.shapes["open_clip-vit"])
    return {name: torch.from_numpy(value) for name, value in weights.items()}


def test_a_guessed_activation_is_said_once_and_noted(embedding_goldens, tmp_path) -> None:
    state = openai_layout(embedding_goldens)
    path = tmp_path / "bare.pt"
    torch.save(state, path)
    assert any('activation="gelu"' in note for note in registry.describe(path).notes)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        registry.load(path, backend="torch", device="cpu")
    assert len([one for one in told if one.category is GuessWarning]) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", GuessWarning)
        registry.load(path, backend="torch", device="cpu", activation="gelu")


@pytest.mark.parametrize("kind", ["training", "openai"])
def test_files_that_tell_their_activation_are_not_guessed(kind, embedding_goldens, tmp_path) -> None:
    state = openai_layout(embedding_goldens)
    path = tmp_path / "told.pt"
    if kind == "openai":
        state |= {name: torch.tensor(7) for name in ("input_resolution", "context_length", "vocab_size")}
        torch.save(state, path)
    else:
        torch.save({"epoch": 3, "name": "x", "state_dict": state, "optimizer": {"state": {}}}, path)
    assert not registry.describe(path).notes
    with warnings.catch_warnings():
        warnings.simplefilter("error", GuessWarning)
        registry.load(path, backend="torch", device="cpu")
