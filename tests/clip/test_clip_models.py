"""CLIP models in use: inputs, batches, cache, comparison, labels, packages, and what is refused."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tokenizers")
pytest.importorskip("ftfy")
image_module = pytest.importorskip("PIL.Image")

from lensmount import registry  # noqa: E402 - after the skips
from lensmount.caches.memory import MemoryCache  # noqa: E402
from lensmount.errors import (  # noqa: E402
    ClosedError,
    ImageError,
    InputError,
    ModelFileError,
    OptionError,
    UnknownOptionError,
    UnsupportedModelError,
)
from lensmount_vision.results.kinds import Embeddings  # noqa: E402

MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)


def tiny_state(recipe, vocabulary: int = 49408) -> dict:
    """OpenAI's layout with the real vocabulary, and 16 channels."""
    shapes: dict[str, tuple[int, ...]] = {
        "visual.conv1.weight": (16, 3, 8, 8),
        "visual.class_embedding": (16,),
        "visual.positional_embedding": (17, 16),
        "visual.proj": (16, 12),
        "token_embedding.weight": (vocabulary, 16),
        "positional_embedding": (77, 16),
        "text_projection": (16, 12),
        "logit_scale": (),
    }
    for name in ("visual.ln_pre", "visual.ln_post", "ln_final"):
        shapes |= {f"{name}.weight": (16,), f"{name}.bias": (16,)}
    for block in ("visual.transformer.resblocks.0", "transformer.resblocks.0"):
        shapes |= {f"{block}.attn.in_proj_weight": (48, 16), f"{block}.attn.in_proj_bias": (48,)}
        for name, out, into in (("attn.out_proj", 16, 16), ("mlp.c_fc", 64, 16), ("mlp.c_proj", 16, 64)):
            shapes |= {f"{block}.{name}.weight": (out, into), f"{block}.{name}.bias": (out,)}
        for name in ("ln_1", "ln_2"):
            shapes |= {f"{block}.{name}.weight": (16,), f"{block}.{name}.bias": (16,)}
    return {name: torch.from_numpy(value) for name, value in recipe.weights(shapes).items()}


