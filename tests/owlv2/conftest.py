"""A small OWLv2 with random weights in the layout of Hugging Face, and pictures."""

from __future__ import annotations

import json
import lzma
import shutil

import numpy as np
import pytest

from lensmount_reading import Storage, TensorRef, to_safetensors
from lensmount_vision.images.decoding import import_cv2

SIZES = {
    "patch": 16, "side": 6, "width": 48, "layers": 2, "hidden": 96, "text_width": 32, "text_layers": 2,
    "text_hidden": 64, "context": 16, "vocabulary": 49408,
}  # fmt: skip


def random_state(seed, sizes):
    """Tensors of an OWLv2 under transformers' names, spread widely enough that proposals differ."""
    random = np.random.default_rng(seed)
    state = {}

    def put(name, *shape, spread=None, center=0.0):
        scale = spread if spread is not None else 1.5 / shape[-1] ** 0.5
        state[name] = (center + scale * random.standard_normal(shape)).astype(np.float32)

    def linear(name, out, into):
        put(f"{name}.weight", out, into)
        put(f"{name}.bias", out, spread=0.1)

    def norm(name, width):
        put(f"{name}.weight", width, spread=0.1, center=1.0)
        put(f"{name}.bias", width, spread=0.1)

    def blocks(prefix, layers, width, hidden):
        for number in range(layers):
            at = f"{prefix}.encoder.layers.{number}"
            for kind in ("q_proj", "k_proj", "v_proj", "out_proj"):
                linear(f"{at}.self_attn.{kind}", width, width)
            norm(f"{at}.layer_norm1", width)
            norm(f"{at}.layer_norm2", width)
            linear(f"{at}.mlp.fc1", hidden, width)
            linear(f"{at}.mlp.fc2", width, hidden)

    w, t = sizes["width"], sizes["text_width"]
    vision, text = "owlv2.vision_model", "owlv2.text_model"
    put(f"{vision}.embeddings.class_embedding", w, spread=0.5)
    put(f"{vision}.embeddings.patch_embedding.weight", w, 3, sizes["patch"], sizes["patch"], spread=0.04)
    put(f"{vision}.embeddings.position_embedding.weight", sizes["side"] ** 2 + 1, w, spread=0.3)
    norm(f"{vision}.pre_layernorm", w)
    norm(f"{vision}.post_layernorm", w)
    blocks(vision, sizes["layers"], w, sizes["hidden"])
    put(f"{text}.embeddings.token_embedding.weight", sizes["vocabulary"], t, spread=0.5)
    put(f"{text}.embeddings.position_embedding.weight", sizes["context"], t, spread=0.3)
    norm(f"{text}.final_layer_norm", t)
    blocks(text, sizes["text_layers"], t, sizes["text_hidden"])
    put("owlv2.text_projection.weight", t, t)
    put("owlv2.visual_projection.weight", t, w)
    state["owlv2.logit_scale"] = np.float32([2.66]).reshape(())
    norm("layer_norm", w)
    linear("class_head.dense0", t, w)
    linear("class_head.logit_shift", 1, w)
    linear("class_head.logit_scale", 1, w)
    for head, out in (("box_head", 4), ("objectness_head", 1)):
        linear(f"{head}.dense0", w, w)
        linear(f"{head}.dense1", w, w)
        linear(f"{head}.dense2", out, w)
    state["box_head.dense2.weight"] *= 0.2
    state["box_head.dense2.bias"][2:] += 1.5  # larger than a patch, so that they overlap
    return state


def config_of(sizes, heads=4, text_heads=2):
    return {
        "model_type": "owlv2",
        "projection_dim": sizes["text_width"],
        "text_config": {
            "hidden_size": sizes["text_width"],
            "intermediate_size": sizes["text_hidden"],
            "num_hidden_layers": sizes["text_layers"],
            "num_attention_heads": text_heads,
            "max_position_embeddings": sizes["context"],
            "vocab_size": sizes["vocabulary"],
            "hidden_act": "quick_gelu",
            "layer_norm_eps": 1e-5,
        },
        "vision_config": {
            "hidden_size": sizes["width"],
            "intermediate_size": sizes["hidden"],
            "num_hidden_layers": sizes["layers"],
            "num_attention_heads": heads,
            "image_size": sizes["side"] * sizes["patch"],
            "patch_size": sizes["patch"],
            "hidden_act": "quick_gelu",
            "layer_norm_eps": 1e-5,
        },
    }


def write_folder(folder, seed=0, sizes=SIZES, **changed):
    folder.mkdir(parents=True)
    state = random_state(seed, sizes)
    refs = {}
    for name, array in state.items():
        storage = Storage(name, "float32", array.size, array.tobytes())
        stride = tuple(step // 4 for step in array.strides)
        refs[name] = TensorRef(storage, "float32", 0, array.shape, stride)
    to_safetensors(refs, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**config_of(sizes), **changed}))
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Folder of a small network."""
    return write_folder(tmp_path_factory.mktemp("owlv2") / "tiny-owl")


@pytest.fixture(scope="session")
def other(tmp_path_factory):
    """Folder of another network of the same sizes."""
    return write_folder(tmp_path_factory.mktemp("owlv2") / "other-owl", seed=1)


@pytest.fixture(autouse=True)
def owlv2_environment(monkeypatch, tmp_path):
    for name in (
        "OWLV2_IMAGE_CACHE_SIZE", "OWLV2_CPU_IMAGE_CACHE_SIZE", "OWLV2_MODEL_CACHE_SIZE", "OWLV2_COMPILE_MODEL",
        "MAX_DETECTIONS", "PRELOAD_HF_IDS",
    ):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LENSMOUNT_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="session")
def held(tiny):
    """Keeps the small network in memory, so that loading it again costs nothing."""
    from lensmount import registry

    with registry.load(tiny, backend="torch", device="cpu") as loaded:
        yield loaded


@pytest.fixture
def model(tiny, held):
    from lensmount import registry

    with registry.load(tiny, backend="torch", device="cpu") as loaded:
        yield loaded


def picture(seed, height=90, width=140):
    """Coloured rectangles on noise, BGR."""
    random = np.random.default_rng(seed)
    image = random.integers(60, 120, (height, width, 3)).astype(np.uint8)
    for _ in range(4):
        x, y = int(random.integers(0, width - 40)), int(random.integers(0, height - 40))
        image[y : y + 30, x : x + 35] = random.integers(0, 255, 3)
    return image


@pytest.fixture
def pictures(tmp_path):
    """Five PNG files."""
    paths = []
    for seed in range(5):
        path = tmp_path / f"picture{seed}.png"
        path.write_bytes(import_cv2().imencode(".png", picture(seed))[1].tobytes())
        paths.append(path)
    return paths


@pytest.fixture(scope="session")
def golden(reference_data, tmp_path_factory):
    """Folder of the reference network, the reference arrays, and the folder of pictures."""
    folder = tmp_path_factory.mktemp("golden") / "owlv2-tiny-hf"
    folder.mkdir()
    for name in ("config.json", "preprocessor_config.json"):
        shutil.copyfile(reference_data / "goldens/owlv2-tiny-hf" / name, folder / name)
    packed = (reference_data / "goldens/owlv2-tiny-hf/model.safetensors.xz").read_bytes()
    (folder / "model.safetensors").write_bytes(lzma.decompress(packed))
    arrays = np.load(reference_data / "goldens/owlv2-tiny.npz")
    return folder, {name: arrays[name] for name in arrays}, reference_data / "goldens/img"
