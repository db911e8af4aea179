"""CLIP folders of transformers' `save_pretrained`, whole and in shards, against its own model and processor.

Tolerances. Vectors differ by the order of sums: 1e-5 of the largest component. transformers has two processors. The
one with Pillow gives the very pixels that ours does, up to the last digit of a float, where no picture is upright
(Pillow 13 then resizes down before across). The processor with torchvision has grey values that differ by one from
Pillow's here and there, and is given pictures of every shape.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lensmount import registry
from lensmount.errors import LensmountError, UnsupportedModelError
from lensmount_vision.towers.vocabulary import packaged_vocabulary
from oracle_kit import picture, png, randomise, written_by

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("transformers.models.clip.image_processing_pil_clip", reason="transformers 5")

WRITER = written_by("transformers")
TEXTS = [
    "a photo of a dog",
    "two dogs running on the beach!",
    "naïve café — 3 €, don't",
    "AT&amp;T  \n logo",
    "x" * 300,
    "",
]
VECTORS, PIXELS, GREY = 1e-5, 1e-5, 1.01


def tokenizer(context: int):
    """transformers' tokeniser with OpenAI's vocabulary."""
    vocabulary = packaged_vocabulary()
    specials = {"<|startoftext|>": vocabulary.start, "<|endoftext|>": vocabulary.end}
    return transformers.CLIPTokenizer(
        vocab={**vocabulary.ids, **specials}, merges=list(vocabulary.merges), model_max_length=context
    )


def settings(seed: int) -> dict:
    rng = np.random.default_rng(seed)

    def tower() -> dict:
        heads, per_head = int(rng.integers(1, 5)), int(rng.choice([8, 16, 24]))
        return {
            "hidden_size": heads * per_head,
            "num_attention_heads": heads,
            "num_hidden_layers": int(rng.integers(1, 5)),
            "intermediate_size": int(rng.integers(20, 200)),
        }

    activation = str(rng.choice(["quick_gelu", "gelu"]))
    patch = int(rng.choice([7, 8, 14, 16]))
    return {
        "text_config": {
            **tower(),
            "hidden_act": activation,
            "vocab_size": 49408,
            "max_position_embeddings": int(rng.choice([16, 32, 77])),
            "bos_token_id": 49406,
            "eos_token_id": 49407,
            "pad_token_id": 49407,
        },
        "vision_config": {
            **tower(),
            "hidden_act": activation,
            "patch_size": patch,
            "image_size": patch * int(rng.integers(2, 6)),
        },
        "projection_dim": int(rng.integers(8, 65)),
        "logit_scale_init_value": float(rng.uniform(1, 4.5)),
    }


def processing(seed: int, side: int) -> dict:
    """Settings of the image processor, as a fine-tune may have them."""
    rng = np.random.default_rng((seed, 1))
    return {
        "size": {"shortest_edge": side},
        "crop_size": {"height": side, "width": side},
        "image_mean": [round(float(v), 3) for v in rng.uniform(0.3, 0.6, 3)],
        "image_std": [round(float(v), 3) for v in rng.uniform(0.2, 0.6, 3)],
    }


def write(
    folder: Path,
    seed: int,
    *,
    sharded: bool = False,
    apart: bool = False,
    network: dict | None = None,
    images: dict | None = None,
):
    """A folder, its network and its processor.

    `apart` saves the parts of the processor, which is where older versions' settings lie; `network` changes the
    configuration, `images` the processor's.
    """
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    made = settings(seed)
    for key, value in (network or {}).items():
        part, _, name = key.rpartition(".")
        (made[part] if part else made)[name] = value
    model = randomise(transformers.CLIPModel(transformers.CLIPConfig(**made)), seed)
    side = made["vision_config"]["image_size"]
    prepared = CLIPImageProcessorPil(**{**processing(seed, side), **(images or {})})
    texts = tokenizer(made["text_config"]["max_position_embeddings"])
    processor = transformers.CLIPProcessor(image_processor=prepared, tokenizer=texts)
    model.save_pretrained(folder, **({"max_shard_size": "400KB"} if sharded else {}))
    if apart:
        prepared.save_pretrained(folder)
        texts.save_pretrained(folder)
    else:
        processor.save_pretrained(folder)
    assert (folder / "model.safetensors.index.json").is_file() is sharded
    assert (folder / "preprocessor_config.json").is_file() is apart
    return model, processor


def compare(row, folder: Path, model, processor, paths) -> None:
    from PIL import Image

    found = registry.load(folder, backend="torch", device="cpu")
    assert found.card.architecture == "clip"
    lying = [path for path in paths if not _is_upright(path)]
    with torch.inference_mode():
        batch = processor.image_processor([Image.open(p) for p in lying], return_tensors="pt")["pixel_values"]
        words = processor.tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
        images = model.get_image_features(pixel_values=batch)
        texts = model.get_text_features(**words)
        images, texts = (getattr(value, "pooler_output", value).numpy() for value in (images, texts))
    row.close("image vectors of given inputs", found.forward_images(batch.numpy()), images, VECTORS, relative=True)
    prepared = np.concatenate([found.preprocess(path)[0] for path in paths])
    row.close("prepared pictures", prepared[[path in lying for path in paths]], batch.numpy(), PIXELS)
    own = found.embed_images(lying, normalize=False).vectors
    row.close("image vectors of pictures", own, images, VECTORS, relative=True)
    other = transformers.CLIPImageProcessor.from_pretrained(folder)
    grey = np.array(other.image_std)[:, None, None] if other.do_normalize else np.ones(1)
    grey = grey / (other.rescale_factor if other.do_rescale else 1)
    theirs = other([Image.open(p) for p in paths], return_tensors="pt")["pixel_values"].numpy()
    row.close("prepared pictures, torchvision's processor, grey values", prepared * grey, theirs * grey, GREY)
    row.close("text vectors of texts", found.embed_text(TEXTS, normalize=False).vectors, texts, VECTORS, relative=True)
    scale = float(np.exp(model.logit_scale.detach().numpy()))
    row.close("scale of scores", found.logit_scale / scale, 1.0, 1e-6)


def pictures(tmp_path, seed: int, side: int):
    rng = np.random.default_rng((seed, 2))
    sizes = [(side, side), (2 * side, 2 * side), (side, 2 * side)]
    sizes += [(int(h), int(w)) for h, w in rng.integers(side // 2, side * 4, (5, 2))]
    return [png(tmp_path / f"{i}.png", picture(seed + i, *size)) for i, size in enumerate(sizes)]


def _is_upright(path: Path) -> bool:
    from PIL import Image

    width, height = Image.open(path).size
    return height > width


@pytest.mark.parametrize("form", ["whole", "sharded", "apart"])
def test_folders(seed, form, outcome, tmp_path) -> None:
    model, processor = write(tmp_path / "folder", seed, sharded=form == "sharded", apart=form == "apart")
    files = "`model-0000N-of-….safetensors`" if form == "sharded" else "`model.safetensors`"
    said = "`preprocessor_config.json`" if form == "apart" else "`processor_config.json`"
    row = outcome(
        WRITER,
        f"CLIP folder: {files}, `config.json`, {said}, `tokenizer.json`",
        f"tensor names; heads and activation: `config.json`; mean, std and sizes: {said}",
    )
    compare(row, tmp_path / "folder", model, processor, pictures(tmp_path, seed, model.config.vision_config.image_size))


NETWORKS = {
    "layer_norm_eps": {"vision_config.layer_norm_eps": 1e-2, "text_config.layer_norm_eps": 1e-2},
    "activations that differ": {"vision_config.hidden_act": "gelu", "text_config.hidden_act": "quick_gelu"},
    "hidden_act relu": {"vision_config.hidden_act": "relu", "text_config.hidden_act": "relu"},
    "hidden_act gelu_new": {"vision_config.hidden_act": "gelu_new", "text_config.hidden_act": "gelu_new"},
}
IMAGES = {
    "do_normalize": {"do_normalize": False},
    "do_rescale": {"do_rescale": False},
    "rescale_factor": {"rescale_factor": 1 / 127.5},
    "do_center_crop": {"do_center_crop": False, "size": {"height": 0, "width": 0}},
    "do_resize": {"do_resize": False},
    "size larger than the crop": {"size": {"shortest_edge": 1.5}},
    "size of both sides": {"size": {"height": 0, "width": 0}},
    "resample bilinear": {"resample": 2},
    "resample nearest": {"resample": 0},
    "resample lanczos": {"resample": 1},
}


@pytest.mark.parametrize("name", [*NETWORKS, *IMAGES])
def test_settings_are_obeyed_or_refused(name, outcome, tmp_path) -> None:
    side = settings(5)["vision_config"]["image_size"]
    images = dict(IMAGES.get(name, {}))
    if "size" in images:  # numbers stand for shares of the network's input
        images["size"] = {key: int(side * (share or 1)) for key, share in images["size"].items()}
    model, processor = write(tmp_path / "folder", 5, network=NETWORKS.get(name), images=images)
    paths = pictures(tmp_path, 5, side)[: 1 if name == "do_resize" else 4]
    try:
        registry.load(tmp_path / "folder", backend="torch", device="cpu").close()
    except UnsupportedModelError as error:
        outcome.refuses(WRITER, f"CLIP folder with {name}", error)
        return
    row = outcome(WRITER, f"CLIP folder with {name}", "`config.json`, `processor_config.json`")
    compare(row, tmp_path / "folder", model, processor, paths)


@pytest.mark.parametrize("kind", ["CLIPVisionModelWithProjection", "CLIPTextModelWithProjection", "CLIPVisionModel"])
def test_single_towers_are_refused(kind, outcome, tmp_path) -> None:
    made = settings(0)
    part = made["text_config" if "Text" in kind else "vision_config"] | {"projection_dim": made["projection_dim"]}
    network = getattr(transformers, kind)
    network(network.config_class(**part)).save_pretrained(tmp_path / "folder")
    with pytest.raises(LensmountError) as caught:
        registry.load(tmp_path / "folder", backend="torch", device="cpu")
    outcome.refuses(WRITER, f"`{kind}`", caught.value)


@pytest.mark.parametrize("kind", ["Siglip", "Siglip2", "ChineseCLIP", "Align"])
def test_other_pairs_of_towers_are_refused(kind, outcome, tmp_path) -> None:
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 40}
    config = (
        getattr(transformers, f"{kind}Config")(
            text_config={**small, "vocab_size": 100}, vision_config={**small, "image_size": 32, "patch_size": 16}
        )
        if kind != "Align"
        else transformers.AlignConfig(text_config={**small, "vocab_size": 100})
    )
    getattr(transformers, f"{kind}Model")(config).save_pretrained(tmp_path / "folder")
    with pytest.raises(LensmountError) as caught:
        registry.load(tmp_path / "folder", backend="torch", device="cpu")
    outcome.refuses(WRITER, f"`{kind}Model`", caught.value)