@pytest.fixture(scope="module")
def weights(embedding_goldens, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "tiny.pt"
    torch.save(tiny_state(embedding_goldens.recipe), path)
    return path


@pytest.fixture(scope="module")
def model(weights: Path):
    return registry.load(weights, backend="torch", device="cpu")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(7):
        noise = np.random.default_rng(i).integers(0, 255, (40 + i, 60, 3), np.uint8)
        image_module.fromarray(noise).save(folder / f"{i}.png")
    return folder


def reference_input(picture, side: int) -> np.ndarray:
    """OpenAI's transform in Pillow alone: short side bicubic with antialias, centre crop, normalise."""
    picture = picture.convert("RGB")
    width, height = picture.size
    short = min(width, height)
    size = (int(side * width / short), int(side * height / short))
    picture = picture.resize(size, image_module.Resampling.BICUBIC)
    left, top = round((size[0] - side) / 2), round((size[1] - side) / 2)
    pixels = np.asarray(picture.crop((left, top, left + side, top + side)), np.float32) / 255
    return ((pixels - MEAN) / STD).transpose(2, 0, 1)


KINDS = [("RGB", "JPEG"), ("RGB", "PNG"), ("L", "PNG"), ("L", "JPEG"), ("RGBA", "PNG")]


@pytest.mark.parametrize(("mode", "kind"), KINDS)
@pytest.mark.parametrize("size", [(97, 61), (61, 97), (32, 32), (1, 1), (500, 33), (7, 300)])
def test_pixels_equal_the_reference_transform(mode: str, kind: str, size: tuple[int, int], model) -> None:
    random = np.random.default_rng(sum(size))
    channels = {"RGB": (3,), "L": (), "RGBA": (4,)}[mode]
    noise = random.integers(0, 255, (size[1], size[0], *channels), np.uint8)
    file = io.BytesIO()
    image_module.fromarray(noise).save(file, kind, quality=90)
    found, _ = model.preprocess(file.getvalue())
    expected = reference_input(image_module.open(file), 32)
    assert np.abs(found[0] - expected).max() <= 1 / 255 / STD.min() + 1e-6  # one grey value, after normalisation


def test_every_kind_of_input_gives_the_same_vector(model, pictures: Path) -> None:
    path = pictures / "0.png"
    opened = image_module.open(path).convert("RGB")
    array = np.asarray(opened)
    tensor = torch.from_numpy(array.transpose(2, 0, 1).copy())
    expected = model.embed_images(path).vectors
    for source in (str(path), path.read_bytes(), opened, array[..., ::-1], tensor, tensor[None], [path]):
        assert np.allclose(model.embed_images(source).vectors, expected, atol=1e-6)
    assert np.allclose(model.embed_images(array, color="rgb").vectors, expected, atol=1e-6)
    assert np.allclose(model(path)[0].vectors, expected, atol=1e-6)


def test_folders_globs_and_generators_stream(model, pictures: Path) -> None:
    paths = sorted(pictures.iterdir())
    one_by_one = np.concatenate([model.embed_images(p).vectors for p in paths])
    for source in (pictures, str(pictures / "*.png"), paths):
        for batch_size in (None, 1, 3):
            assert np.allclose(model.embed_images(source, batch_size=batch_size).vectors, one_by_one, atol=1e-6)
    batches = list(model.embed_batches(iter(paths), batch_size=3))
    assert [len(b.vectors) for b in batches] == [3, 3, 1]
    assert batches[1].indices == (3, 4, 5) and batches[1].image_sizes[0] == (43, 60)
    found = Embeddings(vectors=np.concatenate([b.vectors for b in batches]), normalized=False).normalize()
    assert np.allclose(found.vectors, one_by_one, atol=1e-6)


def test_memory_is_bounded_while_streaming(model) -> None:
    drawn = 0

    def endless():
        nonlocal drawn
        while True:
            drawn += 1
            yield np.zeros((40, 40, 3), np.uint8)

    batches = model.embed_batches(endless(), batch_size=2)
    for _ in range(3):
        next(batches)
    batches.close()
    assert drawn <= 3 * 2 + 2 * 2 + 1


def test_bad_pictures_are_named_or_left_out(model, pictures: Path) -> None:
    (pictures / "3.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"3\.png"):
        model.embed_images(pictures)
    failed = []
    batches = list(model.embed_batches(pictures, batch_size=4, on_error=lambda name, error: failed.append(name)))
    assert [i for b in batches for i in b.indices] == [0, 1, 2, 4, 5, 6]
    assert len(failed) == 1 and failed[0].endswith("3.png")


def test_nothing_gives_nothing(model) -> None:
    for empty in (model.embed_images([]), model.embed_text([])):
        assert empty.vectors.shape == (0, 12) and empty.vectors.dtype == np.float32
    assert model([]) == []
    compared = model.compare([], ["a"])
    assert compared.cosine.shape == (0, 1) and compared.probabilities.shape == (0, 1)
    assert model.compare(np.zeros((9, 9, 3), np.uint8), []).probabilities.shape == (1, 0)


def test_vectors_are_of_length_one_unless_told(model, pictures: Path) -> None:
    plain, unit = model.embed_images(pictures, normalize=False), model.embed_images(pictures)
    assert np.allclose(np.linalg.norm(unit.vectors, axis=1), 1, atol=1e-6) and unit.normalized
    assert not plain.normalized and np.allclose(plain.normalize().vectors, unit.vectors, atol=1e-6)
    texts = model.embed_text(["a dog", ""])
    assert np.allclose(np.linalg.norm(texts.vectors, axis=1), 1, atol=1e-6)


def test_texts_do_not_depend_on_their_batch(model) -> None:
    texts = ["a dog", "a much longer text " * 30, "", "café", "a dog"]
    every = model.embed_text(texts, normalize=False).vectors
    model.text_encoder.cache.clear()
    alone = np.concatenate([model.embed_text(t, normalize=False).vectors for t in texts])
    model.text_encoder.cache.clear()
    in_twos = model.embed_text(texts, batch_size=2, normalize=False).vectors
    assert np.allclose(every, alone, atol=1e-5) and np.allclose(every, in_twos, atol=1e-5)
    assert np.array_equal(every[0], every[4])
    padded = np.zeros((1, 77), np.int64)
    tokens = model.tokenize("a dog")
    padded[:, : tokens.shape[1]] = tokens
    assert np.allclose(model.forward_text(padded), every[:1], atol=1e-5)


def test_texts_are_run_once(weights: Path) -> None:
    cache = MemoryCache(max_entries=2)
    counted = registry.load(weights, backend="torch", device="cpu", caches={"text": cache})
    runs = []
    run = counted.text_encoder.forward
    counted.text_encoder.forward = lambda tokens: runs.append(len(tokens)) or run(tokens)
    first = counted.embed_text(["a", "b", "a"]).vectors
    assert runs == [2] and len(cache) == 2
    assert np.array_equal(counted.embed_text(["b", "a"]).vectors, first[[1, 0]]) and runs == [2]
    counted.embed_text("c")  # the least recently used of two goes: b
    counted.embed_text("a")
    assert runs == [2, 1]
    counted.embed_text("b")
    assert runs == [2, 1, 1]
    other = registry.load(weights, backend="torch", device="cpu", caches={"text": cache}, activation="gelu")
    assert not np.allclose(other.embed_text("b").vectors, first[1], atol=1e-4)  # another activation, another vector


def test_compare_and_classify(model, pictures: Path) -> None:
    labels = ["dog", "cat", "red car"]
    compared = model.compare(pictures, labels)
    vectors, words = model.embed_images(pictures).vectors, model.embed_text(labels).vectors
    assert np.allclose(compared.cosine, vectors @ words.T, atol=1e-5)
    assert np.allclose(compared.logits, compared.cosine * np.exp(2.5), atol=1e-4)
    again = model.compare(model.embed_images(pictures), model.embed_text(labels))
    assert np.allclose(again.cosine, compared.cosine, atol=1e-6)
    found = model.classify(pictures, labels, templates=["a photo of a {}.", "{}"])
    ensemble = (words + model.embed_text([f"a photo of a {x}." for x in labels]).vectors) / 2
    scores = vectors @ (ensemble / np.linalg.norm(ensemble, axis=1, keepdims=True)).T * np.exp(2.5)
    expected = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    assert np.allclose([r.probabilities for r in found], expected, atol=1e-5)
    assert found[0].class_names == tuple(labels) and found[2].image_size == (42, 60)
    assert found[0].path == str(pictures / "0.png")


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.embed_text([1]),
        lambda m: m.embed_text(None),
        lambda m: m.embed_text(b"a"),
        lambda m: m.classify(np.zeros((4, 4, 3), np.uint8), []),
        lambda m: m.classify(np.zeros((4, 4, 3), np.uint8), ["a"], templates=[]),
        lambda m: m.classify(np.zeros((4, 4, 3), np.uint8), ["a"], templates="no place"),
        lambda m: m.embed_images(None),
        lambda m: m.embed_images({"a": 1}),
        lambda m: m.embed_images([3]),
        lambda m: m.embed_images(np.zeros((4, 4, 3), np.float64) - 1),
        lambda m: m.embed_images("missing.jpg"),
        lambda m: m.embed_images(np.zeros((4, 4, 3), np.uint8), batch_size=0),
        lambda m: m.embed_images(np.zeros((4, 4, 3), np.uint8), normalize=1),
        lambda m: m.compare(Embeddings(vectors=np.ones((1, 3), np.float32), normalized=False), ["a"]),
    ],
)
def test_wrong_arguments_are_refused_in_words(model, call) -> None:
    with pytest.raises(InputError):
        call(model)


