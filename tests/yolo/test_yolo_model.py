"""YOLO models on onnxruntime, from pictures to results, on graphs whose answers are known."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from lensmount import registry
from lensmount.errors import ClosedError, ImageError, ModelFileError, OptionError, UnsupportedModelError

pytest.importorskip("onnxruntime")

# A 64x64 network; a 128x64 picture (h, w) is shrunk by 2 and padded by 16 at left and right.
TALL = np.zeros((128, 64, 3), np.uint8)
ROWS = [
    (32, 32, 8, 16, 0, 0.9),  # cat, in the middle: (24, 48, 40, 80) in the picture
    (33, 32, 8, 16, 0, 0.8),  # the same cat, worse
    (32, 32, 8, 16, 1, 0.7),  # a dog in the same place
    (5, 32, 6, 6, 2, 0.95),  # a bird wholly in the left padding
    (16, 32, 8, 8, 2, 0.5),  # a bird half in it: clipped at x = 0
    (40, 10, 4, 4, 2, 0.2),  # below the default confidence
]


@pytest.fixture
def detector(graph, raw):
    with registry.load(graph({"output0": raw(ROWS)})) as model:
        yield model


def found(result):
    return [
        (str(name), round(float(score), 2), box.tolist())
        for name, score, box in zip(result.class_name, result.confidence, result.xyxy, strict=True)
    ]


def test_boxes_come_back_in_original_pixels_best_first(detector):
    (result,) = detector(TALL)
    assert found(result) == [
        ("cat", 0.9, [24, 48, 40, 80]),
        ("dog", 0.7, [24, 48, 40, 80]),
        ("bird", 0.5, [0, 56, 8, 72]),
    ]
    assert result.xyxy.dtype == np.float32
    assert result.class_id.dtype == np.int64
    assert result.image_size == (128, 64)
    assert detector.card.classes == ("cat", "dog", "bird")
    assert (detector.backend, detector.device, detector.precision) == ("onnx", "cpu", "fp32")


def test_call_options(detector):
    assert [n for n, *_ in found(detector(TALL, class_agnostic=True)[0])] == ["cat", "bird"]
    assert [n for n, *_ in found(detector(TALL, classes="bird", confidence=0.1)[0])] == ["bird", "bird"]
    assert [n for n, *_ in found(detector(TALL, classes=[1])[0])] == ["dog"]
    assert len(detector(TALL, max_detections=1)[0]) == 1
    assert len(detector(TALL, iou_threshold=1)[0]) == 4
    assert [n for n, *_ in found(detector(TALL, confidence={"cat": 0.95, "bird": 0.1})[0])] == ["dog", "bird", "bird"]
    assert len(detector(TALL, confidence=1)[0]) == 0
    empty = detector(TALL, confidence=0.99)[0]
    assert empty.xyxy.shape == (0, 4)


def test_unknown_and_senseless_options_are_refused(detector):
    with pytest.raises(TypeError, match="confidense"):
        detector(TALL, confidense=0.5)
    for bad in (
        {"confidence": 2},
        {"confidence": True},
        {"iou_threshold": -1},
        {"max_detections": 0},
        {"classes": "fox"},
    ):
        with pytest.raises(OptionError):
            detector(TALL, **bad)


def test_batches_equal_singles_and_a_list_is_always_returned(detector):
    wide = np.zeros((64, 128, 3), np.uint8)
    assert detector([]) == []
    together = detector([TALL, wide, TALL])
    apart = [detector(image)[0] for image in (TALL, wide, TALL)]
    assert [found(a) for a in together] == [found(b) for b in apart]
    # in the wide picture nothing of the left edge is padding
    assert found(together[1])[:2] == [("bird", 0.95, [4, 26, 16, 38]), ("cat", 0.9, [56, 16, 72, 48])]


def test_a_static_batch_is_fed_in_padded_chunks(graph, raw):
    model = registry.load(graph({"output0": raw(ROWS)}, batch=1))
    assert [len(result) for result in model([TALL] * 3)] == [3, 3, 3]
    assert str(model.batch) == "static 1"


def test_rows_need_no_suppression(graph):
    rows = np.zeros((10, 6), np.float32)
    rows[0] = 28, 24, 36, 40, 0.9, 0
    rows[1] = 28, 24, 36, 40, 0.8, 0
    meta = {"names": "{0: 'cat', 1: 'dog', 2: 'bird'}", "task": "detect", "end2end": "True"}
    (result,) = registry.load(graph({"output0": rows}, metadata=meta))(TALL)
    assert found(result) == [("cat", 0.9, [24, 48, 40, 80]), ("cat", 0.8, [24, 48, 40, 80])]


def test_masks_are_cut_to_their_boxes(graph, raw):
    protos = np.zeros((32, 16, 16), np.float32)
    protos[0] = 1
    out = raw([(32, 32, 8, 16, 0, 0.9, *([8.0] + [0.0] * 31))], extra=32)
    meta = {"names": "{0: 'cat', 1: 'dog', 2: 'bird'}", "task": "segment"}
    (result,) = registry.load(graph({"output0": out, "output1": protos}, metadata=meta))(TALL)
    dense = result.masks.dense()
    assert dense.shape == (1, 128, 64)
    expected = np.zeros((128, 64), bool)
    expected[48:80, 24:40] = True
    assert (dense[0] == expected).all()


@pytest.mark.parametrize("form", ["arrays", "tensors"])
def test_objects_without_a_mask_pixel_are_left_out(graph, raw, form):
    """Of three objects the second's coefficient is negative: its mask has no pixel."""
    rows = [(20 + 12 * i, 32, 10, 20, 0, 0.9 - 0.1 * i, 1 - 2 * (i == 1), *[0] * 31) for i in range(3)]
    protos = np.zeros((32, 16, 16), np.float32)
    protos[0] = 1
    meta = {"names": "{0: 'cat', 1: 'dog', 2: 'bird'}", "task": "segment"}
    path = graph({"output0": raw(rows, extra=32), "output1": protos}, metadata=meta)
    for options, left in (({}, [0, 2]), ({"empty_masks": True}, [0, 1, 2])):
        model = registry.load(path, backend="onnx", **options)
        batch, geometries = model.preprocess(TALL)
        outputs = model.forward(batch)
        if form == "tensors":
            torch = pytest.importorskip("torch")
            outputs = {name: torch.from_numpy(value) for name, value in outputs.items()}
        (result,) = model.postprocess(outputs, geometries)
        assert np.allclose(result.confidence, [0.9 - 0.1 * i for i in left])
        assert len(result.masks) == len(result.xyxy) == len(left)
        assert [bool(area) for area in result.masks.area] == [i != 1 for i in left]


