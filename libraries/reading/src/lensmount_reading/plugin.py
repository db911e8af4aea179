"""Hooks of lensmount-reading. Imports nothing but `lensmount.specs`."""

from __future__ import annotations

from collections.abc import Iterable

from lensmount.specs import Command, Reader, hookimpl


@hookimpl
def lensmount_readers() -> Iterable[Reader]:
    """Single files, and folders without a marker (transformers' layout)."""
    yield Reader(
        name="bare", read="lensmount_reading.recognise:read", description="a model file, recognised by its content"
    )


@hookimpl
def lensmount_commands() -> Iterable[Command]:
    """Commands on model files."""
    yield Command(
        name="inspect", app="lensmount_reading.cli:inspect", help="Show what a model file holds; nothing in it is run."
    )
    yield Command(
        name="convert", app="lensmount_reading.cli:convert", help="Write the tensors of a checkpoint as safetensors."
    )
