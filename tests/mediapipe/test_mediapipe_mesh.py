"""Points of faces: which part of a picture the network sees, and the way back from it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from lensmount import registry
from lensmount.errors import InputError, ModelFileError, OfflineError
from lensmount_mediapipe.decoding import LANDMARKS
from lensmount_mediapipe.mesh import MESH_SIDE, cut, square
from lensmount_vision.results import Keypoints
from tiny_faces import tiny_face, tiny_mesh

pytest.importorskip("onnxruntime")


def faces(size, *boxes, turn=0.0):
    """What a detector gives: eyes level, or turned about the middle of the box by degrees."""
    table = np.array(boxes, np.float32).reshape(-1, 4)
    points = np.zeros((len(table), 6, 2), np.float32)
    reach = (table[:, 2:] - table[:, :2]).max(axis=1, initial=0) / 4
    along = np.array([np.cos(np.radians(turn)), np.sin(np.radians(turn))])
    middle = (table[:, :2] + table[:, 2:]) / 2
    points[:, 0], points[:, 1] = middle - reach[:, None] * along, middle + reach[:, None] * along
    return Keypoints(
        xyxy=table,
        confidence=np.ones(len(table)),
        class_id=np.zeros(len(table), int),
        class_names=("face",),
        image_size=size,
        keypoints=points,
        keypoint_names=LANDMARKS,
    )


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(tiny_mesh())
    with registry.load(path, backend="onnx") as made:
        yield made


@pytest.mark.parametrize("turn", [0, 30, -75, 180])
@pytest.mark.parametrize("side", [40, 128, 400])
def test_a_point_of_the_picture_comes_back(side, turn):
    """A bright spot is where the map says, in the network's pixels, however the face is turned and large."""
    picture = np.zeros((700, 800, 3), np.uint8)
    box = (400 - side / 2, 350 - side / 2, 400 + side / 2, 350 + side / 2)
    found = faces((700, 800), box, turn=turn)
    matrix = square(found.xyxy[0], found.keypoints[0, :2].astype(np.float64))
    radius = max(2, side // 20)
    spot = (int(400 + side * 0.4), int(350 - side * 0.2))
    cv2.circle(picture, spot, radius, (255, 255, 255), -1)
    seen = cut(picture, matrix)[..., 0].astype(np.float64)
    assert seen.shape == (MESH_SIDE, MESH_SIDE)
    y, x = np.mgrid[:MESH_SIDE, :MESH_SIDE] + 0.5
    at = np.array([(x * seen).sum(), (y * seen).sum()]) / seen.sum()
    np.testing.assert_allclose(matrix[:, :2] @ at + matrix[:, 2], np.add(spot, 0.5), atol=0.1 + side / 2000)
    eyes = np.linalg.inv(matrix[:, :2]) @ (found.keypoints[0, :2].astype(np.float64) - matrix[:, 2]).T
    assert abs(eyes[1, 0] - eyes[1, 1]) < 1e-3 and eyes[0, 0] < eyes[0, 1]  # level, right eye at the left


def test_a_face_outside_the_picture_is_black():
    matrix = square(np.array([900.0, 900, 950, 950]), np.array([[910.0, 920], [940, 920]]))
    assert not cut(np.full((100, 100, 3), 255, np.uint8), matrix).any()


def test_each_face_has_its_points(model):
    picture = np.zeros((300, 500, 3), np.uint8)
    picture[:150, :250] = 220
    picture[150:, 250:] = 255
    given = faces((300, 500), (80, 40, 160, 120), (330, 190, 410, 270), (400, 20, 440, 60))
    (result,) = model(picture, faces=[given])
    assert result.keypoints.shape == (2, 468, 2)  # the third is dark
    for row, box in enumerate(result.xyxy):
        np.testing.assert_allclose(box[:2], result.keypoints[row].min(axis=0), atol=1e-3)
    assert result.keypoints[0, :, 0].max() < 250 < result.keypoints[1, :, 0].min()
    none, one = model([picture, picture], faces=[given[:0], given[:1]])
    assert none.keypoints.shape == (0, 468, 2) and len(one) == 1


def test_faces_that_do_not_fit(model):
    picture = np.full((100, 100, 3), 200, np.uint8)
    good = faces((100, 100), (20, 20, 80, 80))
    with pytest.raises(InputError, match="do not fit the pictures"):
        model(picture, faces=[good, good])
    with pytest.raises(InputError, match="another picture"):
        model(picture, faces=[faces((90, 100), (20, 20, 80, 80))])
    mesh = model(picture)[0]
    assert len(mesh) == 1
    with pytest.raises(InputError, match="right_eye"):
        model(picture, faces=[mesh])


def test_a_graph_of_something_else_is_refused(tmp_path):
    path = tmp_path / "other.tflite"
    path.write_bytes(tiny_face())
    with pytest.raises(ModelFileError):
        registry.load(path, architecture="facemesh", backend="onnx")


def test_a_turned_photograph():
    """The real file: the points of a face that is turned by 40 degrees are those of the straight one, turned."""
    from pathlib import Path

    photograph = cv2.imread(str(Path(__file__).resolve().parents[2] / "docs/pictures/photographs/face.jpg"))
    try:
        detector = registry.load("mediapipe/face-full", backend="onnx", offline=True)
        mesh = registry.load("mediapipe/face-landmarks", backend="onnx", offline=True)
    except OfflineError:
        pytest.skip("`lensmount pull mediapipe/face-full mediapipe/face-landmarks` brings the files")
    turn = cv2.getRotationMatrix2D((166, 120), 40, 1)
    turn[:, 2] += (30, 60)
    turned = cv2.warpAffine(photograph, turn, (400, 400))
    straight, other = mesh([photograph, turned], faces=detector([photograph, turned]))
    wanted = straight.keypoints[0] @ turn[:, :2].T + turn[:, 2]
    assert np.abs(other.keypoints[0] - wanted).mean() < 2
    np.testing.assert_allclose(straight.keypoints[0, 1], (164, 131), atol=8)  # point 1 is the tip of the nose
