"""The real files, where `lensmount pull` has brought them: faces, and the same numbers on both backends."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest

from lensmount import registry
from lensmount.errors import OfflineError

pytest.importorskip("onnxruntime")

PHOTOGRAPHS = Path(__file__).resolve().parents[2] / "docs/pictures/photographs"
MODELS = ("full", "full-sparse", "short", "back")


@pytest.fixture
def load():
    models = []

    def load_(name, **options):
        try:
            models.append(registry.load(f"mediapipe/face-{name}", offline=True, **options))
        except OfflineError:
            pytest.skip(f"`lensmount pull mediapipe/face-{name}` brings its file")
        return models[-1]

    yield load_
    for model in models:
        model.close()


@pytest.mark.parametrize("name", MODELS)
def test_a_photograph(name, load):
    (result,) = load(name, backend="onnx")(PHOTOGRAPHS / "face.jpg")
    assert len(result) == 1 and result.confidence[0] > 0.85
    np.testing.assert_allclose(result.xyxy[0], (112, 68, 218, 176), atol=12)
    points = dict(zip(result.keypoint_names, result.keypoints[0], strict=True))
    wanted = {
        "right_eye": (144, 102), "left_eye": (189, 105), "nose_tip": (164, 129), "mouth_center": (164, 148),
        "right_ear_tragion": (121, 108), "left_ear_tragion": (212, 112),
    }  # fmt: skip
    for name_, place in wanted.items():
        np.testing.assert_allclose(points[name_], place, atol=8, err_msg=name_)


def test_the_documentations_picture(load):
    (result,) = load("full", backend="onnx")(PHOTOGRAPHS / "face.jpg")
    kept = cv2.imread(str(PHOTOGRAPHS / "face-found.jpg"))
    drawn = result.draw(PHOTOGRAPHS / "face.jpg")
    assert np.abs(drawn.astype(np.int16) - kept.astype(np.int16)).mean() < 3  # JPEG's own losses


def test_two_faces(load, reference_data):
    (result,) = load("full", backend="onnx")(reference_data / "images/zidane.jpg")
    np.testing.assert_allclose(result.confidence, (0.84, 0.6), atol=0.03)


@pytest.mark.parametrize("name", MODELS)
def test_both_backends_agree(name, load):
    """Outputs within 2e-4 of their range, boxes and points within a pixel, on pictures of all sizes."""
    if find_spec("ai_edge_litert") is None:
        pytest.skip("needs LiteRT")
    one, other = (load(name, backend=backend, threads=1) for backend in ("onnx", "litert"))
    photograph, rng = cv2.imread(str(PHOTOGRAPHS / "face.jpg")), np.random.default_rng(0)
    faces = 0
    for _ in range(25):
        x, y = rng.integers(0, 100), rng.integers(0, 60)
        crop = photograph[y : y + rng.integers(120, 300), x : x + rng.integers(120, 260)]
        picture = cv2.resize(crop, None, fx=rng.uniform(0.3, 2), fy=rng.uniform(0.3, 2))
        batch, geometries = one.preprocess(picture)
        raw, also = one.forward(batch), other.forward(batch)
        for key, values in raw.items():
            assert np.abs(values - also[key]).max() <= 2e-4 * np.ptp(values)
        (a,), (b,) = one.postprocess(raw, geometries), other.postprocess(also, geometries)
        assert len(a) == len(b)
        np.testing.assert_allclose(a.xyxy, b.xyxy, atol=1)
        np.testing.assert_allclose(a.keypoints, b.keypoints, atol=1)
        faces += len(a)
    assert faces > 10
