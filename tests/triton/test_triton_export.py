"""Model repositories: written, parsed by the published protobuf, served, and the same results as here."""

from __future__ import annotations

import numpy as np
import pytest

import lensmount
from lensmount.errors import OptionError, UnsupportedModelError
from yolo_graphs import make_graph, raw_output


@pytest.fixture
def yolo(tmp_path):
    pytest.importorskip("lensmount_yolo")
    rows = [(32, 32, 20, 20, 0, 0.9), (10, 12, 8, 8, 1, 0.7)]
    metadata = {"names": "{0: 'cat', 1: 'dog', 2: 'bird'}", "task": "detect", "stride": "32", "imgsz": "[64, 64]"}
    return make_graph(tmp_path / "pets.onnx", {"output0": raw_output(rows)}, metadata=metadata)


def test_written_served_and_equal(yolo, triton, tmp_path, monkeypatch):
    monkeypatch.setenv("LENSMOUNT_TRITON_UPLOAD", "0")
    repository = lensmount.registry.export(
        yolo, to="triton", output=tmp_path / "models", settings={"model_name": "pets-v2"}
    )
    assert sorted(str(path.relative_to(repository)) for path in repository.rglob("*") if path.is_file()) == [
        "pets-v2/1/model.onnx",
        "pets-v2/config.pbtxt",
    ]
    triton.add_repository(repository)
    pictures = [np.full((48, 64, 3), value, np.uint8) for value in (0, 90)]
    there = lensmount.registry.load(yolo, backend="triton")(pictures)
    here = lensmount.registry.load(yolo, backend="onnx", device="cpu")(pictures)
    assert triton.batches
    for ours, own in zip(there, here, strict=True):
        np.testing.assert_array_equal(ours.xyxy, own.xyxy)
        np.testing.assert_array_equal(ours.confidence, own.confidence)
        assert list(ours.class_name) == list(own.class_name)


def test_it_is_never_chosen_by_itself(yolo, triton):
    assert lensmount.registry.load(yolo).backend != "triton"


def test_nothing_is_overwritten(yolo, tmp_path):
    lensmount.registry.export(yolo, to="triton", output=tmp_path / "models")
    before = {path: path.read_bytes() for path in (tmp_path / "models").rglob("*") if path.is_file()}
    with pytest.raises(OptionError, match="is there already"):
        lensmount.registry.export(yolo, to="triton", output=tmp_path / "models")
    assert {path: path.read_bytes() for path in (tmp_path / "models").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "settings",
    [{"model_name": "../up"}, {"model_name": 3}, {"max_batch_size": 0}, {"max_queue_delay_us": -1}],
)
def test_settings_that_are_not_valid(settings, yolo, tmp_path):
    with pytest.raises(OptionError):
        lensmount.registry.export(yolo, to="triton", output=tmp_path / "models", settings=settings)
    assert not (tmp_path / "models").exists()


def test_a_setting_that_nobody_knows_goes_to_the_export_of_the_architecture(yolo, tmp_path):
    """It is refused there by name; a model that only is a graph has no such export."""
    with pytest.raises(UnsupportedModelError, match="cannot be exported"):
        lensmount.registry.export(yolo, to="triton", output=tmp_path / "models", settings={"depth": 1})
    assert not (tmp_path / "models").exists()


def test_a_precision_that_is_not_there(yolo, tmp_path):
    with pytest.raises(UnsupportedModelError, match="nothing that Triton runs in fp16"):
        lensmount.registry.export(yolo, to="triton", precision="fp16", output=tmp_path / "models")
