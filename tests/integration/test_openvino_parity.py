"""OpenVINO gives what onnxruntime and torch give, from a picture's bytes to results: every architecture's graphs.

Tolerances: every box IoU above 0.99 and score within 0.002; network outputs within 1e-3 of their range (float32, other
kernels, other orders of sums).
"""

from __future__ import annotations

import importlib.util
import lzma
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

import sam2_tiny

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

from lensmount import registry
from lensmount_shapes.scenes import make_scene
from lensmount_vision.results.boxes import iou_matrix

PLUGIN_TESTS = Path(__file__).resolve().parents[1]


def require_same(one, other, threshold=0.25):
    """Pairs every box of one result with a box of the other; what stands alone lies at the threshold."""
    free = list(range(len(other)))
    alone = []
    for i in range(len(one)):
        overlaps = iou_matrix(one.xyxy[i : i + 1], other.xyxy)[0] if len(other) else np.zeros(0)
        fits = [
            j
            for j in free
            if overlaps[j] > 0.99
            and one.class_id[i] == other.class_id[j]
            and abs(one.confidence[i] - other.confidence[j]) <= 0.002
        ]
        if fits:
            free.remove(max(fits, key=lambda j: overlaps[j]))
        else:
            alone.append(one.confidence[i])
    alone += [other.confidence[j] for j in free]
    assert all(abs(score - threshold) <= 0.002 for score in alone), f"without a partner: {alone}"


def require_close(found, wanted):
    """Network outputs by name."""
    assert list(found) == list(wanted)
    for name, value in wanted.items():
        assert found[name].shape == value.shape, name
        assert found[name].dtype == value.dtype, name
        assert np.abs(found[name].astype(np.float64) - value).max() <= 1e-3 * max(float(np.ptp(value)), 1e-3), name


