"""What a client is told when something fails: a status, one sentence, no path and no key of ours."""

from __future__ import annotations

import re

from lensmount.errors import (
    AmbiguousModelError,
    ArtifactNotFoundError,
    AuthenticationError,
    ClosedError,
    DeviceMemoryError,
    InputError,
    LensmountError,
    MissingDependencyError,
    ModelNotFoundError,
    NoPackageError,
    OfflineError,
    SourceError,
    UnknownOptionError,
    UnsupportedModelError,
)

#: Absolute paths of either kind of system, which texts of errors may quote.
_PATHS = re.compile(r"(?<![\w:/.])(?:file://)?(?:[A-Za-z]:[\\/]|/)(?:[^\s/\\'\",;:]+[\\/])+[^\s'\",;:]*")
_STATUS: tuple[tuple[type[LensmountError], int], ...] = (
    (InputError, 400),
    (UnknownOptionError, 400),
    (ModelNotFoundError, 404),
    (AmbiguousModelError, 404),
    (ArtifactNotFoundError, 502),
    (AuthenticationError, 502),
    (OfflineError, 503),
    (SourceError, 502),
    (MissingDependencyError, 501),
    (NoPackageError, 501),
    (UnsupportedModelError, 501),
    (DeviceMemoryError, 507),
    (ClosedError, 503),
)


class AnswerError(Exception):
    """An answer that is no result.

    Args:
        status: HTTP status.
        message: One sentence for the client.
        retry_after: Seconds after which the same request may succeed.
    """

    def __init__(self, status: int, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after = retry_after


def failure_of(error: BaseException) -> AnswerError:
    """What a client is told of any error; the whole of it is for the server's log."""
    if isinstance(error, AnswerError):
        return error
    if isinstance(error, LensmountError):
        status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
        if status in (400, 404):
            return AnswerError(status, _told(error))
        told = "it was closed while the request waited; send it again" if status == 503 else "the server's log says why"
        name = type(error).__name__
        return AnswerError(
            status, f"the model cannot answer ({name}): {told}", retry_after=1 if status == 503 else None
        )
    return AnswerError(500, "the server failed; its log says why")


def _told(error: LensmountError) -> str:
    parts = [error.problem]
    parts += [f"{label}: {text}" for label, text in (("found", error.found), ("expected", error.expected)) if text]
    return without_paths("; ".join(parts))[:1000]


def without_paths(text: str) -> str:
    """A text in which absolute paths are replaced by `…`."""
    return _PATHS.sub("…", text)
