"""Tiles: what they cover, results put together, small objects, and pictures that need none."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from lensmount import registry
from lensmount.errors import OptionError, UnknownOptionError
from lensmount_shapes.scenes import make_scene
from lensmount_vision.models.slicing import Sliced, windows
from lensmount_vision.results import Detections, InstanceSegmentation, Keypoints, Masks, OrientedDetections, iou_matrix


@pytest.mark.parametrize("size", [(64, 64), (65, 64), (100, 300), (2160, 3840), (50, 1000)])
@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.5])
def test_tiles_cover_a_picture_with_the_overlap(size, overlap):
    places = windows(size, (64, 64), overlap)
    covered = np.zeros(size, np.int64)
    for x, y, w, h in places:
        assert (w, h) == (min(64, size[1]), min(64, size[0]))
        covered[y : y + h, x : x + w] += 1
    assert covered.min() >= 1
    xs = sorted({x for x, *_ in places})
    assert all(b - a <= np.floor(64 * (1 - overlap)) for a, b in pairwise(xs))
    assert xs[-1] == max(0, size[1] - 64)


class Bright:
    """A model that finds one bright rectangle, as any of the kinds of results."""

    def __init__(self, kind, whole_is_better=True):
        self.kind = kind
        self.sign = 1 if whole_is_better else -1
        self.calls = []

    def __call__(self, images, *, confidence=0.25, color=None):
        self.calls.append([image.size for image in images])
        return [self._find(image) for image in images]

    def _find(self, image):
        ys, xs = np.nonzero(image.pixels[..., 0] > 128)
        common = {"class_names": ("thing",), "image_size": image.size}
        count = int(len(ys) > 0)
        box = [[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]] if count else np.zeros((0, 4), np.float32)
        common |= {
            "confidence": np.full(count, 0.5 + self.sign * len(ys) * 1e-6),
            "class_id": np.zeros(count, np.int64),
        }
        if self.kind is InstanceSegmentation:
            mask = (image.pixels[..., 0] > 128)[None][:count]
            return InstanceSegmentation(xyxy=box, masks=Masks.from_dense(mask.reshape(count, *image.size)), **common)
        if self.kind is Keypoints:
            points = [[[xs.min(), ys.min(), 1]]] if count else np.zeros((0, 1, 3), np.float32)
            return Keypoints(xyxy=box, keypoints=points, **common)
        if self.kind is OrientedDetections:
            x, y = (xs.mean() + 0.5, ys.mean() + 0.5) if count else (0, 0)
            sides = (np.ptp(xs) + 1, np.ptp(ys) + 1) if count else (1, 1)
            return OrientedDetections.from_xywhr(np.array([[x, y, *sides, 0]][:count]).reshape(-1, 5), **common)
        return Detections(xyxy=box, **common)


def picture(box, size=(200, 300)):
    pixels = np.zeros((*size, 3), np.uint8)
    x1, y1, x2, y2 = box
    pixels[y1:y2, x1:x2] = 255
    return pixels


@pytest.mark.parametrize("kind", [Detections, InstanceSegmentation, Keypoints, OrientedDetections])
@pytest.mark.parametrize("merge", ["nmm", "nms"])
@pytest.mark.parametrize("box", [(3, 5, 13, 15), (120, 90, 132, 101), (280, 180, 300, 200)])
def test_a_small_object_is_found_once_and_where_it_is(kind, merge, box):
    sliced = Sliced(Bright(kind), (64, 64), merge=merge, overlap=0.3)
    (result,) = sliced(picture(box))
    assert type(result) is kind
    assert result.image_size == (200, 300)
    assert result.xyxy.tolist() == [[float(value) for value in box]]
    if kind is InstanceSegmentation:
        assert result.masks.boxes.tolist() == result.xyxy.tolist()
    if kind is Keypoints:
        assert result.keypoints[0, 0, :2].tolist() == [box[0], box[1]]
    if kind is OrientedDetections:
        assert result.xywhr[0, :2].tolist() == [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2]


@pytest.mark.parametrize("whole_is_better", [True, False])
def test_an_object_across_seams_is_one_with_one_mask(whole_is_better):
    box = (20, 20, 280, 180)  # lies in every tile
    pixels = picture(box)
    (result,) = Sliced(Bright(InstanceSegmentation, whole_is_better), (64, 64))(pixels)
    assert result.xyxy.tolist() == [[20, 20, 280, 180]]
    assert np.array_equal(result.masks.dense()[0], pixels[..., 0] > 128)


def test_tiles_are_one_call_and_small_pictures_cost_nothing():
    model = Bright(Detections)
    Sliced(model, (64, 64), whole=False)(picture((3, 5, 13, 15)))
    assert len(model.calls) == 1
    assert set(model.calls[0]) == {(64, 64)}
    small = Bright(Detections)
    Sliced(small, (300, 200))(picture((3, 5, 13, 15)))
    assert small.calls == [[(200, 300)]]


def test_two_objects_and_two_classes_stay_two():
    from lensmount_vision.models.slicing import grouped

    boxes = np.array([[0, 0, 10, 10], [1, 1, 9, 9], [30, 30, 40, 40]], np.float32)
    kept, joined, groups = grouped(boxes, np.array([0, 1, 0]), 0.5, grow=True)
    assert kept == [0, 1, 2]
    assert np.array_equal(joined, boxes)
    assert groups == [[0], [1], [2]]
    assert grouped(boxes, np.array([0, 0, 0]), 0.5, grow=True)[0] == [0, 2]


@pytest.fixture(scope="module")
def shapes():
    with registry.load("shapes-nano", backend="onnx") as model:
        yield model


def mosaic(side=6, cell=128):
    """A large picture of small scenes, and the truth."""
    canvas, boxes = np.zeros((side * cell, side * cell, 3), np.uint8), []
    for row in range(side):
        for column in range(side):
            scene = make_scene(2, row * side + column, cell, cell)
            canvas[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell] = scene.image
            boxes.append(scene.xyxy + np.array([column, row, column, row], np.float32) * cell)
    return canvas, np.concatenate(boxes)


def test_small_shapes_are_found_at_least_twice_as_often(shapes):
    pixels, truth = mosaic()
    small = truth[(truth[:, 2:] - truth[:, :2]).max(1) < 24]
    assert len(small) > 20
    found = []
    for model in (shapes, Sliced(shapes)):
        (result,) = model(pixels, confidence=0.25)
        found.append(float((iou_matrix(small, result.xyxy).max(1, initial=0) >= 0.5).mean()))
    assert found[1] >= 2 * found[0]
    assert found[1] >= 0.5


def test_a_stream_of_slices(shapes):
    pixels, _ = mosaic(3)
    (expected,) = Sliced(shapes, (200, 200))(pixels, confidence=0.4)
    with shapes.stream([pixels, pixels], slice=(200, 200), confidence=0.4) as running:
        results = [result for _, result in running]
    assert results == [expected, expected]
    with shapes.stream([pixels], confidence=0.4) as running:
        assert next(running)[1] != expected
    with pytest.raises(UnknownOptionError, match="confidense"):
        shapes.stream([pixels], slice=True, confidense=0.4)


@pytest.mark.parametrize(
    ("size", "options"),
    [((8, 64), {}), ((64,), {}), ("64", {}), ((64, 64), {"overlap": 0.95}), ((64, 64), {"merge": "wbf"})],
)
def test_bad_options(size, options):
    with pytest.raises(OptionError):
        Sliced(Bright(Detections), size, **options)


def test_a_model_without_boxes_is_refused():
    class Classifies:
        def __call__(self, images):
            return [object() for _ in images]

    with pytest.raises(OptionError, match="boxes"):
        Sliced(Classifies(), (64, 64))(picture((1, 1, 2, 2)))
