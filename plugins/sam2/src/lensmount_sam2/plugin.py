"""Hooks of lensmount-sam2. Imports nothing but `lensmount.specs`."""

from __future__ import annotations

from collections.abc import Iterable

from lensmount.specs import Architecture, ModelCard, hookimpl, read_catalog


@hookimpl
def lensmount_architectures() -> Iterable[Architecture]:
    """SAM 2 and SAM 2.1 (arXiv 2408.00714)."""
    yield Architecture(
        name="sam2",
        tasks=("interactive-segmentation", "video-segmentation"),
        factory="lensmount_sam2.model:build",
        network="lensmount_sam2.checkpoint:network",
        graph="lensmount_sam2.checkpoint:graph",
        recognise="lensmount_sam2.recognise:recognise",
        options="lensmount_sam2.options:LoadOptions",
        exporter="lensmount_sam2.export:export",
        description="SAM 2 and 2.1: masks from points, boxes and masks, in images and in live video",
    )


@hookimpl
def lensmount_model_cards() -> Iterable[ModelCard]:
    """The cards of `catalog.toml`."""
    return read_catalog("lensmount_sam2")
