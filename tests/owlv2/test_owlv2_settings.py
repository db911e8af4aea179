"""Every setting of an OWLv2 folder is obeyed, refused by name, or noted; every tensor is used or refused."""

from __future__ import annotations

import copy
import json
import shutil

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lensmount import registry  # noqa: E402 - after the skip
from lensmount.errors import ModelFileError, UnsupportedModelError  # noqa: E402

PICTURE = np.random.default_rng(0).integers(0, 255, (60, 90, 3), np.uint8)


def outputs(folder) -> np.ndarray:
    model = registry.load(folder, backend="torch", device="cpu")
    seen = model._images.all([PICTURE], None, None)[0].proposals
    tokens = np.array([[1, 2, 3]])
    (text,) = model._text.run({model._text.inputs[0].name: tokens}).values()
    return np.concatenate([np.asarray(seen.boxes).ravel(), np.asarray(seen.embeddings).ravel(), text.ravel()])


@pytest.fixture(scope="module")
def usual(tiny):
    return outputs(tiny)


def folder_with(tiny, folder, *, config=None, **files):
    shutil.copytree(tiny, folder)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def other(value, key):
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return "relu" if value == "quick_gelu" else value + "_other"
    if isinstance(value, list):
        return [0.5] * 3
    if isinstance(value, dict):
        return {name: side * 2 for name, side in value.items()}
    return 1e-2 if key == "layer_norm_eps" else 1 if key == "num_attention_heads" else value * 2


def refused_or_obeyed(folder, key, usual) -> None:
    try:
        after = outputs(folder)
    except ModelFileError as error:
        assert key in str(error) or ("configuration" in str(error) and key == "num_attention_heads")
        return
    assert np.abs(after - usual).max() > 1e-4, f"{key} was dropped"


KEYS = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act", "layer_norm_eps")


@pytest.mark.parametrize(
    ("part", "key"),
    [
        *(("text_config", key) for key in (*KEYS, "max_position_embeddings", "vocab_size")),
        *(("vision_config", key) for key in (*KEYS, "image_size", "patch_size")),
        (None, "projection_dim"),
    ],
)
def test_each_setting_is_obeyed_or_refused(part, key, tiny, usual, tmp_path) -> None:
    config = json.loads((tiny / "config.json").read_text())
    inner = config if part is None else config[part]
    inner[key] = other(inner[key], key)
    refused_or_obeyed(folder_with(tiny, tmp_path / "owl", config=config), key, usual)


def processor(side: int) -> dict:
    return {
        "do_normalize": True, "do_pad": True, "do_rescale": True, "do_resize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
        "image_processor_type": "Owlv2ImageProcessor", "resample": 2, "rescale_factor": 1 / 255,
        "size": {"height": side, "width": side},
    }  # fmt: skip


@pytest.mark.parametrize("form", ["preprocessor_config", "processor_config"])
@pytest.mark.parametrize("key", processor(1))
def test_each_setting_of_an_image_processor(key, form, tiny, usual, tmp_path) -> None:
    config = json.loads((tiny / "config.json").read_text())
    settings = processor(config["vision_config"]["image_size"])
    settings[key] = other(settings[key], key)
    content = settings if form == "preprocessor_config" else {"image_processor": settings}
    told = "another size" if key == "size" else key
    refused_or_obeyed(folder_with(tiny, tmp_path / "owl", **{form: content}), told, usual)


def test_the_usual_processor_changes_nothing_and_what_is_unknown_is_noted(tiny, usual, tmp_path) -> None:
    config = json.loads((tiny / "config.json").read_text())
    settings = processor(config["vision_config"]["image_size"])
    more = copy.deepcopy(config)
    more["vision_config"]["of_tomorrow"] = 1
    folder = folder_with(tiny, tmp_path / "owl", config=more, processor_config={"image_processor": settings})
    np.testing.assert_array_equal(outputs(folder), usual)
    assert any("vision_config.of_tomorrow" in note for note in registry.describe(folder).notes)


@pytest.mark.parametrize(
    "name", ["owlv2.vision_model.encoder.layers.0.self_attn.q_proj.lora_B.weight", "owlv2.text_projection.bias",
             "owlv2.vision_model.embeddings.extra.weight"],
)  # fmt: skip
def test_tensors_without_a_place_are_refused(name, tiny, tmp_path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    folder = folder_with(tiny, tmp_path / "owl")
    tensors = safetensors.load_file(folder / "model.safetensors")
    safetensors.save_file({**tensors, name: np.ones((4,), np.float32)}, folder / "model.safetensors")
    with pytest.raises(UnsupportedModelError) as caught:
        registry.load(folder, backend="torch", device="cpu")
    assert name in str(caught.value)


def test_words_are_cleaned_as_transformers_does(tiny) -> None:
    tokenizer = registry.load(tiny, backend="torch", device="cpu")._texts._tokenizer
    assert tokenizer.cleaning == "transformers"
