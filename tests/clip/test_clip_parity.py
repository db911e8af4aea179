"""CLIP's vectors against independent references: transformers and open_clip on seeded tiny networks, OpenAI's goldens.

Tolerance: 1e-5 of the largest component on torch and ONNX, in float32 on a CPU. Measured were 1e-6 and less: the order
of additions differs between kernels, and quick_gelu runs on weights scaled by 1.702.
"""

from __future__ import annotations

import lzma
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tokenizers")
pytest.importorskip("ftfy")

from lensmount import registry  # noqa: E402 - after the skips
from lensmount.errors import UnknownOptionError  # noqa: E402
from wrapped import WAYS, wrapped  # noqa: E402

TEXTS = ["a photo of a dog", "two dogs running on the beach!", "naïve café — 3 €, don't", "a diagram"]
CASES = {
    "hf-quick_gelu": {"heads": 6, "text_heads": 4},
    "hf-gelu": {"activation": "gelu", "heads": 6, "text_heads": 4},
    "open_clip-vit": {"activation": "gelu"},
    "open_clip-resnet": {},
}


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def state_dict(goldens, case: str):
    return {name: torch.from_numpy(value) for name, value in goldens.recipe.weights(goldens.shapes[case]).items()}


@pytest.mark.parametrize("backend", ["torch", "onnx"])
@pytest.mark.parametrize("case", CASES)
def test_towers_match_the_reference(case: str, backend: str, embedding_goldens, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(state_dict(embedding_goldens, case), path)
    model = registry.load(path, backend=backend, device="cpu", **CASES[case])
    assert model.card.architecture == "clip"
    expected_image, expected_text = embedding_goldens.image(case), embedding_goldens.text(case)
    side = model.preprocess_spec.size[0]
    images, tokens = embedding_goldens.recipe.images(2, side), embedding_goldens.recipe.tokens(600, 20)
    assert distance(model.forward_images(images), expected_image) < 1e-5
    assert distance(model.forward_text(tokens), expected_text) < 1e-5
    # Trimmed to the longest of the first four: nothing behind the end token matters.
    assert distance(model.forward_text(tokens[:4, :7]), expected_text[:4]) < 1e-5


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = sys.modules["onnx"] = None
import numpy as np
from lensmount import registry
path, *pairs = sys.argv[1:]
options = {key: int(value) if value.isdigit() else value for key, value in (pair.split("=") for pair in pairs)}
given = np.load(path + "/given.npz")
model = registry.load(path + "/weights.pt", backend="onnx", device="cpu", **options)
registry.export(path + "/weights.pt", to="onnx", output=path + "/graphs", dynamic=True, settings=options)
again = registry.load(path + "/graphs", backend="onnx", device="cpu")
for name, each in (("first", model), ("second", again)):
    images, texts = each.forward_images(given["images"]), each.forward_text(given["tokens"])
    np.savez(f"{path}/{name}.npz", images=images, texts=texts)
"""


@pytest.mark.parametrize("case", CASES)
def test_official_weights_run_and_export_without_torch(case: str, embedding_goldens, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    torch.save(state_dict(embedding_goldens, case), tmp_path / "weights.pt")
    recipe, expected = embedding_goldens.recipe, (embedding_goldens.image(case), embedding_goldens.text(case))
    side = registry.load(tmp_path / "weights.pt", backend="torch", device="cpu", **CASES[case]).preprocess_spec.size[0]
    np.savez(tmp_path / "given.npz", images=recipe.images(2, side), tokens=recipe.tokens(600, 20))
    options = [f"{key}={value}" for key, value in CASES[case].items()]
    command = [sys.executable, "-c", WITHOUT_TORCH, str(tmp_path), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    for name in ("first", "second"):
        with np.load(tmp_path / f"{name}.npz") as found:
            assert distance(found["images"], expected[0]) < 1e-5
            assert distance(found["texts"], expected[1]) < 1e-5


@pytest.mark.parametrize("case", ["hf-quick_gelu", "open_clip-resnet"])
def test_exported_pairs_match_the_reference(case: str, embedding_goldens, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    torch.save(state_dict(embedding_goldens, case), tmp_path / "weights.pt")
    # heads of these two are what the widths say, or would be wrong in both; the torch test covers the others
    if case == "hf-quick_gelu":
        folder = hugging_face_folder(embedding_goldens, case, tmp_path / "hf")
    else:
        folder = tmp_path / "weights.pt"
    written = registry.export(folder, to="onnx", output=tmp_path / "pair")
    assert sorted(p.name for p in written.iterdir() if p.suffix in (".onnx", ".gz")) == [
        "merges.txt.gz", "textual.onnx", "visual.onnx",
    ]  # fmt: skip
    for source in (written, written / "visual.onnx"):
        model = registry.load(source, backend="onnx", device="cpu")
        side = model.preprocess_spec.size[0]
        assert distance(
            model.forward_images(embedding_goldens.recipe.images(2, side)), embedding_goldens.image(case)
        ) < 1e-5  # fmt: skip
        tokens = embedding_goldens.recipe.tokens(600, 20)
        assert distance(model.forward_text(tokens), embedding_goldens.text(case)) < 1e-5
        assert distance(model.forward_text(tokens[:4, :7]), embedding_goldens.text(case)[:4]) < 1e-5
        assert model.logit_scale == pytest.approx(np.exp(2.5))
        assert model.tokenizer.context_length == 20


def test_large_weights_lie_next_to_both_graphs(embedding_goldens, tmp_path: Path, monkeypatch) -> None:
    """Graphs beyond protobuf's limit: writing the second one leaves the weights of the first where they are."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from lensmount_networks import network

    monkeypatch.setattr(network, "EMBEDDED_BYTES", 0)
    torch.save(state_dict(embedding_goldens, "hf-quick_gelu"), tmp_path / "weights.pt")
    written = registry.export(tmp_path / "weights.pt", to="onnx", output=tmp_path / "pair")
    assert {"visual.onnx.data", "textual.onnx.data"} <= {p.name for p in written.iterdir()}
    with (
        registry.load(written, backend="onnx", device="cpu") as model,
        registry.load(tmp_path / "weights.pt", backend="torch", device="cpu") as reference,
    ):
        images = embedding_goldens.recipe.images(2, 48)
        assert distance(model.forward_images(images), reference.forward_images(images)) < 1e-5
        tokens = embedding_goldens.recipe.tokens(600, 20)
        assert distance(model.forward_text(tokens), reference.forward_text(tokens)) < 1e-5


def hugging_face_folder(goldens, case: str, folder: Path) -> Path:
    from safetensors.torch import save_file

    folder.mkdir()
    save_file(state_dict(goldens, case), folder / "model.safetensors")
    (folder / "config.json").write_text(
        '{"model_type": "clip", "text_config": {"hidden_act": "%s", "num_attention_heads": 4},'
        ' "vision_config": {"hidden_act": "%s", "num_attention_heads": 6}}' % ((case.removeprefix("hf-"),) * 2)
    )
    return folder


@pytest.mark.parametrize("case", ["hf-quick_gelu", "hf-gelu"])
def test_hugging_face_folder_says_heads_and_activation(case: str, embedding_goldens, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    model = registry.load(hugging_face_folder(embedding_goldens, case, tmp_path / "m"), backend="torch", device="cpu")
    found = model.forward_images(embedding_goldens.recipe.images(2, 48))
    assert distance(found, embedding_goldens.image(case)) < 1e-5


def test_hub_repository_without_a_manifest(hub, embedding_goldens, tmp_path: Path, request) -> None:
    folder = hugging_face_folder(embedding_goldens, "hf-gelu", tmp_path / "m")
    hub.put_repo("me/own-clip", {path.name: path.read_bytes() for path in folder.iterdir()})
    images = embedding_goldens.recipe.images(2, 48)
    with registry.load("hf://me/own-clip", backend="torch", device="cpu") as model:
        assert model.card.id == "own-clip"
        assert model.package.artifacts[0].uri == f"hf://me/own-clip@{'a' * 40}/model.safetensors"
        assert distance(model.forward_images(images), embedding_goldens.image("hf-gelu")) < 1e-5
    request.getfixturevalue("no_sockets")
    with registry.load("hf://me/own-clip", backend="torch", device="cpu", offline=True) as model:
        assert distance(model.forward_images(images), embedding_goldens.image("hf-gelu")) < 1e-5


@pytest.mark.parametrize("way", WAYS)
def test_open_clip_checkpoint_with_wrappers_is_gelu(way, embedding_goldens, tmp_path: Path) -> None:
    tensors = wrapped(state_dict(embedding_goldens, "open_clip-vit"), way)
    torch.save({"epoch": 3, "name": "run", "state_dict": tensors}, tmp_path / "epoch_3.pt")
    model = registry.load(tmp_path / "epoch_3.pt", backend="torch", device="cpu")
    found = model.forward_images(embedding_goldens.recipe.images(2, 48))
    assert distance(found, embedding_goldens.image("open_clip-vit")) < 1e-5


def test_bf16_stays_close(embedding_goldens, tmp_path: Path) -> None:
    torch.save(state_dict(embedding_goldens, "open_clip-resnet"), tmp_path / "weights.pt")
    model = registry.load(tmp_path / "weights.pt", backend="torch", device="cpu", precision="bf16")
    found = model.forward_text(embedding_goldens.recipe.tokens(600, 20))
    assert distance(found, embedding_goldens.text("open_clip-resnet")) < 0.05


@pytest.mark.parametrize("name", ["clip-tiny-ViT", "clip-tiny-RN"])
def test_goldens_from_bytes_to_logits(name: str, reference_data: Path, tmp_path: Path) -> None:
    goldens = reference_data / "goldens"
    expected = np.load(goldens / f"{name}.npz")
    picture = goldens / "img" / "dogs.jpg"
    weights = tmp_path / f"{name}.pt"
    weights.write_bytes(lzma.decompress((goldens / f"{name}.pt.xz").read_bytes()))
    pytest.importorskip("onnxruntime")
    pair = registry.export(weights, to="onnx", output=tmp_path / "pair")
    for source, backend in ((weights, "torch"), (pair, "onnx")):
        model = registry.load(source, backend=backend, device="cpu")
        batch, _ = model.preprocess(picture)
        assert np.abs(batch - expected["x"]).max() <= 1e-6  # the same resampler, bit for bit
        tokens = model.tokenize(TEXTS)
        assert np.array_equal(tokens, expected["tokens"][:, : tokens.shape[1]])
        assert not expected["tokens"][:, tokens.shape[1] :].any()
        assert distance(model.forward_images(batch), expected["image_features"]) < 1e-5
        assert distance(model.embed_text(TEXTS, normalize=False).vectors, expected["text_features"]) < 1e-5
        logits = model.compare(picture, TEXTS).logits
        assert np.abs(logits - expected["logits_per_image"]).max() < 1e-4


def test_golden_hugging_face_folder(reference_data: Path, tmp_path: Path) -> None:
    source, folder = reference_data / "goldens" / "clip-tiny-ViT-hf", tmp_path / "hf"
    folder.mkdir()
    shutil.copyfile(source / "config.json", folder / "config.json")
    (folder / "model.safetensors").write_bytes(lzma.decompress((source / "model.safetensors.xz").read_bytes()))
    expected = np.load(reference_data / "goldens" / "clip-tiny-ViT.npz")
    model = registry.load(folder, backend="torch", device="cpu")
    assert distance(model.forward_images(expected["x"]), expected["image_features"]) < 1e-5
    assert distance(model.forward_text(expected["tokens"].astype(np.int64)), expected["text_features"]) < 1e-5


def test_tokeniser_equals_openais_on_random_strings(embedding_goldens) -> None:
    from lensmount_vision.towers.tokens import ClipTokenizer
    from lensmount_vision.towers.vocabulary import packaged_vocabulary

    rows = embedding_goldens.strings
    found = ClipTokenizer(packaged_vocabulary(), 77).encode([text for text, _, _ in rows])
    assert [i for i, (row, ids) in enumerate(zip(rows, found, strict=True)) if row[1] != ids] == []
    assert max(len(ids) for ids in found) == 77 and min(len(ids) for ids in found) == 2


def test_tokeniser_equals_the_installed_reference_on_10000_strings() -> None:
    reference = pytest.importorskip("clip.simple_tokenizer").SimpleTokenizer()
    import runpy

    from lensmount_vision.towers.tokens import ClipTokenizer
    from lensmount_vision.towers.vocabulary import packaged_vocabulary

    root = Path(__file__).resolve().parents[1]
    texts = runpy.run_path(str(root / "goldens" / "embeddings" / "make.py"))["strings"](10_000)
    found = ClipTokenizer(packaged_vocabulary(), 10_000).encode(texts)
    assert [t for t, ids in zip(texts, found, strict=True) if reference.encode(t) != ids[1:-1]] == []


def test_an_export_takes_what_the_files_leave_open(embedding_goldens, tmp_path: Path) -> None:
    """A state dict does not say its activation: this network was trained with `gelu`, OpenAI's were not."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    case = "open_clip-vit"
    weights = tmp_path / "weights.pt"
    torch.save(state_dict(embedding_goldens, case), weights)
    for name, settings, right in (("gelu", {"activation": "gelu"}, True), ("plain", {}, False)):
        written = registry.export(weights, to="onnx", output=tmp_path / name, settings=settings)
        model = registry.load(written, backend="onnx", device="cpu")
        pictures = embedding_goldens.recipe.images(2, model.preprocess_spec.size[0])
        assert (distance(model.forward_images(pictures), embedding_goldens.image(case)) < 1e-5) is right
    with pytest.raises(UnknownOptionError, match="activation"):
        registry.export(weights, to="onnx", output=tmp_path / "other", settings={"activaton": "gelu"})
    assert not (tmp_path / "other").exists()
