"""`optimize_for_inference`: the other form takes the plain model's place only where it gives the same."""

from __future__ import annotations

import numpy as np
import pytest

from lensmount import AutoModel
from lensmount.errors import OptionError
from lensmount_vision.moving import DetectorView
from lensmount_vision.moving.optimizing import compare, precision_of
from lensmount_vision.results import Detections


def scene():
    """BGR: a red square and a blue circle."""
    picture = np.full((240, 320, 3), 40, np.uint8)
    picture[40:120, 40:120] = (20, 20, 220)
    rows, columns = np.mgrid[:240, :320]
    picture[(rows - 160) ** 2 + (columns - 230) ** 2 < 45**2] = (220, 60, 20)
    return picture


def test_an_export_takes_the_place_and_is_undone(capsys):
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    with AutoModel.from_pretrained("shapes-nano", backend="torch", device="cpu") as model:
        before = model(scene())[0]
        made = model.optimize_for_inference(compile=False, pictures=[scene()], runs=2)
        assert made.kept and made.objects >= 2 and model.backend == "onnx"
        assert "p50 ms" in capsys.readouterr().out
        assert np.allclose(np.asarray(model(scene())[0].xyxy), np.asarray(before.xyxy), atol=1)
        with pytest.raises(OptionError, match="optimised already"):
            model.optimize_for_inference(compile=False, pictures=[scene()])
        model.undo()
        assert model.backend == "torch" and np.array_equal(np.asarray(model(scene())[0].xyxy), np.asarray(before.xyxy))
        model.undo()
        other = model.optimize_for_inference(compile=False, pictures=[np.zeros((64, 64, 3), np.uint8)], runs=1)
        assert not other.kept and model.backend == "torch", "nothing was compared, and it was kept"
        assert "not kept" in str(other)


class Fixed:
    """Answers with one box of each score."""

    def __init__(self, shift=0.0, score=0.0, classes=(0, 1)):
        self.shift, self.score, self.classes = shift, score, classes

    def __call__(self, picture, confidence=0.5):
        boxes = np.float32([[10, 10, 50, 50], [60, 60, 90, 90]]) + np.float32(self.shift)
        found = Detections(
            xyxy=boxes, confidence=np.float32([0.9, 0.5]) - np.float32(self.score), class_id=self.classes,
            class_names=("a", "b"), image_size=(100, 100),
        )  # fmt: skip
        return [found[found.confidence >= confidence]]


@pytest.mark.parametrize(
    ("other", "kept"),
    [
        (Fixed(), True),
        (Fixed(shift=0.9, score=0.009), True),
        (Fixed(shift=1.2), False),
        (Fixed(score=0.02), False),
        (Fixed(classes=(0, 0)), False),
        (Fixed(shift=40), False),
    ],
)
def test_it_is_kept_within_the_limits_alone(other, kept):
    made = compare(Fixed(), other, ["picture"], how="compile", runs=3, pixels=1.0, scores=0.01)
    assert made.kept is kept
    assert compare(other, Fixed(), ["picture"], how="compile", runs=3, pixels=1.0, scores=0.01).kept is kept


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(OptionError, match="cannot be optimised"):
        DetectorView(Fixed()).optimize_for_inference(pictures=["picture"])
    view = DetectorView(Fixed())
    view.loaded_with = ("x", {})
    with pytest.raises(OptionError, match="not possible"):
        view.optimize_for_inference(pictures=[])
    with pytest.raises(OptionError, match="runs"):
        view.optimize_for_inference(pictures=["picture"], runs=0)


def test_dtypes_are_precisions():
    torch = pytest.importorskip("torch")
    assert [precision_of(value) for value in (None, torch.float16, "bf16", torch.float32)] == [
        None,
        "fp16",
        "bf16",
        "fp32",
    ]
    with pytest.raises(OptionError, match="dtype"):
        precision_of("int4")
