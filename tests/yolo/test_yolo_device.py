"""YOLO's post-processing on the device against the host's, on torch's CPU device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lensmount import registry  # noqa: E402
from lensmount.errors import InputError  # noqa: E402
from lensmount.specs import Preprocess  # noqa: E402
from lensmount_vision.images.geometry import plan  # noqa: E402
from lensmount_vision.images.loading import load  # noqa: E402
from lensmount_vision.results.boxes import nms_rotated  # noqa: E402
from lensmount_yolo import on_device  # noqa: E402
from lensmount_yolo.head import Head  # noqa: E402
from lensmount_yolo.postprocess import Filter, keep_boxes  # noqa: E402
from tensor_reads import downloads  # noqa: E402
from tiny_networks import classifier, lively, pyramid  # noqa: E402 - after the skip

SIZES = [(480, 640), (640, 480), (333, 1000)]
GEOMETRIES = [plan(size, Preprocess(size=(640, 640))) for size in SIZES]
SCENE = Path(__file__).resolve().parents[2] / "examples/lensmount-shapes/src/lensmount_shapes/data/scene.jpg"


def outputs(cells: int, *, classes: int = 5, extra: int = 0, seed: int = 0, share: float = 0.1) -> np.ndarray:
    """Random raw heads of three pictures; scores fall on few levels, so that many are equal."""
    random = np.random.default_rng(seed)
    made = np.empty((3, 4 + classes + extra, cells), np.float32)
    made[:, :2] = random.uniform(0, 640, (3, 2, cells))
    made[:, 2:4] = random.uniform(4, 160, (3, 2, cells))
    scores = random.integers(1, 50, (3, classes, cells)) / 50
    made[:, 4 : 4 + classes] = scores * (random.uniform(size=(3, 1, cells)) < share)
    made[:, 4 + classes :] = random.uniform(-1.5, 1.5, (3, extra, cells))
    return made


def wanted(**changed) -> Filter:
    settings = {
        "confidence": 0.25,
        "per_class": None,
        "iou_threshold": 0.5,
        "max_detections": 300,
        "max_candidates": 30_000,
        "class_agnostic": False,
        "classes": None,
    }
    return Filter(**{**settings, **changed})


def assert_equal(made, expected) -> None:
    np.testing.assert_array_equal(made.boxes, expected.boxes)
    np.testing.assert_array_equal(made.scores, expected.scores)
    np.testing.assert_array_equal(made.class_ids, expected.class_ids)
    np.testing.assert_array_equal(made.extra, expected.extra)
    assert (made.class_ids.dtype, made.boxes.dtype) == (np.int64, np.float32)


HEAD = Head(kind="raw", classes=5, extra=3, output="output0")


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"confidence": 0.0},
        {"confidence": 1.0},
        {"iou_threshold": 0.0},
        {"iou_threshold": 1.0},
        {"class_agnostic": True},
        {"max_detections": 3},
        {"max_candidates": 20},
        {"classes": np.array([1, 3])},
        {"classes": np.array([], np.int64)},
        {"per_class": np.array([0.2, 0.9, 0.5, 0.3, 0.6], np.float32), "confidence": 0.2},
    ],
)
@pytest.mark.parametrize("cells", [84, 2000])
def test_the_same_boxes_bit_for_bit(cells: int, changed: dict):
    for seed in range(3):
        raw, asked = outputs(cells, extra=3, seed=seed), wanted(**changed)
        made = on_device.keep_boxes(torch.from_numpy(raw), HEAD, asked, GEOMETRIES)
        for row, found, geometry in zip(raw, made, GEOMETRIES, strict=True):
            assert_equal(found, keep_boxes(row, HEAD, asked, geometry))


def test_more_boxes_than_are_looked_at_first():
    # 2,000 cells that all pass: the first look stops at 512 and is done again with all.
    raw = outputs(2000, extra=3, share=1.0)
    asked = wanted(confidence=0.01)
    made = on_device.keep_boxes(torch.from_numpy(raw), HEAD, asked, GEOMETRIES)
    for row, found, geometry in zip(raw, made, GEOMETRIES, strict=True):
        assert_equal(found, keep_boxes(row, HEAD, asked, geometry))


def test_one_download_is_enough_for_an_ordinary_picture(monkeypatch):
    looks = []
    run = on_device._run
    monkeypatch.setattr(on_device, "_run", lambda *args: looks.append(args[4]) or run(*args))
    raw = torch.from_numpy(outputs(8400, extra=3, share=0.01))
    with downloads() as made:
        on_device.keep_boxes(raw, HEAD, wanted(), GEOMETRIES)
    assert looks == [on_device.CANDIDATES]
    assert made == [1]


def test_boxes_in_the_padding_and_numbers_that_are_none():
    raw = np.zeros((1, 12, 6), np.float32)
    geometry = plan((320, 640), Preprocess(size=(640, 640)))  # grey above 160 and below 480
    raw[0, :4, 0] = 320, 50, 40, 40  # wholly in the padding
    raw[0, :4, 1] = 320, 320, 40, 40
    raw[0, 4, :2] = 0.9
    raw[0, 5, 3] = np.nan  # a score that is none
    made = on_device.keep_boxes(torch.from_numpy(raw), HEAD, wanted(), [geometry])[0]
    assert_equal(made, keep_boxes(raw[0], HEAD, wanted(), geometry))
    assert len(made.scores) == 1
    raw[0, 0, 1] = np.inf
    for keep in (lambda: keep_boxes(raw[0], HEAD, wanted(), geometry), lambda: kept_of(raw, geometry)):
        with pytest.raises(InputError, match="boxes are not finite"):
            keep()


def kept_of(raw: np.ndarray, geometry):
    return on_device.keep_boxes(torch.from_numpy(raw), HEAD, wanted(), [geometry])


def test_turned_boxes():
    head = Head(kind="raw", classes=5, extra=1, output="output0")
    for seed in range(3):
        raw, asked = outputs(400, extra=1, seed=seed), wanted(iou_threshold=0.3)
        made = on_device.keep_boxes(torch.from_numpy(raw), head, asked, GEOMETRIES, rotated=True)
        for found in made:
            turned = np.concatenate(
                (
                    (found.boxes[:, :2] + found.boxes[:, 2:]) / 2,
                    found.boxes[:, 2:] - found.boxes[:, :2],
                    found.extra,
                ),
                1,
            )
            assert len(nms_rotated(turned, found.scores, found.class_ids, iou_threshold=0.3)) == len(turned) > 0


# --- whole models: the host's way against the device's ----------------------------------------------------------------


def pair(name, **options):
    return [registry.load(name, device="cpu", device_path=way, **options) for way in (False, True)]


def alike(one, other, *, pixels: float = 0.5) -> None:
    """The same objects; boxes within half a pixel, since single grey values differ."""
    assert (one.kind, one.image_size) == (other.kind, other.image_size)
    np.testing.assert_array_equal(one.class_id, other.class_id)
    np.testing.assert_allclose(one.confidence, other.confidence, atol=0.01)
    np.testing.assert_allclose(one.xyxy, other.xyxy, atol=pixels)


@pytest.mark.parametrize("backend", ["onnx"])
@pytest.mark.parametrize("confidence", [0.25, 0.6])
def test_shapes_from_bytes_to_masks(backend: str, confidence: float):
    host, device = pair("shapes-nano", backend=backend)
    assert (host.tensor_device, device.tensor_device) == (None, "cpu")
    pictures = [SCENE.read_bytes(), load(SCENE).array()[::2, ::2], str(SCENE)]
    for one, other in zip(host(pictures, confidence=confidence), device(pictures, confidence=confidence), strict=True):
        alike(one, other)
        assert np.diag(one.masks.iou(other.masks)).min(initial=1) > 0.98
        assert one.path == other.path
    assert len(one) >= 10


@pytest.mark.parametrize("count", [1, 5])
def test_masks_take_two_downloads_and_boxes_one_however_many_pictures(count: int):
    _, device = pair("shapes-nano", backend="onnx")
    raw, geometries = device.infer_pictures([load(SCENE)] * count)
    with downloads() as made:
        results = device.postprocess(raw, geometries)
    assert all(len(result.masks) >= 10 for result in results)
    assert made == [2]  # what lies where; then the masks, whose sizes follow from it
    with downloads() as made:
        results = device.postprocess(raw, geometries, confidence=1.0)
    assert [len(result) for result in results] == [0] * count
    assert made == [1]


def test_tensors_and_arrays_give_the_same_as_on_the_host():
    _, device = pair("shapes-nano", backend="onnx")
    pixels = load(SCENE).array("rgb")
    (one,) = device(torch.from_numpy(pixels).permute(2, 0, 1))
    (other,) = device(pixels, color="rgb")
    np.testing.assert_array_equal(one.xyxy, other.xyxy)


def test_stages_take_arrays_and_tensors():
    host, device = pair("shapes-nano", backend="onnx")
    batch, geometries = device.preprocess(SCENE)
    assert isinstance(batch, np.ndarray)
    expected = host.postprocess(host.forward(batch), geometries)[0]
    for given in (batch, torch.from_numpy(batch)):
        raw = device.forward(given)
        assert {type(value) for value in raw.values()} == {type(given)}
        (made,) = device.postprocess(raw, geometries)
        # numpy decodes boxes there and torch here: float32's last digits of some 640 pixels
        np.testing.assert_allclose(made.xyxy, expected.xyxy, rtol=0, atol=1e-3)
        assert np.diag(made.masks.iou(expected.masks)).min() > 0.999


def test_streams_go_through_the_device():
    host, device = pair("shapes-nano", backend="onnx")
    streams = [list(model.stream([SCENE] * 5, batch_size=2)) for model in (host, device)]
    for (_, one), (_, other) in zip(*streams, strict=True):
        alike(one, other)


def test_a_static_graph_gets_its_chunks(graph):
    rows = [(100, 100, 50, 50, 1, 0.9)]
    from yolo_graphs import NAMES, raw_output

    path = graph({"output0": raw_output(rows, cells=84)}, metadata={"names": NAMES, "task": "detect"}, batch=2)
    host, device = pair(path, backend="onnx")
    picture = np.zeros((64, 64, 3), np.uint8)
    for one, other in zip(host([picture] * 3), device([picture] * 3), strict=True):
        alike(one, other)


PLANS = {
    "boxes": lambda: pyramid(),
    "keypoints": lambda: pyramid(classes=1, extra=15),
    "angles": lambda: pyramid(extra=1),
    "classes": lambda: classifier(),
}


@pytest.mark.parametrize("plan", PLANS)
def test_torch_weights_of_every_task(plan: str, tmp_path: Path):
    _, network = lively(PLANS[plan]())
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    host, device = pair(tmp_path / "weights.pt", backend="torch", input_size=64 if plan == "classes" else 160)
    picture = load(SCENE).array()
    batch, geometries = host.preprocess(picture)
    raw, there = host.forward(batch), device.forward(torch.from_numpy(batch))
    if plan == "classes":
        (one,), (other,) = host.postprocess(raw, geometries), device.postprocess(there, geometries)
        np.testing.assert_array_equal(one.probabilities, other.probabilities)
        np.testing.assert_allclose(host(picture)[0].probabilities, device(picture)[0].probabilities, atol=1e-3)
        return
    (one,) = host.postprocess(raw, geometries, confidence=0.1)
    (other,) = device.postprocess(there, geometries, confidence=0.1)
    assert len(one) > 0
    alike(one, other, pixels=1e-3)
    if plan == "keypoints":
        np.testing.assert_allclose(one.keypoints, other.keypoints, atol=1e-3)
    if plan == "angles":
        np.testing.assert_allclose(one.xywhr, other.xywhr, atol=1e-3)
    (whole,) = device(picture, confidence=0.1)
    assert whole.kind == one.kind
