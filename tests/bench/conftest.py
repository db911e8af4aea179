"""Graphs with YOLO's outputs, as fixtures."""

from yolo_graphs import graph, raw  # noqa: F401 - fixtures
