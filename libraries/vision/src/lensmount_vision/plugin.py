"""Hooks of lensmount-vision. Imports nothing but `lensmount.specs`."""

from __future__ import annotations

from collections.abc import Iterable

from lensmount.specs import Command, hookimpl


@hookimpl
def lensmount_commands() -> Iterable[Command]:
    """Commands on pictures, and the export of what runs on them."""
    yield Command(
        name="predict", app="lensmount_vision.cli.predict:predict", help="Find things in pictures and videos."
    )
    yield Command(name="track", app="lensmount_vision.cli.track:track", help="Follow objects through a video.")
    yield Command(
        name="few-shot", app="lensmount_vision.cli.few_shot:few_shot", help="Find what a few example boxes show."
    )
    yield Command(name="embed", app="lensmount_vision.cli.embed:embed", help="Write the vectors of pictures or texts.")
    yield Command(
        name="search", app="lensmount_vision.cli.search:search", help="Search pictures by words or by a picture."
    )
    yield Command(
        name="export",
        app="lensmount_vision.cli.export:export",
        help="Export a model to another format, or build an engine from it.",
    )
