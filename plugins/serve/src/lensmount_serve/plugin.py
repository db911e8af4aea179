"""Hooks of lensmount-serve. Imports nothing but `lensmount.specs`."""

from __future__ import annotations

from collections.abc import Iterable

from lensmount.specs import Command, hookimpl


@hookimpl
def lensmount_commands() -> Iterable[Command]:
    """The server."""
    yield Command(name="serve", app="lensmount_serve.command:serve", help="Answer requests over HTTP.")