def test_unknown_options_are_refused(weights: Path) -> None:
    with pytest.raises(UnknownOptionError, match="activaton"):
        registry.load(weights, backend="torch", device="cpu", activaton="gelu")
    for options in ({"activation": "relu"}, {"heads": 0}):
        with pytest.raises(OptionError):
            registry.load(weights, backend="torch", device="cpu", **options)
    with pytest.raises(ModelFileError, match="heads"):
        registry.load(weights, backend="torch", device="cpu", heads=3)


def test_a_closed_model_says_so(weights: Path) -> None:
    with registry.load(weights, backend="torch", device="cpu") as opened:
        opened.warmup()
    for call in (lambda: opened.embed_text("a"), lambda: opened.embed_images(np.zeros((4, 4, 3), np.uint8))):
        with pytest.raises(ClosedError):
            call()


def test_another_vocabulary_without_its_tokeniser(embedding_goldens, tmp_path: Path) -> None:
    torch.save(tiny_state(embedding_goldens.recipe, vocabulary=600), tmp_path / "m.pt")
    found = registry.load(tmp_path / "m.pt", backend="torch", device="cpu")
    assert found.embed_images(np.zeros((4, 4, 3), np.uint8)).vectors.shape == (1, 12)
    with pytest.raises(ModelFileError, match="tokeniser does not fit"):
        found.embed_text("a dog")


def test_the_models_own_tokeniser_wins(embedding_goldens, tmp_path: Path) -> None:
    torch.save(tiny_state(embedding_goldens.recipe, vocabulary=516), tmp_path / "m.pt")
    from lensmount_vision.towers.vocabulary import read_merges

    merges = "#version: 0.2\nd o\ndo g</w>\n"
    ids = {**read_merges(merges.encode(), "m").ids, "<|startoftext|>": 514, "<|endoftext|>": 515}
    (tmp_path / "vocab.json").write_text(json.dumps(ids))
    (tmp_path / "merges.txt").write_text(merges)
    found = registry.load(tmp_path / "m.pt", backend="torch", device="cpu")
    assert found.tokenize("dog").tolist() == [[514, 513, 515]]
    assert found.embed_text("dog").vectors.shape == (1, 12)


