"""Exported graphs give what the network gives, also where torch is not installed."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from lensmount import registry
from lensmount.errors import InputError, ModelFileError, OptionError, UnsupportedModelError

WITHOUT_TORCH = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers", "safetensors"):
            raise ImportError(name + " is not installed")

sys.meta_path.insert(0, Refuse())
from lensmount import registry

folder, image, saved = sys.argv[1:]
data = [{"image": image, "boxes": [{"x": 50, "y": 50, "w": 40, "h": 40, "cls": "a"}]}]
with registry.load(folder, backend="onnx") as model:
    print(len(model(image, classes=["a cat"], confidence=0.0)[0]))
    detector = model.fit(data, on_unmatched="nearest", confidence=0.5)
    print(len(detector(image)[0]))
    detector.save(saved)
with registry.load(saved) as detector:
    print(len(detector(image)[0]))
print("torch" in sys.modules)
"""


@pytest.fixture(scope="module")
def exported(tiny, tmp_path_factory):
    return registry.export(tiny, output=tmp_path_factory.mktemp("export") / "owl")


def test_parity_of_backends(model, exported, pictures):
    data = [{"image": pictures[0], "boxes": [{"x": 60, "y": 40, "w": 60, "h": 60, "cls": "a"}]}]
    with registry.load(exported, backend="onnx") as other:
        assert other.backend == "onnx" and other.network == model.network
        for count in (1, 3):
            batch, _ = model.preprocess(pictures[:count])
            for name, value in model.forward(batch).items():
                assert np.abs(other.forward(batch)[name] - value).max() <= 1e-4 * max(1.0, float(np.ptp(value))), name
        words = ["a cat", "a considerably longer text", "dog"]
        assert np.abs(model.embed_text(words) - other.embed_text(words)).max() <= 1e-5
        for call in (
            lambda m: m(pictures, classes=words, confidence=0.0),
            lambda m: m.infer(pictures, data, confidence=0.6, on_unmatched="nearest", iou_threshold=0.2),
        ):
            for one, two in zip(call(model), call(other), strict=True):
                assert len(one) == len(two) and np.abs(one.confidence - two.confidence).max(initial=0) <= 1e-4
                # Equal scores may change places.
                rows = [np.abs(two.xyxy - box).max(axis=1).min() for box in one.xyxy]
                assert max(rows, default=0) <= 0.05


def test_a_detector_moves_between_backends(model, exported, pictures, tmp_path):
    data = [{"image": pictures[0], "boxes": [{"x": 60, "y": 40, "w": 60, "h": 60, "cls": "a"}]}]
    saved = tmp_path / "saved"
    with registry.load(exported, backend="onnx") as other:
        other.fit(data, on_unmatched="nearest", confidence=0.6).save(saved)
    one = model.fit(data, on_unmatched="nearest", confidence=0.6)
    with registry.load(saved) as two:
        assert two.backend == "onnx" and two.card.base == str(exported)
        assert abs(len(one(pictures[1])[0]) - len(two(pictures[1])[0])) <= 1


def test_without_torch(exported, pictures, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(exported), str(pictures[0]), str(tmp_path / "saved")],
        # The device's way is torch's: whoever asks for it for all tests does not mean this one.
        env={**os.environ, "LENSMOUNT_DEVICE_PATH": ""}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    words, fitted, loaded, torch = done.stdout.split()
    assert int(words) > 5 and int(fitted) == int(loaded) > 0 and torch == "False"


def test_refusals(tiny, exported, tmp_path):
    with pytest.raises(UnsupportedModelError, match="fp32"):
        registry.export(tiny, output=tmp_path / "a", precision="fp16")
    with pytest.raises(OptionError, match="no settings"):
        registry.export(tiny, output=tmp_path / "b", settings={"nms": "embedded"})
    with pytest.raises(InputError, match="there already"):
        registry.export(tiny, output=exported)
    with pytest.raises(ModelFileError, match="one part of an exported"):
        registry.load(exported / "image.onnx")
    assert list(tmp_path.iterdir()) == [] or [p.name for p in tmp_path.iterdir()] == ["home"]
