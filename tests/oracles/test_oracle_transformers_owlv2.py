"""OWLv2 folders of transformers' `save_pretrained`, whole and in shards, against its own model and processor.

Tolerances. Outputs of given inputs differ by the order of sums. From pictures on, transformers' processor with
torchvision blurs and resizes in float32 what ours does in another order: a twentieth of a grey value, and what random
networks make of it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lensmount import registry
from lensmount.errors import LensmountError, UnsupportedModelError
from lensmount_vision.towers.vocabulary import packaged_vocabulary
from oracle_kit import match, picture, png, randomise, written_by

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("transformers.models.owlv2.image_processing_pil_owlv2", reason="transformers 5")
pytest.importorskip("torchvision")

WRITER = written_by("transformers")
TEXTS = [
    "a photo of a dog",
    "a red ball",
    "grass",
    "naïve café",
]
OUTPUTS, BOXES, SCORES, GREY = 2e-5, 0.05, 1e-3, 0.05


def settings(seed: int) -> dict:
    rng = np.random.default_rng(seed)

    def tower() -> dict:
        heads, per_head = int(rng.integers(1, 4)), int(rng.choice([16, 24, 32]))
        return {
            "hidden_size": heads * per_head,
            "num_attention_heads": heads,
            "num_hidden_layers": int(rng.integers(1, 4)),
            "intermediate_size": int(rng.integers(40, 160)),
            "hidden_act": activation,
            "layer_norm_eps": epsilon,
        }

    activation, epsilon = str(rng.choice(["quick_gelu", "gelu"])), float(rng.choice([1e-5, 1e-3]))
    patch = int(rng.choice([14, 16, 32]))
    text = {**tower(), "vocab_size": 49408, "max_position_embeddings": 16}
    vision = {**tower(), "patch_size": patch, "image_size": patch * int(rng.integers(3, 7))}
    return {"text_config": text, "vision_config": vision, "projection_dim": text["hidden_size"]}


def write(folder: Path, seed: int, *, sharded: bool = False, images: dict | None = None, network: dict | None = None):
    made = settings(seed)
    for part in ("text_config", "vision_config"):
        made[part] |= network or {}
    model = randomise(transformers.Owlv2ForObjectDetection(transformers.Owlv2Config(**made)), seed, 0.1)
    side = made["vision_config"]["image_size"]
    prepared = transformers.Owlv2ImageProcessor(**{"size": {"height": side, "width": side}, **(images or {})})
    vocabulary = packaged_vocabulary()
    specials = {"<|startoftext|>": vocabulary.start, "<|endoftext|>": vocabulary.end}
    texts = transformers.CLIPTokenizer(
        vocab={**vocabulary.ids, **specials}, merges=list(vocabulary.merges), model_max_length=16, pad_token="!"
    )
    processor = transformers.Owlv2Processor(image_processor=prepared, tokenizer=texts)
    model.save_pretrained(folder, **({"max_shard_size": "1MB"} if sharded else {}))
    processor.save_pretrained(folder)
    assert (folder / "model.safetensors.index.json").is_file() is sharded
    return model, processor


def compare(row, folder: Path, model, processor, paths) -> None:
    from PIL import Image

    found = registry.load(folder, backend="torch", device="cpu")
    assert found.card.architecture == "owlv2"
    prepared = processor.image_processor
    grey = np.array(prepared.image_std)[:, None, None] if prepared.do_normalize else np.ones(1)
    grey = grey / (prepared.rescale_factor if prepared.do_rescale else 1)
    for path in paths:
        image = Image.open(path)
        inputs = processor(text=[TEXTS], images=image, return_tensors="pt", padding="max_length", max_length=16)
        with torch.inference_mode():
            theirs = model(**inputs)
        batch, _ = found.preprocess(path)
        pixels = inputs["pixel_values"].numpy()
        row.close("prepared pictures, grey values", batch * grey, pixels * grey, GREY if prepared.do_rescale else 1.5)
        raw = found.forward(pixels)
        row.close("objectness", raw["objectness_logits"], theirs.objectness_logits, OUTPUTS, relative=True)
        row.close("boxes, share of the picture", raw["boxes"], theirs.pred_boxes, 1e-5)
        if not prepared.do_rescale:
            continue  # unscaled pictures stay bytes there while they are blurred and resized, which rounds them
        results = processor.post_process_grounded_object_detection(
            theirs, threshold=0.0, target_sizes=[image.size[::-1]], text_labels=[TEXTS]
        )[0]
        width, height = image.size
        boxes = np.clip(results["boxes"].numpy(), 0, [width, height, width, height])
        shown = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        (own,) = found(path, classes=TEXTS, confidence=0.0)
        names = [own.class_names[i] for i in own.class_id]
        labels = [label for label, keep in zip(results["text_labels"], shown, strict=True) if keep]
        expected = boxes[shown], results["scores"].numpy()[shown]
        left, right = match((own.xyxy, own.confidence), expected, (names, labels))
        row.close("boxes of words, pixels", own.xyxy[left], expected[0][right], BOXES)
        row.close("scores of words", own.confidence[left], expected[1][right], SCORES)


def pictures(tmp_path, seed: int):
    rng = np.random.default_rng((seed, 2))
    sizes = [(int(h), int(w)) for h, w in rng.integers(30, 300, (3, 2))]
    return [png(tmp_path / f"{i}.png", picture(seed + i, *size)) for i, size in enumerate(sizes)]


@pytest.mark.parametrize("sharded", [False, True], ids=["whole", "sharded"])
def test_folders(seed, sharded, outcome, tmp_path) -> None:
    model, processor = write(tmp_path / "folder", seed, sharded=sharded)
    form = "`model-0000N-of-….safetensors`" if sharded else "`model.safetensors`"
    row = outcome(
        WRITER,
        f"OWLv2 folder: {form}, `config.json`, `processor_config.json`, `tokenizer.json`",
        "tensor names; heads, activation, eps: `config.json`",
    )
    compare(row, tmp_path / "folder", model, processor, pictures(tmp_path, seed))


IMAGES = {
    "do_pad": {"do_pad": False},
    "do_normalize": {"do_normalize": False},
    "do_rescale": {"do_rescale": False},
    "mean and std": {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.3, 0.4, 0.5]},
    "rescale_factor": {"rescale_factor": 1 / 127.5},
}


@pytest.mark.parametrize("name", [*IMAGES, "hidden_act"])
def test_settings_are_obeyed_or_refused(name, outcome, tmp_path) -> None:
    network = {"hidden_act": "relu"} if name == "hidden_act" else None
    model, processor = write(tmp_path / "folder", 5, images=IMAGES.get(name), network=network)
    try:
        registry.load(tmp_path / "folder", backend="torch", device="cpu").close()
    except UnsupportedModelError as error:
        outcome.refuses(WRITER, f"OWLv2 folder with another {name}", error)
        return
    row = outcome(WRITER, f"OWLv2 folder with another {name}", "`config.json`, `processor_config.json`")
    compare(row, tmp_path / "folder", model, processor, pictures(tmp_path, 5))


def test_owl_vit_is_refused(outcome, tmp_path) -> None:
    made = settings(0)
    transformers.OwlViTForObjectDetection(transformers.OwlViTConfig(**made)).save_pretrained(tmp_path / "folder")
    with pytest.raises(LensmountError) as caught:
        registry.load(tmp_path / "folder", backend="torch", device="cpu")
    outcome.refuses(WRITER, "`OwlViTForObjectDetection`", caught.value)
