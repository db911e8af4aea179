"""Hooks of lensmount-rfdetr. Imports nothing but `lensmount.specs`."""

from __future__ import annotations

from collections.abc import Iterable

from lensmount.specs import Architecture, ModelCard, hookimpl, read_catalog


@hookimpl
def lensmount_architectures() -> Iterable[Architecture]:
    """RF-DETR."""
    yield Architecture(
        name="rfdetr",
        tasks=("object-detection", "instance-segmentation"),
        factory="lensmount_rfdetr.model:build",
        network="lensmount_rfdetr.checkpoint:network",
        graph="lensmount_rfdetr.checkpoint:graph",
        recognise="lensmount_rfdetr.recognise:recognise",
        options="lensmount_rfdetr.options:LoadOptions",
        exporter="lensmount_rfdetr.export:export",
        description="RF-DETR: object detection and instance segmentation without suppression",
    )


@hookimpl
def lensmount_model_cards() -> Iterable[ModelCard]:
    """The cards of `catalog.toml`."""
    return read_catalog("lensmount_rfdetr")
