"""Hooks of lensmount-perception-encoder. Imports nothing but `lensmount.specs`."""

from __future__ import annotations

from collections.abc import Iterable

from lensmount.specs import Architecture, ModelCard, hookimpl, read_catalog


@hookimpl
def lensmount_architectures() -> Iterable[Architecture]:
    """Perception Encoder's PE-Core."""
    yield Architecture(
        name="perception_encoder",
        tasks=("embedding",),
        factory="lensmount_perception_encoder.model:build",
        network="lensmount_perception_encoder.model:network",
        graph="lensmount_perception_encoder.model:graph",
        recognise="lensmount_perception_encoder.recognise:recognise",
        options="lensmount_perception_encoder.options:LoadOptions",
        exporter="lensmount_perception_encoder.model:export",
        description="Perception Encoder (PE-Core): embeddings of pictures and texts in one space",
    )


@hookimpl
def lensmount_model_cards() -> Iterable[ModelCard]:
    """The cards of `catalog.toml`."""
    return read_catalog("lensmount_perception_encoder")
