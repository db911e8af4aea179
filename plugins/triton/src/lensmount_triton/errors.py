"""Turns what the client raises into lensmount's errors."""

from __future__ import annotations

import re

from lensmount.errors import BackendError, LensmountError, UnsupportedModelError

_ADDRESS = re.compile(r"https?://\S+")


def brief(error: BaseException) -> str:
    """One line of what the client or the server said."""
    said = getattr(error, "message", None)
    text = " ".join(str(said() if callable(said) else error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "…"


def unreachable(error: BaseException, server: str) -> BackendError:
    """The error for a server that does not answer."""
    return BackendError(
        f"the Triton server {server} does not answer",
        found=brief(error),
        expected="a server that is started and ready",
        fix="start it, or look at LENSMOUNT_TRITON_URL and LENSMOUNT_TRITON_TIMEOUT",
    )


def is_answer(error: BaseException) -> bool:
    """Whether a server answered at all: its refusals carry a status."""
    status = getattr(error, "status", None)
    return type(error).__name__ == "InferenceServerException" and bool(status() if callable(status) else status)


def running(error: BaseException, subject: str, server: str) -> LensmountError:
    """The error for a run that failed."""
    if not is_answer(error):
        return unreachable(error, server)
    return BackendError(f"the Triton server {server} cannot run {subject}", found=brief(error))


def loading(error: BaseException, subject: str, server: str) -> LensmountError:
    """The error for a graph that a server did not load."""
    if not is_answer(error):
        return unreachable(error, server)
    said = brief(error)
    if re.search(r"not (enabled|allowed|supported)|polling|explicit", said, re.IGNORECASE):
        return BackendError(
            f"the Triton server {server} takes no models from clients",
            found=said,
            fix="start it with --model-control-mode=explicit, or write the model into its repository: "
            "lensmount export MODEL --to triton DIR",
        )
    return UnsupportedModelError(f"the Triton server {server} cannot load {subject}", found=said)
