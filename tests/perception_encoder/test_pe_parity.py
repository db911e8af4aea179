"""PE-Core's vectors against independent references: timm with open_clip on seeded tiny networks, and Meta's golden.

Tolerance: 1e-5 of the largest component on torch and ONNX, in float32 on a CPU; see the same of CLIP.
"""

from __future__ import annotations

import lzma
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tokenizers")
pytest.importorskip("ftfy")

from lensmount import registry  # noqa: E402 - after the skips
from wrapped import WAYS, wrapped  # noqa: E402

TEXTS = ["a photo of a dog", "two dogs running on the beach!", "naïve café — 3 €, don't", "a diagram"]


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def weights(goldens, case: str, folder: Path) -> Path:
    path = folder / "weights.pt"
    torch.save({n: torch.from_numpy(v) for n, v in goldens.recipe.weights(goldens.shapes[case]).items()}, path)
    return path


@pytest.mark.parametrize("case", ["pe-timm", "pe-timm-no-class"])
def test_open_clips_layout_matches_the_reference(case: str, embedding_goldens, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    path = weights(embedding_goldens, case, tmp_path)
    pair = registry.export(path, to="onnx", output=tmp_path / "pair")
    for source, backend in ((path, "torch"), (path, "onnx"), (pair, "onnx")):
        model = registry.load(source, backend=backend, device="cpu")
        assert model.card.architecture == "perception_encoder"
        images = embedding_goldens.recipe.images(2, model.preprocess_spec.size[0])
        tokens = embedding_goldens.recipe.tokens(600, 20)
        assert distance(model.forward_images(images), embedding_goldens.image(case)) < 1e-5
        assert distance(model.forward_text(tokens), embedding_goldens.text(case)) < 1e-5
        assert distance(model.forward_text(tokens[:4, :7]), embedding_goldens.text(case)[:4]) < 1e-5


@pytest.mark.parametrize("way", WAYS)
def test_wrappers_of_training_change_nothing(way, embedding_goldens, tmp_path: Path) -> None:
    tensors = torch.load(weights(embedding_goldens, "pe-timm", tmp_path), weights_only=True)
    torch.save({"state_dict": wrapped(tensors, way)}, tmp_path / "wrapped.pt")
    model = registry.load(tmp_path / "wrapped.pt", backend="torch", device="cpu")
    assert model.card.architecture == "perception_encoder"
    images = embedding_goldens.recipe.images(2, model.preprocess_spec.size[0])
    assert distance(model.forward_images(images), embedding_goldens.image("pe-timm")) < 1e-5


def test_golden_from_bytes_to_vectors(reference_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    goldens = reference_data / "goldens"
    expected = np.load(goldens / "PE-Core-tiny.npz")
    path = tmp_path / "model.pt"
    path.write_bytes(lzma.decompress((goldens / "PE-Core-tiny.pt.xz").read_bytes()))
    pair = registry.export(path, to="onnx", output=tmp_path / "pair")
    for source, backend in ((path, "torch"), (path, "onnx"), (pair, "onnx")):
        model = registry.load(source, backend=backend, device="cpu")
        batch, _ = model.preprocess(goldens / "img" / "dogs.jpg")
        assert np.abs(batch - expected["x"]).max() <= 1e-6  # the same resampler, bit for bit
        tokens = model.tokenize(TEXTS)
        assert np.array_equal(tokens, expected["tokens"][:, : tokens.shape[1]])
        pictures = model.embed_images(goldens / "img" / "dogs.jpg").vectors
        assert distance(pictures, expected["image_features"]) < 1e-5
        assert distance(model.embed_text(TEXTS).vectors, expected["text_features"]) < 1e-5
        assert model.logit_scale == pytest.approx(float(expected["scale"]), rel=1e-6)


def test_golden_patch_features(reference_data: Path, tmp_path: Path) -> None:
    from lensmount.contracts.model import NetworkContext
    from lensmount_perception_encoder.model import network

    goldens = reference_data / "goldens"
    path = tmp_path / "model.pt"
    path.write_bytes(lzma.decompress((goldens / "PE-Core-tiny.pt.xz").read_bytes()))
    card = registry.describe(path)
    expected = np.load(goldens / "PE-Core-tiny.npz")
    towers = network(NetworkContext(card=card, package=card.packages[0], files={"model.pt": path}))
    with torch.inference_mode():
        found = towers["visual"].module.features(torch.from_numpy(expected["x"])).numpy()
    assert distance(found, expected["patch_features"]) < 1e-5


def test_package_folder_of_inference_models(embedding_goldens, tmp_path: Path) -> None:
    weights(embedding_goldens, "pe-timm", tmp_path).rename(tmp_path / "model.pt")
    (tmp_path / "config.json").write_text('{"vision_encoder_config": "PE-Core-T16-384"}')
    (tmp_path / "model_config.json").write_text(
        '{"model_architecture": "perception-encoder", "task_type": "embedding", "backend_type": "torch"}'
    )
    model = registry.load(tmp_path, backend="torch", device="cpu")
    images = embedding_goldens.recipe.images(2, 64)
    assert distance(model.forward_images(images), embedding_goldens.image("pe-timm")) < 1e-5


def test_heads_are_an_option(embedding_goldens, tmp_path: Path) -> None:
    path = weights(embedding_goldens, "pe-timm", tmp_path)
    images = embedding_goldens.recipe.images(2, 64)
    for options, same in (({"heads": 2}, True), ({"heads": 4}, False), ({"pool_heads": 4}, False)):
        model = registry.load(path, backend="torch", device="cpu", **options)
        assert (distance(model.forward_images(images), embedding_goldens.image("pe-timm")) < 1e-5) is same


def test_tokeniser_equals_open_clips_on_random_strings(embedding_goldens) -> None:
    from lensmount_vision.towers.tokens import ClipTokenizer
    from lensmount_vision.towers.vocabulary import OPEN_CLIP_SPECIALS, packaged_vocabulary

    rows = embedding_goldens.strings
    tokenizer = ClipTokenizer(packaged_vocabulary(), 32, OPEN_CLIP_SPECIALS)
    found = tokenizer.encode([text for text, _, _ in rows])
    assert [i for i, (row, ids) in enumerate(zip(rows, found, strict=True)) if row[2] != ids] == []


def test_released_models_are_listed() -> None:
    cards = {card.id: card for card in registry.models(architecture="perception_encoder")}
    assert sorted(name.removeprefix("perception-encoder/PE-Core-") for name in cards) == [
        "B16-224", "G14-448", "L14-336", "S16-384", "T16-384",
    ]  # fmt: skip
    for card in cards.values():
        assert card.licence == "Apache-2.0"
        size = card.packages[0].preprocess.size
        assert size == (card.setting("resolution"),) * 2 and card.id.endswith(str(size[0]))
