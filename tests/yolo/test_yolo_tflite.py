"""Ultralytics' TFLite exports on LiteRT: channels last, boxes in shares of the sides or in pixels, metadata behind."""

from __future__ import annotations

import numpy as np
import pytest

from lensmount import registry
from lensmount.contracts import NotRunnable
from lensmount_reading import inspect_file
from lensmount_yolo.model import in_pixels
from lensmount_yolo.recognise import recognise
from tflite_bytes import Graph
from tflite_forms import metadata_behind

SIDE, CELLS = 64, 84
NAMES = "{0: 'cat', 1: 'dog', 2: 'bird'}"


def export(*, shares=True, task="detect", rows=7, columns=CELLS, half=False):
    """A graph of 64x64 pixels that finds a dog and a bird, whatever it sees: its first class score is the input's."""
    centres = (np.arange(CELLS) + 0.5) / CELLS
    main = np.zeros((1, rows, CELLS), np.float32)
    main[0, :2] = centres
    main[0, 2:4] = 0.1
    main[0, :4, 20] = (0.5, 0.25, 0.5, 0.25)
    main[0, 5, 20] = 0.9
    main[0, :4, 70] = (0.75, 0.75, 0.25, 0.5)
    main[0, 6, 70] = 0.8
    if columns != CELLS:
        main = np.zeros((1, rows, columns), np.float32)
    if not shares:
        main[0, :4] *= SIDE
    graph = Graph()
    x = graph.tensor((1, SIDE, SIDE, 3), name="serving_default_images:0")
    y = graph.tensor(main.shape, name="StatefulPartitionedCall:0")
    constant = graph.constant(main.astype(np.float16) if half else main)
    if half:
        wide = graph.tensor(main.shape)
        graph.operator(6, [constant], [wide], {}, kind=38)
        constant = wide
    # the mean of the picture, times nothing: the graph depends on its input
    axes = graph.constant(np.array([1, 2, 3], np.int32))
    mean, none = graph.tensor((1,)), graph.tensor((1,))
    graph.operator(40, [x, axes], [mean], {}, kind=27)
    graph.operator(18, [mean, graph.constant(np.zeros(1, np.float32))], [none], {}, kind=21)
    graph.operator(0, [constant, none], [y], {}, kind=11)
    graph.inputs, graph.outputs = [x], [y]
    texts = {"task": task, "names": NAMES, "stride": "32", "imgsz": f"[{SIDE}, {SIDE}]", "license": "AGPL-3.0"}
    return graph.write() + metadata_behind(texts)


@pytest.fixture
def written(tmp_path):
    def write(**options):
        path = tmp_path / "best_float32.tflite"
        path.write_bytes(export(**options))
        return path

    return write


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("shares", [False, True])
def test_boxes_are_in_the_pictures_pixels(shares, half, written):
    pytest.importorskip("ai_edge_litert")
    model = registry.load(written(shares=shares, half=half), backend="litert")
    assert (model.backend, model.precision, model.card.licence) == ("litert", "fp32", "AGPL-3.0")
    (result,) = model(np.zeros((128, 128, 3), np.uint8), confidence=0.5)
    assert result.class_name.tolist() == ["dog", "bird"]
    np.testing.assert_allclose(result.confidence, (0.9, 0.8), atol=1e-3)
    np.testing.assert_allclose(result.xyxy, [(32, 16, 96, 48), (80, 64, 112, 128)], atol=0.2)


def test_the_card_of_a_bare_file(written):
    card = recognise(inspect_file(written()))
    (package,) = card.packages
    assert (package.format, package.precision, package.artifacts[0].role) == ("tflite", "fp32", "graph")
    assert package.preprocess.size == (SIDE, SIDE) and package.preprocess.channels == 3
    assert card.classes == ("cat", "dog", "bird")


def test_other_tasks_are_named(written):
    found = recognise(inspect_file(written(task="pose", rows=4 + 3 + 51)))
    assert isinstance(found, NotRunnable) and "another task" in found.what


def test_rows_whose_unit_no_file_says(written):
    found = recognise(inspect_file(written(columns=6, rows=300)))
    assert isinstance(found, NotRunnable) and "suppression" in found.what


def test_a_tflite_file_of_somebody_else_is_not_ours(tmp_path):
    from tflite_bytes import convolution

    path = tmp_path / "other.tflite"
    path.write_bytes(convolution().write())
    assert recognise(inspect_file(path)) is None


def test_pixels_stay_pixels():
    main = np.full((2, 7, 84), 0.5, np.float32)
    np.testing.assert_array_equal(in_pixels(main, (32, 64))[0, :5, 0], (32, 16, 32, 16, 0.5))
    main[:, 0, -1] = 60
    assert in_pixels(main, (32, 64)) is main
    assert in_pixels(main[:0], (32, 64)).shape == (0, 7, 84)
