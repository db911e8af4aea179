"""Hooks of lensmount-testing. Imports nothing but `lensmount.specs`."""

from __future__ import annotations

from collections.abc import Iterable

from lensmount.specs import Command, hookimpl


@hookimpl
def lensmount_commands() -> Iterable[Command]:
    """Writing plugins."""
    yield Command(name="new-plugin", app="lensmount_testing.cli:new_plugin", help="Write a new plugin to start from.")
