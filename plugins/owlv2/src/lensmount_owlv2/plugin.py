"""Hooks of lensmount-owlv2. Imports nothing but `lensmount.specs`."""

from __future__ import annotations

from collections.abc import Iterable

from lensmount.specs import Architecture, ModelCard, hookimpl, read_catalog


@hookimpl
def lensmount_architectures() -> Iterable[Architecture]:
    """OWLv2."""
    yield Architecture(
        name="owlv2",
        tasks=("open-vocabulary-detection",),
        factory="lensmount_owlv2.model:build",
        network="lensmount_owlv2.checkpoint:network",
        graph="lensmount_owlv2.checkpoint:graph",
        recognise="lensmount_owlv2.recognise:recognise",
        options="lensmount_owlv2.options:LoadOptions",
        exporter="lensmount_owlv2.export:export",
        shared=True,
        description="OWLv2: detection from a few example boxes, from words, or from one picture",
    )


@hookimpl
def lensmount_model_cards() -> Iterable[ModelCard]:
    """The cards of `catalog.toml`."""
    return read_catalog("lensmount_owlv2")
