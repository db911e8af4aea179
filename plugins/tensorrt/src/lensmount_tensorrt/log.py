"""What TensorRT logs, kept until somebody asks why a call failed. Importing this module imports `tensorrt`."""

from __future__ import annotations

import threading
from collections import deque

import tensorrt as trt


class Log(trt.ILogger):
    """Keeps errors and lets the rest go: TensorRT warns of much that nobody can change.

    It has to live as long as what was made with it.
    """

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self._kept: deque[str] = deque(maxlen=32)
        self._lock = threading.Lock()

    def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
        """Called by TensorRT, from any thread."""
        if int(severity) <= int(trt.ILogger.Severity.ERROR):
            with self._lock:
                self._kept.append(msg)

    def take(self) -> list[str]:
        """The errors since the last time, oldest first."""
        with self._lock:
            kept = list(self._kept)
            self._kept.clear()
        return kept