def test_package_folders_of_inference_models(weights: Path, model, tmp_path: Path) -> None:
    config = {"model_architecture": "clip", "task_type": "embedding", "backend_type": "torch"}
    (tmp_path / "model_config.json").write_text(json.dumps(config))
    (tmp_path / "model.pt").write_bytes(weights.read_bytes())
    found = registry.load(tmp_path, backend="torch", device="cpu")
    assert np.allclose(found.embed_text("a dog").vectors, model.embed_text("a dog").vectors, atol=1e-6)


def test_pairs_of_inference_models_and_static_graphs(weights: Path, model, pictures: Path, tmp_path: Path) -> None:
    """Graphs without our metadata: of static batch, texts always 77 tokens as int32."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from lensmount.contracts.model import NetworkContext
    from lensmount_clip.model import network

    card = registry.describe(weights)
    towers = network(NetworkContext(card=card, package=card.packages[0], files={weights.name: weights}))
    config = {"model_architecture": "clip", "task_type": "embedding", "backend_type": "onnx"}
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "model_config.json").write_text(json.dumps(config))
    feeds = {"visual": torch.zeros(2, 3, 32, 32), "textual": torch.zeros(3, 77, dtype=torch.int32)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, feed in feeds.items():
            path = str(folder / f"{name}.onnx")
            torch.onnx.export(towers[name].module, (feed,), path, input_names=["x"], opset_version=17, dynamo=False)
    assert onnx.load(folder / "textual.onnx").graph.input[0].type.tensor_type.shape.dim[0].dim_value == 3
    found = registry.load(folder, backend="onnx", device="cpu")
    texts = ["a dog", "cat", "", "two red cars", "x" * 500]
    assert np.allclose(found.embed_text(texts).vectors, model.embed_text(texts).vectors, atol=1e-5)
    assert np.allclose(found.embed_images(pictures).vectors, model.embed_images(pictures).vectors, atol=1e-5)
    assert found.logit_scale == 100.0  # OpenAI's models; such graphs do not say
    with pytest.raises(OptionError, match="graph"):
        registry.load(folder, backend="onnx", device="cpu", activation="gelu")


def test_other_files_are_refused(embedding_goldens, tmp_path: Path) -> None:
    detector = {"model.22.cv3.0.0.conv.weight": torch.zeros(1), "model.0.conv.weight": torch.zeros(2, 3, 3, 3)}
    torch.save(detector, tmp_path / "model.pt")
    config = {"model_architecture": "clip", "task_type": "embedding", "backend_type": "torch"}
    (tmp_path / "model_config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedModelError, match="does not hold a CLIP"):
        registry.load(tmp_path, backend="torch", device="cpu")
    (tmp_path / "model.pt").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(ModelFileError):
        registry.load(tmp_path, backend="torch", device="cpu")
    state = tiny_state(embedding_goldens.recipe)
    for name, value in (
        ("visual.positional_embedding", torch.zeros(16, 16)),  # 15 places are no square
        ("text_projection", torch.zeros(17, 12)),
        ("visual.transformer.resblocks.2.ln_1.weight", torch.zeros(16)),
        ("visual.conv1.weight", torch.zeros(16)),
    ):
        torch.save({**state, name: value}, tmp_path / "bad.pt")
        with pytest.raises(ModelFileError):
            registry.load(tmp_path / "bad.pt", architecture="clip", backend="torch", device="cpu")
    missing = {name: value for name, value in state.items() if name != "visual.ln_post.bias"}
    torch.save(missing, tmp_path / "bad.pt")
    with pytest.raises(ModelFileError, match=r"ln_post|not those of a CLIP"):
        registry.load(tmp_path / "bad.pt", backend="torch", device="cpu")


def test_half_a_pair_is_refused(weights: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    pair = registry.export(weights, to="onnx", output=tmp_path / "pair")
    with pytest.raises(InputError, match="there already"):
        registry.export(weights, to="onnx", output=pair)
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "visual.onnx").write_bytes((pair / "visual.onnx").read_bytes())
    with pytest.raises(ModelFileError, match="half of a pair"):
        registry.load(tmp_path / "alone" / "visual.onnx", backend="onnx", device="cpu")
    with pytest.raises(UnsupportedModelError):
        registry.export(weights, to="onnx", output=tmp_path / "half", precision="fp16")
    assert not list(tmp_path.glob(".*")) and not (tmp_path / "half").exists()


def test_nine_models_are_listed() -> None:
    cards = {card.id: card for card in registry.models(architecture="clip")}
    assert len(cards) == 9 and {"clip/RN50x64", "clip/ViT-B-32", "clip/ViT-L-14-336px"} <= set(cards)
    for card in cards.values():
        (package,) = card.packages
        weights_file = package.artifacts[0]
        assert weights_file.sha256 in weights_file.uri and card.licence == "MIT"
        assert package.preprocess.size == (card.setting("resolution"),) * 2
