"""What LiteRT prints while it opens a graph, kept from the user's terminal."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Iterator

_NOTES = (b"INFO: ", b"VERBOSE: ")
_one_at_a_time = threading.Lock()


@contextlib.contextmanager
def without_notes() -> Iterator[None]:
    """Holds back what is written to standard error, and passes on all but LiteRT's notes afterwards.

    LiteRT writes them (`INFO: Created TensorFlow Lite XNNPACK delegate for CPU.`) below Python, and has no setting.
    What other threads write meanwhile comes some milliseconds later.
    """
    with _one_at_a_time, contextlib.ExitStack() as stack:
        try:
            kept = os.dup(2)
        except OSError:  # a process without standard error
            yield
            return
        stack.callback(os.close, kept)
        said = stack.enter_context(tempfile.TemporaryFile())
        with contextlib.suppress(AttributeError, OSError, ValueError):
            sys.stderr.flush()
        os.dup2(said.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            said.seek(0)
            other = b"".join(line for line in said if not line.startswith(_NOTES))
            with contextlib.suppress(OSError):
                while other:
                    other = other[os.write(2, other) :]
