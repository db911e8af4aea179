"""Hooks of lensmount-clip. Imports nothing but `lensmount.specs`."""

from __future__ import annotations

from collections.abc import Iterable

from lensmount.specs import Architecture, ModelCard, hookimpl, read_catalog


@hookimpl
def lensmount_architectures() -> Iterable[Architecture]:
    """CLIP: OpenAI's models, and open_clip's of the same networks."""
    yield Architecture(
        name="clip",
        tasks=("embedding",),
        factory="lensmount_clip.model:build",
        network="lensmount_clip.model:network",
        graph="lensmount_clip.model:graph",
        recognise="lensmount_clip.recognise:recognise",
        options="lensmount_clip.options:LoadOptions",
        exporter="lensmount_clip.model:export",
        description="CLIP: embeddings of pictures and texts in one space (ViT and modified ResNet)",
    )


@hookimpl
def lensmount_model_cards() -> Iterable[ModelCard]:
    """The cards of `catalog.toml`."""
    return read_catalog("lensmount_clip")
