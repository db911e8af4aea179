"""Turns what torch raises into lensmount's errors."""

from __future__ import annotations

import re

from lensmount.errors import BackendError, DeviceError, DeviceMemoryError, LensmountError

MEMORY = re.compile(
    r"out of memory|can't allocate memory|not enough memory|CUDA_ERROR_OUT_OF_MEMORY|ALLOC_FAILED|bad_alloc"
    r"|Invalid buffer size",
    re.IGNORECASE,
)
DEVICE = re.compile(
    r"no kernel image is available|CUDA error|CUDA driver|cuDNN error|CUBLAS_STATUS"
    r"|not currently implemented for the MPS|Cannot convert a MPS Tensor",
    re.IGNORECASE,
)


def brief(error: BaseException) -> str:
    """The first lines of what torch said, without its stack of C++ frames and hints."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[:3]) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "…"


def is_memory(error: BaseException) -> bool:
    """Whether this says that memory ran out."""
    kind = type(error).__name__
    return kind == "OutOfMemoryError" or isinstance(error, MemoryError) or MEMORY.search(str(error)) is not None


def running(error: Exception, subject: str, device: str) -> LensmountError:
    """The error for a network that could not be placed, compiled or run; `subject` names it in words."""
    if is_memory(error):
        return DeviceMemoryError(
            f"{device!r} ran out of memory for {subject}",
            found=brief(error),
            fix="use a smaller batch, a smaller input size, precision='fp16' on a GPU, or a smaller model",
        )
    if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        return BackendError(f"torch cannot compile {subject}", found=brief(error), fix="load without compile=True")
    if DEVICE.search(str(error)):
        return DeviceError(f"{device!r} failed while running {subject}", found=brief(error), fix="lensmount doctor")
    return BackendError(
        f"torch failed to run {subject} on {device!r}",
        found=f"{type(error).__name__}: {brief(error)}",
        fix="lensmount doctor; or another backend: lensmount explain MODEL",
    )
