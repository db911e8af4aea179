"""Graphs with YOLO's outputs, as fixtures."""

from __future__ import annotations

import pytest

from yolo_graphs import NAMES, make_graph, raw_output


@pytest.fixture
def graph(tmp_path):
    """Writes graphs into the test's folder."""

    def make(outputs, name="model.onnx", **options):
        options.setdefault("metadata", {"names": NAMES, "task": "detect", "stride": "32", "imgsz": "[64, 64]"})
        return make_graph(tmp_path / name, outputs, **options)

    return make


@pytest.fixture
def raw():
    """`raw_output`."""
    return raw_output