def test_the_three_stages_make_up_a_call(detector):
    batch, geometries = detector.preprocess(TALL)
    assert batch.shape == (1, 3, 64, 64)
    assert batch.dtype == np.float32
    raw = detector.forward(batch)
    assert found(detector.postprocess(raw, geometries)[0]) == found(detector(TALL)[0])


def test_graphs_without_names_number_their_classes(graph, raw):
    (result,) = registry.load(graph({"output0": raw(ROWS)}, metadata={}), architecture="yolo")(TALL)
    assert result.class_name[0] == "class_0"


def test_half_precision_inputs(graph, raw):
    model = registry.load(graph({"output0": raw(ROWS)}, input_dtype=np.float16))
    assert model.preprocess(TALL)[0].dtype == np.float16
    assert len(model(TALL)[0]) == 3


def test_a_closed_model_says_so(graph, raw):
    model = registry.load(graph({"output0": raw(ROWS)}))
    model.warmup()
    model.close()
    model.close()
    with pytest.raises(ClosedError):
        model(TALL)


def test_threads_get_their_own_results(detector):
    wide = np.zeros((64, 128, 3), np.uint8)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda image: found(detector(image)[0]), [TALL, wide] * 20))
    assert results == [found(detector(TALL)[0]), found(detector(wide)[0])] * 20


def test_bad_pictures_are_typed_errors(detector, tmp_path):
    (tmp_path / "empty.jpg").touch()
    for bad in (
        tmp_path / "missing.jpg",
        tmp_path / "empty.jpg",
        tmp_path,
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        b"nonsense",
        None,
        3,
    ):
        with pytest.raises(ImageError):
            detector(bad)


@pytest.mark.parametrize("keep", [0, 1, 20, 300])
def test_corrupt_graphs_are_typed_errors(graph, raw, keep):
    path = graph({"output0": raw(ROWS)})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelFileError):
        registry.load(path)


def test_graphs_with_other_outputs_are_not_taken_for_yolo(graph):
    path = graph({"output0": np.zeros((7, 5), np.float32)}, metadata={})
    with pytest.raises(UnsupportedModelError, match="output0"):
        registry.load(path)
    path = graph({"output0": np.zeros((9, 84), np.float32)})
    with pytest.raises(ModelFileError, match="5 classes, 3 names"):
        registry.load(path)


def test_input_size_of_a_fixed_graph_cannot_be_changed(graph, raw):
    with pytest.raises(ModelFileError, match="another input size"):
        registry.load(graph({"output0": raw(ROWS)}), input_size=128)


def test_packages_of_inference_models_are_obeyed(graph, raw, tmp_path):
    folder = tmp_path / "package"
    folder.mkdir()
    graph({"output0": raw(ROWS)}, metadata={}).rename(folder / "weights.onnx")
    (folder / "class_names.txt").write_text("cat\ndog\n\nbird\n")
    (folder / "model_config.json").write_text(
        json.dumps(
            {
                "model_architecture": "yolov8",
                "task_type": "object-detection",
                "backend_type": "onnx",
                "recommended_parameters": {"confidence": 0.85, "perClassConfidence": {"bird": 0.1}},
            }
        )
    )
    (folder / "inference_config.json").write_text(
        json.dumps(
            {
                "network_input": {
                    "training_input_size": {"height": 64, "width": 64},
                    "dynamic_spatial_size_supported": False,
                    "color_mode": "rgb",
                    "resize_mode": "stretch",
                    "input_channels": 3,
                    "scaling_factor": 255,
                },
                "forward_pass": {"static_batch_size": None, "max_dynamic_batch_size": 8},
                "post_processing": {"type": "nms", "fused": False},
            }
        )
    )
    model = registry.load(folder)
    (result,) = model(TALL)
    # stretched: x by 1, y by 2; nothing is padding, so the bird at the left edge stays
    assert ("cat", 0.9, [28.0, 48.0, 36.0, 80.0]) in found(result)
    assert [n for n, *_ in found(result)] == ["bird", "cat", "bird", "bird"]
    assert str(model.batch) == "dynamic up to 8"
