"""Hooks of lensmount-yolo. Imports nothing but `lensmount.specs`."""

from __future__ import annotations

from collections.abc import Iterable

from lensmount.specs import Architecture, ModelCard, hookimpl, read_catalog


@hookimpl
def lensmount_architectures() -> Iterable[Architecture]:
    """The YOLO family: v5u, v8, v9, v10, 11, 12, 26."""
    yield Architecture(
        name="yolo",
        tasks=(
            "object-detection",
            "instance-segmentation",
            "keypoint-detection",
            "oriented-object-detection",
            "classification",
        ),
        factory="lensmount_yolo.build:build",
        network="lensmount_yolo.checkpoint:network",
        graph="lensmount_yolo.checkpoint:graph",
        recognise="lensmount_yolo.recognise:recognise",
        options="lensmount_yolo.options:LoadOptions",
        exporter="lensmount_yolo.export:export",
        float_nodes="lensmount_yolo.float_nodes:float_nodes",
        description="YOLO v5u, v8, v9, v10, 11, 12 and 26: boxes, masks, keypoints, oriented boxes, classes",
    )


@hookimpl
def lensmount_model_cards() -> Iterable[ModelCard]:
    """The cards of `catalog.toml`."""
    return read_catalog("lensmount_yolo")
