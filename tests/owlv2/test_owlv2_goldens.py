"""Against transformers' outputs on given weights and pictures, from bytes on, on both backends."""

from __future__ import annotations

import numpy as np
import pytest

from lensmount import registry
from lensmount_owlv2.proposals import EPSILON, from_outputs, normalise
from lensmount_owlv2.scoring import query_logits

TEXTS = ["a photo of a dog", "a red ball", "grass"]
# transformers' torchvision processor: a Gaussian, then a bilinear resize, on floats.
PIXELS = 1 / 255


@pytest.fixture(scope="module", params=["torch", "graph", "onnx"])
def loaded(request, golden, tmp_path_factory):
    folder = golden[0]
    if request.param == "onnx":
        folder = registry.export(folder, output=tmp_path_factory.mktemp("export") / "owl")
    backend = "torch" if request.param == "torch" else "onnx"
    if backend == "torch":
        pytest.importorskip("torch")
    with registry.load(folder, backend=backend, device="cpu") as model:
        yield model


@pytest.mark.parametrize(("name", "key"), [("dogs.jpg", "x"), ("beer.jpg", "q")])
def test_input_from_bytes(loaded, golden, name, key):
    _, arrays, folder = golden
    batch, (geometry,) = loaded.preprocess(folder / name)
    std = np.array([0.26862954, 0.26130258, 0.27577711]).reshape(3, 1, 1)
    assert np.abs((batch - arrays[key]) * std).max() <= 0.05 * PIXELS
    assert geometry.network_size == (192, 192)


def test_image_tower(loaded, golden):
    _, arrays, _ = golden
    raw = loaded.forward(arrays["x"])
    assert np.abs(raw["objectness_logits"] - arrays["objectness_logits"]).max() <= 1e-4
    assert np.abs(raw["boxes"] - arrays["pred_boxes"]).max() <= 1e-5
    assert np.abs(normalise(raw["class_embeds"]) - normalise(arrays["class_embeds"])).max() <= 1e-5


def test_text_tower_and_logits(loaded, golden):
    _, arrays, _ = golden
    queries = loaded.embed_text(TEXTS)
    unit = arrays["text_embeds"][0]
    assert np.abs(queries - unit / (np.linalg.norm(unit, axis=1, keepdims=True) + EPSILON)).max() <= 1e-5
    raw = loaded.forward(arrays["x"])
    found = from_outputs(raw, 0, (427, 640), None)
    order = np.argsort(-raw["objectness_logits"][0], kind="stable")
    assert np.abs(query_logits(found, queries) - arrays["logits"][0][order]).max() <= 2e-3


def test_words_from_bytes(loaded, golden):
    """What transformers' post-processing answers: the best word of each patch, where its score passes."""
    _, arrays, folder = golden
    logits, boxes = arrays["logits"][0].astype(np.float64), arrays["pred_boxes"][0].astype(np.float64)
    scores = 1 / (1 + np.exp(-logits.max(axis=1)))
    (result,) = loaded(folder / "dogs.jpg", classes=TEXTS, confidence=0.2)
    corners = np.concatenate((boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2), axis=1) * 640
    clipped = np.clip(corners, 0, [640, 427, 640, 427])
    shown = (clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])
    sure = np.flatnonzero((scores > 0.205) & shown)
    assert abs(len(result) - len(sure)) <= np.count_nonzero((abs(scores - 0.2) <= 0.005) & shown)
    for row in sure:
        near = np.abs(result.xyxy - clipped[row]).max(axis=1) <= 0.05
        near &= (np.abs(result.confidence - scores[row]) <= 0.001) & (result.class_id == logits[row].argmax())
        assert near.any()


def test_image_guided(loaded, golden):
    _, arrays, folder = golden
    scores = 1 / (1 + np.exp(-arrays["guided_logits"][0, :, 0].astype(np.float64)))
    (result,) = loaded.image_guided_detection(
        folder / "dogs.jpg", folder / "beer.jpg", confidence=0.0, iou_threshold=1.0, max_detections=1000
    )
    centers = arrays["guided_boxes"][0].astype(np.float64) * 640
    corners = np.concatenate((centers[:, :2] - centers[:, 2:] / 2, centers[:, :2] + centers[:, 2:] / 2), axis=1)
    clipped = np.clip(corners, 0, [640, 427, 640, 427])
    shown = np.flatnonzero((clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1]))
    assert len(result) == len(shown)
    for row in shown:
        near = np.abs(result.xyxy - clipped[row]).max(axis=1) <= 0.05
        assert (near & (np.abs(result.confidence - scores[row]) <= 0.001)).any()


def test_few_shot_scores(loaded, golden):
    """Scores of a query taken by IoU, restated from the reference arrays in float64."""
    _, arrays, folder = golden
    embeddings = arrays["class_embeds"][0].astype(np.float64)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    boxes = arrays["pred_boxes"][0].astype(np.float64) * 640
    row = int(np.argmax((boxes[:, 2] * boxes[:, 3]) * (boxes[:, 1] + boxes[:, 3] / 2 < 427)))
    x, y, w, h = boxes[row].tolist()
    data = [{"image": folder / "dogs.jpg", "boxes": [{"x": x, "y": y, "w": w, "h": h, "cls": "thing"}]}]
    (result,) = loaded.infer(folder / "dogs.jpg", data, confidence=0.0, iou_threshold=0.99)
    scores = (embeddings @ embeddings[row] + 1) / 2
    corners = np.concatenate((boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2), axis=1)
    clipped = np.clip(corners, 0, [640, 427, 640, 427])
    shown = (clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])
    assert result.confidence[0] == pytest.approx(1.0, abs=1e-5)
    assert len(result) >= 0.9 * shown.sum()
    for box, score in zip(result.xyxy, result.confidence, strict=True):
        distance = np.abs(clipped - box).max(axis=1) + np.where(shown, 0, 1e9)
        assert distance.min() <= 0.05
        assert np.abs(scores[distance <= 0.05] - score).min() <= 1e-4


def test_peer_package(golden, tmp_path):
    pytest.importorskip("lensmount_roboflow")
    """A folder of inference-models opens as it is."""
    folder, _, _ = golden
    package = tmp_path / "package"
    package.mkdir()
    for path in folder.iterdir():
        (package / path.name).write_bytes(path.read_bytes())
    (package / "model_config.json").write_text(
        '{"model_architecture": "owlv2", "task_type": "open-vocabulary-object-detection",'
        ' "backend_type": "hugging-face"}'
    )
    with registry.load(package) as model:
        assert model.card.task == "open-vocabulary-detection"
        assert model.preprocess_spec.size == (192, 192)
