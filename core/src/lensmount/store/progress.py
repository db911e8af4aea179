"""A progress bar on a terminal, silence elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Meter(Protocol):
    """Told how far a download is."""

    def at(self, done: int, total: int | None) -> None:
        """`done` bytes of `total` are there."""


class _Silent:
    def at(self, done: int, total: int | None) -> None:
        return


@contextmanager
def meter(name: str, progress: bool | None) -> Iterator[Meter]:
    """A meter for one download.

    Args:
        name: Shown next to the bar.
        progress: True or False, or None for "when standard error is a terminal".
    """
    show = sys.stderr.isatty() if progress is None else progress
    if not show:
        yield _Silent()
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=None)

        class _Bar:
            def at(self, done: int, total: int | None) -> None:
                bar.update(task, completed=done, total=total)

        yield _Bar()
