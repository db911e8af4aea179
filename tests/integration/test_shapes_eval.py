"""The example's own weights, judged on the example's own scenes through the public evaluation."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("lensmount_shapes")
pytest.importorskip("lensmount_yolo")
pytest.importorskip("faster_coco_eval")
pytest.importorskip("onnxruntime")

from lensmount_bench.accuracy import evaluate


def test_shapes_nano_on_written_scenes(tmp_path):
    from lensmount_shapes.dataset import write

    truth = write(tmp_path, count=16)
    content = json.loads(truth.read_text())
    assert len(content["images"]) == 16
    assert min(annotation["area"] for annotation in content["annotations"]) > 0
    row = evaluate("shapes-nano", tmp_path / "images", truth, backends=["onnx"]).rows[0]
    assert row.failed == []
    assert row.boxes["AP"] > 0.85  # promised for 500 scenes; these 16 are the first of them
    assert row.masks["AP"] > 0.75
    assert set(row.classes) == {"circle", "square", "triangle", "star", "ring", "cross"}
