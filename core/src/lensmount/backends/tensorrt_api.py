"""TensorRT itself: importing it, its log, and its element types."""

from __future__ import annotations

import re
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from lensmount.errors import MissingDependencyError

if TYPE_CHECKING:
    import tensorrt

INSTALL = 'pip install "lensmount[tensorrt]"'
OLDEST = (10, 1)
NEWEST_MAJOR = 11

DTYPES = {
    "FLOAT": ("float32", "float32"),
    "HALF": ("float16", "float16"),
    "BF16": ("uint16", "float32"),
    "FP8": ("uint8", "float32"),
    "INT8": ("int8", "int8"),
    "UINT8": ("uint8", "uint8"),
    "INT32": ("int32", "int32"),
    "INT64": ("int64", "int64"),
    "BOOL": ("bool", "bool"),
}
"""By TensorRT's name: the numpy type whose bits the device holds, and the one that callers see.

numpy has no bfloat16 and no float8: they are seen as float32. Types of less than a byte (INT4, FP4) are none of ours.
"""


def numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: `10.3.0.30` is `(10, 3, 0, 30)`."""
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0]))


def why_unsupported(version: str) -> str | None:
    """Why a version of TensorRT is none that this backend runs on; None if it is."""
    found = numbers(version)
    if found[:2] < OLDEST:
        return f"TensorRT {version} is too old: {OLDEST[0]}.{OLDEST[1]} or newer is needed"
    if found[0] > NEWEST_MAJOR:
        return f"TensorRT {version} is newer than this backend knows: 10 and 11 are supported"
    return None


def load() -> Any:
    """The module `tensorrt`.

    Raises:
        MissingDependencyError: It is not installed, cannot be imported, or is of a version that is not supported.
    """
    try:
        import tensorrt
    except ModuleNotFoundError as error:
        raise MissingDependencyError("the tensorrt backend needs TensorRT", found=str(error), fix=INSTALL) from error
    except (ImportError, OSError) as error:
        raise MissingDependencyError(
            "TensorRT is installed but cannot be imported",
            found=str(error),
            fix=f"lensmount doctor; {INSTALL}",
        ) from error
    problem = why_unsupported(tensorrt.__version__)
    if problem:
        raise MissingDependencyError(problem, fix='pip install "tensorrt>=10.1,<12"')
    return tensorrt


class Log:
    """What TensorRT logs, kept until somebody asks why a call failed.

    Attributes:
        logger: The `tensorrt.ILogger` to hand to TensorRT; it has to live as long as what was made with it.
    """

    def __init__(self, trt: Any) -> None:
        self._kept: deque[str] = deque(maxlen=32)
        self._lock = threading.Lock()
        self.logger = _logger(trt, self)

    def keep(self, message: str) -> None:
        """Adds a message."""
        with self._lock:
            self._kept.append(message)

    def take(self) -> list[str]:
        """The errors since the last time, oldest first."""
        with self._lock:
            kept = list(self._kept)
            self._kept.clear()
        return kept


def _logger(trt: Any, log: Log) -> tensorrt.ILogger:
    """A logger that keeps errors and lets the rest go: TensorRT warns of much that nobody can change."""
    grave = int(trt.ILogger.Severity.ERROR)

    class Logger(trt.ILogger):  # type: ignore[misc]  # the base is known at run time only
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: tensorrt.ILogger.Severity, msg: str) -> None:
            if int(severity) <= grave:
                log.keep(msg)

    made: tensorrt.ILogger = Logger()
    return made
