"""How far a build is, on a terminal; and a way to stop it. Importing this module imports `tensorrt`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import tensorrt as trt

from lensmount.errors import BackendError

Show = Callable[[str, int, int], None]
"""Called with a phase's name, the steps done and all of them."""


class Progress(trt.IProgressMonitor):
    """Hears of phases and steps from TensorRT's threads.

    Attributes:
        cancelled: Whether the user stopped the build (Ctrl-C reaches Python in one of these calls).
    """

    def __init__(self, show: Show) -> None:
        trt.IProgressMonitor.__init__(self)
        self._show = show
        self._steps: dict[str, int] = {}
        self._lock = threading.Lock()
        self.cancelled = False

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        """A phase begins."""
        self._tell(phase_name, 0, num_steps)

    def step_complete(self, phase_name: str, step: int) -> bool:
        """A step of a phase is done; False stops the build."""
        self._tell(phase_name, step + 1, None)
        return not self.cancelled

    def phase_finish(self, phase_name: str) -> None:
        """A phase has ended."""
        with self._lock:
            total = self._steps.get(phase_name, 0)
        self._tell(phase_name, total, None)

    def _tell(self, name: str, done: int, total: int | None) -> None:
        # An exception must not travel through TensorRT's frames.
        try:
            with self._lock:
                if total is not None:
                    self._steps[name] = total
                self._show(name, done, self._steps.get(name, done))
        except KeyboardInterrupt:
            self.cancelled = True
        except (OSError, ValueError, BackendError):
            return


@contextmanager
def progress_bar(title: str, progress: bool | None) -> Iterator[Show]:
    """A bar for each phase on standard error, or nothing.

    Args:
        title: Shown above.
        progress: True or False, or None for "when standard error is a terminal".
    """
    import sys

    show = sys.stderr.isatty() if progress is None else progress
    if not show:
        yield lambda name, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    console.print(title)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=console) as bars:

        def update(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            bars.update(tasks[name], completed=done, total=total)

        yield update
