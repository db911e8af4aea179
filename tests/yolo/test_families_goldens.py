"""Official files of every family against what the reference answers on the same weights.

Tolerances (float32 on a CPU): network outputs 1e-3 of their range, boxes 0.05 px; final boxes 0.5 px and 0.005 of
score. The reference's boxes of v10 and 26 come from the branches that need suppression, and it keeps boxes that lie
wholly in the padding, with no area left after clipping; lensmount drops those.
"""

from __future__ import annotations

import lzma
from dataclasses import replace

import numpy as np
import pytest

from lensmount import registry
from lensmount_yolo.checkpoint import load_network
from lensmount_yolo.export_check import in_onnx, in_torch
from lensmount_yolo.networks.nodes import from_json, to_json
from lensmount_yolo.networks.tensors import measure

#: The runtime, and whether the network is folded: it runs without torch where that is not installed.
WAYS = [("torch", False), ("torch", True), ("onnx", False), ("onnx", True)]
BACKENDS = ["torch", "onnx"]

RAW = ["yolov8n", "yolov8n-seg", "yolov8n-pose", "yolov9t", "yolov10n", "yolo11n", "yolo11n-seg", "yolo12n", "yolo26n"]
END_TO_END = ("yolov10n", "yolo26n")
BOXES = {"yolov8n": 97, "yolov8n-seg": 75, "yolov9t": 65, "yolov10n": 78, "yolo11n": 73, "yolo11n-seg": 112}
BOXES |= {"yolo12n": 80, "yolo26n": 116, "yolov8n-pose": 52}


@pytest.fixture(scope="module")
def goldens(reference_data):
    return reference_data / "goldens"


@pytest.fixture(scope="module")
def weights(goldens, tmp_path_factory):
    """Unpacks a golden's weights once."""
    folder = tmp_path_factory.mktemp("weights")

    def path(name):
        made = folder / f"{name}.pt"
        if not made.exists():
            made.write_bytes(lzma.decompress((goldens / f"{name}.pt.xz").read_bytes()))
        return made

    return path


@pytest.fixture(scope="module")
def picture(goldens):
    with np.load(goldens / "yolov8n.npz") as golden:
        return golden["x_uint8"].astype(np.float32) / 255


def run(loaded, way, picture):
    """Outputs of a network by one of `WAYS`."""
    runtime, folds = way
    require(runtime)
    network = (loaded.folded() if folds else loaded).network()
    return (in_torch if runtime == "torch" else in_onnx)(network)(picture)


def require(runtime):
    pytest.importorskip({"torch": "torch", "onnx": "onnxruntime"}[runtime])


def close(got, expected):
    """Boxes by pixels, the rest by its range."""
    assert got.shape == expected.shape
    assert np.abs(got[:, :4] - expected[:, :4]).max() <= 0.05
    assert np.abs(got[:, 4:] - expected[:, 4:]).max() <= 1e-3 * np.ptp(expected[:, 4:])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", RAW)
def test_raw_outputs_before_and_after_folding(goldens, weights, picture, name, way):
    loaded = load_network(weights(name))  # of v10 and 26 the branches that need suppression
    out = run(loaded, way, picture)
    with np.load(goldens / f"{name}.npz") as golden:
        close(out[0][:, :, ::5], golden["raw_every_5th_anchor"])
        if "proto_strided" in golden:
            strided = golden["proto_strided"]
            assert np.abs(out[1][..., ::4, ::4] - strided).max() <= 1e-3 * np.ptp(strided)
    assert not any(".bn." in key or "conv2." in key for key in loaded.folded().tensors)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", END_TO_END)
def test_rows_without_suppression_before_and_after_folding(goldens, weights, picture, name, way):
    (rows,) = run(load_network(weights(name), end_to_end=True), way, picture)
    with np.load(goldens / f"{name}.npz") as golden:
        expected = golden["e2e"]
    assert rows.shape == (1, 300, 6)
    assert np.abs(rows[..., 4] - expected[..., 4]).max() <= 1e-3
    for row in expected[0]:  # equal scores may change places
        same = (np.abs(rows[0, :, :4] - row[:4]).max(1) <= 0.05) & (np.abs(rows[0, :, 4] - row[4]) <= 1e-3)
        assert (same & (rows[0, :, 5] == row[5])).any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", sorted(BOXES))
def test_from_bytes_to_boxes(goldens, weights, name, backend):
    """By the default call, there and here."""
    require(backend)
    model = registry.load(weights(name), backend=backend, device="cpu")
    (result,) = model((goldens / "img" / "truck.jpg").read_bytes())
    with np.load(goldens / f"{name}.npz") as golden:
        boxes = golden["boxes"]
        points = golden.get("keypoints")
    real = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    boxes = boxes[real]
    assert len(boxes) == BOXES[name]
    assert len(result) == len(boxes)
    used = set()
    for index, (*box, score, label) in enumerate(boxes):
        far = np.abs(result.xyxy - np.array(box, np.float32)).max(1)
        far[(result.class_id != int(label)) | (np.abs(result.confidence - score) > 0.005)] = np.inf
        far[list(used)] = np.inf
        best = int(far.argmin())
        assert far[best] <= 0.5
        used.add(best)
        if points is not None:
            assert np.abs(result.keypoints[best, :, :2] - points[real][index, :, :2]).max() <= 0.5
            assert np.abs(result.keypoints[best, :, 2] - points[real][index, :, 2]).max() <= 0.005


@pytest.mark.parametrize("backend", BACKENDS)
def test_classification_from_bytes_to_probabilities(goldens, weights, backend):
    """The resampler that reproduces the reference's probabilities is Pillow's antialiased bilinear one."""
    require(backend)
    model = registry.load(weights("yolov8n-cls"), backend=backend, device="cpu")
    (result,) = model((goldens / "img" / "truck.jpg").read_bytes())
    with np.load(goldens / "yolov8n-cls.npz") as golden:
        assert np.abs(result.probabilities - golden["probs"]).max() <= 1e-5
        (raw,) = run(load_network(weights("yolov8n-cls")), (backend, False), golden["x"])
        assert np.abs(raw - golden["raw"]).max() <= 1e-5


@pytest.mark.parametrize("name", [*RAW, "yolov8n-cls"])
def test_tensors_alone_tell_the_same_network(weights, picture, name):
    loaded = load_network(weights(name), end_to_end=True if name in END_TO_END else None)
    assert from_json(to_json(loaded.described.network)) == loaded.described.network
    small = np.ascontiguousarray(picture[:, :, 200:360, 200:392])
    expected = run(loaded, ("onnx", False), small)
    rebuilt = replace(loaded, tree=measure({key: value.shape for key, value in loaded.tensors.items()}))
    for mine, theirs in zip(expected, run(rebuilt, ("onnx", False), small), strict=True):
        assert np.abs(mine - theirs).max() <= 1e-5 * np.ptp(mine)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_genuine_fine_tuned_file(reference_data, backend):
    require(backend)
    path = reference_data / "weights" / "yolov9t_volleyball_nc1.pt"
    model = registry.load(path, backend=backend, device="cpu")
    assert model.card.classes == ("ball",)
    assert model.card.licence == "AGPL-3.0"
    assert model.card.description == "YOLOv9t detection, 1 class"
    assert model.card.task == "object-detection"
    (result,) = model(reference_data / "images" / "bus.jpg", confidence=0.01)
    assert set(result.class_name.tolist()) <= {"ball"}
