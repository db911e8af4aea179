"""`shapes-nano` from its own package, through the public interface: right, and the same on both backends."""

from __future__ import annotations

import importlib.util
import sys
from importlib import resources

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("torch")
pytest.importorskip("lensmount_shapes")

from lensmount import registry
from lensmount_shapes.scenes import make_scene


@pytest.fixture(scope="module")
def models():
    return {backend: registry.load("shapes-nano", backend=backend) for backend in ("onnx", "torch")}


def test_both_compute_in_float32(models):
    assert {backend: model.precision for backend, model in models.items()} == {"onnx": "fp32", "torch": "fp32"}


@pytest.mark.parametrize("size", [(256, 256), (480, 320)])
def test_backends_agree(models, size):
    for index in range(5):
        picture = make_scene(17, index, *size).image
        first, second = (models[backend](picture)[0] for backend in ("onnx", "torch"))
        # The same float32 weights; the sums differ in order only.
        assert np.array_equal(first.class_id, second.class_id)
        assert np.abs(first.xyxy - second.xyxy).max() < 0.01
        assert np.abs(first.confidence - second.confidence).max() < 1e-4
        differing = (first.masks.dense() != second.masks.dense()).mean()
        assert differing < 1e-4


def test_finds_what_the_demo_picture_shows(models):
    picture = resources.files("lensmount_shapes") / "data" / "scene.jpg"
    found = models["onnx"](str(picture), confidence=0.25)[0]
    counts = {name: found.class_name.tolist().count(name) for name in ("circle", "star", "ring", "square", "triangle")}
    assert counts == {"circle": 2, "star": 4, "ring": 1, "square": 2, "triangle": 1}


def test_scores_of_held_out_scenes(models, workspace):
    pytest.importorskip("faster_coco_eval")
    path = workspace / "examples" / "lensmount-shapes" / "evaluate.py"
    spec = importlib.util.spec_from_file_location("shapes_evaluate", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    scores = module.evaluate("onnx", count=40)
    # All 500 give 0.926 and 0.855; 40 vary by about 0.02.
    assert scores["bbox"][0] > 0.88
    assert scores["segm"][0] > 0.80
