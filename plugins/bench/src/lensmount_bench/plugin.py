"""Hooks of lensmount-bench. Imports nothing but `lensmount.specs`."""

from __future__ import annotations

from collections.abc import Iterable

from lensmount.specs import Command, hookimpl


@hookimpl
def lensmount_commands() -> Iterable[Command]:
    """Commands that measure."""
    yield Command(name="bench", app="lensmount_bench.cli.bench:bench", help="Time models.")
    yield Command(name="tune", app="lensmount_bench.cli.tune:tune", help="Find what is fastest on this machine.")
    yield Command(
        name="eval", app="lensmount_bench.cli.evaluate:evaluate", help="Measure accuracy on a labelled dataset."
    )
