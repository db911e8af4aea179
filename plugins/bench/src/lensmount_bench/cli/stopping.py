"""What `bench`, `eval` and `tune` show while they measure, and what they say when Ctrl-C ends them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console


@contextmanager
def measuring(console: Console, what: str, *columns: Any, begun: int = 0) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar, on terminals; gives what a measurement calls with a text, how far it is, and how far it goes.

    Args:
        console: Where to.
        what: What is counted, in the plural.
        *columns: Columns of rich's progress bar; none for its own.
        begun: How many of those told of are only begun.

    Raises:
        typer.Exit: With status 130, where Ctrl-C ended it: half a measurement is none, so that nothing is written.
    """
    from rich.progress import Progress

    state = ("", 0, 0)
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("", total=None)

        def tell(text: str, done: int, total: int) -> None:
            nonlocal state
            state = (text, max(done - begun, 0), total)
            progress.update(task, description=text, completed=state[1], total=total)

        try:
            yield tell
            return
        except KeyboardInterrupt:
            pass
    text, done, total = state
    far = f" after {done} of {total} {what}" if total else ""
    said = f"stopped{far}{f' ({text})' if text else ''}; no report was written"
    console.print(said, markup=False, soft_wrap=True)
    raise typer.Exit(130)
