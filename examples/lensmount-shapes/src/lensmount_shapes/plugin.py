"""Hooks: one model card, whose weights lie in this package. The yolo plugin runs it."""

from __future__ import annotations

from collections.abc import Iterable

from lensmount.specs import ModelCard, hookimpl, read_catalog


@hookimpl
def lensmount_model_cards() -> Iterable[ModelCard]:
    """`shapes-nano`."""
    return read_catalog("lensmount_shapes")