def helpers(name):
    """The functions that a plugin's tests make their networks with."""
    spec = importlib.util.spec_from_file_location(f"{name}_helpers", PLUGIN_TESTS / name / "conftest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def load():
    made = []

    def load(source, backend, **options):
        made.append(registry.load(source, backend=backend, device="cpu", **options))
        assert (made[-1].backend, made[-1].precision) == (backend, "fp32")
        return made[-1]

    yield load
    for model in made:
        model.close()


# --- the sample model -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", ["onnx", "torch"])
def test_the_sample_model_from_bytes_to_masks(load, other):
    if other == "torch":
        pytest.importorskip("torch")
    ours, theirs = load("shapes-nano", "openvino"), load("shapes-nano", other)
    pictures = [(resources.files("lensmount_shapes") / "data" / "scene.jpg").read_bytes()]
    pictures += [make_scene(23, index, *size).image for index in range(4) for size in ((256, 256), (480, 320))]
    found = 0
    for picture in pictures:
        (one,), (two,) = ours(picture), theirs(picture)
        require_same(one, two)
        found += len(one)
        if len(one) == len(two):
            assert (one.masks.dense() != two.masks.dense()).mean() < 1e-4
    assert found > 20


def test_a_batch_gives_what_singles_give(load):
    model = load("shapes-nano", "openvino")
    pictures = [make_scene(29, index, 256, 256).image for index in range(3)]
    for together, alone in zip(model(pictures), (model(picture)[0] for picture in pictures), strict=True):
        require_same(together, alone)


def test_nothing_is_chosen_otherwise_because_it_is_installed():
    plan = registry.explain("shapes-nano")
    names = [choice.backend.name for choice in plan.choices]
    assert list(dict.fromkeys(names)) == ["onnx", "torch", "openvino"]


# --- reference graphs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["yolov8n", "yolov8n-seg", "yolov10n-e2e", "yolo26n-e2e"])
def test_reference_graphs(load, reference_data, tmp_path, name):
    path = tmp_path / f"{name}.onnx"
    path.write_bytes(lzma.decompress((reference_data / "goldens" / f"{name}.onnx.xz").read_bytes()))
    ours, theirs = load(path, "openvino"), load(path, "onnx")
    found = 0
    for picture in ("beer.jpg", "dogs.jpg", "truck.jpg"):  # on the fourth these weights' scores are all 1: ties
        encoded = (reference_data / "goldens" / "img" / picture).read_bytes()
        (one,), (two,) = ours(encoded), theirs(encoded)
        require_same(one, two)
        found += len(two)
    assert found > 20


def test_reference_boxes(load, reference_data, tmp_path):
    """What an independent implementation found, not only what onnxruntime does."""
    path = tmp_path / "yolov8n.onnx"
    path.write_bytes(lzma.decompress((reference_data / "goldens" / "yolov8n.onnx.xz").read_bytes()))
    (result,) = load(path, "openvino")((reference_data / "goldens" / "img" / "truck.jpg").read_bytes())
    with np.load(reference_data / "goldens" / "yolov8n.npz") as golden:
        boxes = golden["boxes"]
    assert len(result) == len(boxes) == 97
    overlaps = iou_matrix(boxes[:, :4], result.xyxy)
    assert overlaps.max(axis=1).min() > 0.99
    assert np.abs(result.confidence[overlaps.argmax(axis=1)] - boxes[:, 4]).max() < 0.002


# --- every architecture's export --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(tmp_path_factory, embedding_goldens):
    """Small networks with random weights, exported by their plugins, each once."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnx")
    made = {}

    def get(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            if name == "sam2":
                source, output = sam2_tiny.write_folder(folder / "model"), folder / "pair"
            elif name == "owlv2":
                source, output = helpers("owlv2").write_folder(folder / "model"), folder / "pair"
            elif name in ("clip", "perception_encoder"):
                case = {"clip": "open_clip-resnet", "perception_encoder": "pe-timm"}[name]
                weights = embedding_goldens.recipe.weights(embedding_goldens.shapes[case])
                source, output = folder / "weights.pt", folder / "pair"
                torch.save({key: torch.from_numpy(value) for key, value in weights.items()}, source)
            else:
                kit, masks = helpers("rfdetr"), name == "rfdetr-masks"
                args = {**kit.ARGS, "segmentation_head": masks, "class_names": ["nut", "bolt", "gear"]}
                tensors = kit.tensors(masks=2 if masks else 0)
                source, output = kit.write_checkpoint(folder / "tuned.pth", tensors, args), folder / "graph.onnx"
            made[name] = registry.export(source, to="onnx", output=output, dynamic=name != "clip")
        return made[name]

    return get


@pytest.mark.parametrize("name", ["rfdetr", "rfdetr-masks"])
def test_rfdetr(load, exported, name):
    ours, theirs = (load(exported(name), backend) for backend in ("openvino", "onnx"))
    pictures = sam2_tiny.frames(3)
    for count in (1, 3):
        batch, _ = theirs.preprocess(pictures[:count])
        require_close(ours.forward(batch), theirs.forward(batch))
    for one, two in zip(ours(pictures, confidence=0.3), theirs(pictures, confidence=0.3), strict=True):
        require_same(one, two, threshold=0.3)


def test_sam2(load, exported):
    ours, theirs = (load(exported("sam2"), backend) for backend in ("openvino", "onnx"))
    picture = sam2_tiny.frames(1)[0]
    for prompt in ({"point_coordinates": [[40, 60], [90, 90]], "point_labels": [1, 0]}, {"boxes": [10, 20, 80, 90]}):
        (one,), (two,) = ours(picture, **prompt), theirs(picture, **prompt)
        assert np.abs(one.scores - two.scores).max() < 2e-3
        assert (one.masks.dense() != two.masks.dense()).mean() < 1e-3


def test_owlv2(load, exported):
    ours, theirs = (load(exported("owlv2"), backend) for backend in ("openvino", "onnx"))
    pictures = [helpers("owlv2").picture(seed) for seed in range(3)]
    for count in (1, 3):
        batch, _ = theirs.preprocess(pictures[:count])
        require_close(ours.forward(batch), theirs.forward(batch))
    words = ["a cat", "a considerably longer text"]
    assert np.abs(ours.embed_text(words) - theirs.embed_text(words)).max() < 1e-4


@pytest.mark.parametrize("name", ["clip", "perception_encoder"])
def test_embeddings(load, exported, embedding_goldens, name):
    ours, theirs = (load(exported(name), backend) for backend in ("openvino", "onnx"))
    tokens = embedding_goldens.recipe.tokens(600, 20)
    for length in (20, 7):  # what is trimmed, too
        trimmed = tokens[:4, :length]
        require_close({"text": ours.forward_text(trimmed)}, {"text": theirs.forward_text(trimmed)})
    one, two = (model.embed_images(sam2_tiny.frames(2)).vectors for model in (ours, theirs))
    assert np.abs(one - two).max() < 1e-4
