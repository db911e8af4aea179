"""Turns what onnxruntime raises into lensmount's errors."""

from __future__ import annotations

import re

from lensmount.errors import (
    BackendError,
    DeviceError,
    DeviceMemoryError,
    LensmountError,
    ModelFileError,
    UnsafeFileError,
    UnsupportedModelError,
)

UPGRADE = "pip install --upgrade onnxruntime"

MEMORY = re.compile(
    r"out of memory|failed to allocate memory|CUDA_ERROR_OUT_OF_MEMORY|ALLOC_FAILED|bad_alloc|bad allocation"
    r"|not enough memory|cudaErrorMemoryAllocation|available memory of"
    r"|darray != nullptr",
    re.IGNORECASE,
)
NO_COPY = "darray != nullptr"  # said to be about contiguity: what failed is the copy of an array that is not contiguous
DEVICE = re.compile(
    r"CUDA failure|CUDNN failure|CUBLAS failure|invalid device ordinal|no CUDA-capable device|CUDA driver"
    r"|libcud\w+|libcublas|onnxruntime_providers_(cuda|tensorrt)",
    re.IGNORECASE,
)
TOO_NEW = re.compile(
    r"unsupported model IR version|opset \d+ is under development|is not supported.{0,80}opset"
    r"|only \*guarantees\* support for models stamped with official",
    re.IGNORECASE,
)
OPERATOR = re.compile(
    r"is not a registered function/op|No Op registered for|Could not find an implementation for ([\w.]+)"
    r"|No schema registered for",
    re.IGNORECASE,
)
OUTSIDE = re.compile(r"escapes model directory|Absolute path not allowed for external data", re.IGNORECASE)

NOISE = re.compile(
    r"\[ONNXRuntimeError\] : \d+ : \w+ : |Load model from .*? failed:|\S+\.(?:cc|h|cpp):\d+ .*?\)(?: const)? "
)
"""Status codes, paths, and C++ signatures in onnxruntime's messages."""


def brief(error: BaseException) -> str:
    """One line of what onnxruntime said, without its source files and signatures."""
    text = NOISE.sub("", " ".join(str(error).split())).strip()
    return text if len(text) <= 300 else text[:297] + "…"


def opening(error: Exception, subject: str, device: str) -> LensmountError:
    """The error for a session that could not be opened.

    Args:
        error: What onnxruntime raised.
        subject: The graph, in words.
        device: Where it was to run.
    """
    text, kind = str(error), type(error).__name__
    if MEMORY.search(text):
        return DeviceMemoryError(
            f"there is not enough memory on {device!r} to open {subject}",
            found=brief(error),
            fix="free memory, use a smaller model or precision, or another device",
        )
    if OUTSIDE.search(text):
        return UnsafeFileError(
            f"{subject} asks for data outside its folder", found=brief(error), expected="files next to the graph"
        )
    if TOO_NEW.search(text):
        return UnsupportedModelError(
            f"{subject} is newer than the installed onnxruntime", found=brief(error), fix=UPGRADE
        )
    if OPERATOR.search(text):
        return UnsupportedModelError(
            f"{subject} has an operator that the installed onnxruntime cannot run on {device!r}",
            found=brief(error),
            expected="ONNX's standard operators; libraries of custom operators are not loaded",
            fix=f"{UPGRADE}; or export the model again with standard operators",
        )
    if kind in {"InvalidProtobuf", "NoSuchFile", "InvalidGraph", "NoModel"} or "No graph was found" in text:
        return ModelFileError(
            f"{subject} is not a usable ONNX file",
            found=brief(error),
            expected="a whole ONNX graph",
            fix="fetch or export the file again",
        )
    if DEVICE.search(text) or kind == "EPFail":
        return DeviceError(
            f"onnxruntime cannot start on {device!r} for {subject}", found=brief(error), fix="lensmount doctor"
        )
    if kind in {"InvalidArgument", "Fail", "RuntimeException", "NotImplemented"} and "Load model" in text:
        return ModelFileError(
            f"{subject} cannot be loaded by onnxruntime", found=brief(error), fix="download or export the file again"
        )
    return BackendError(
        f"onnxruntime cannot open {subject} on {device!r}",
        found=brief(error),
        fix="pip install --upgrade onnxruntime; or another backend: lensmount explain MODEL",
    )


def memory_said(error: BaseException) -> str:
    """What is known of an error for want of memory."""
    return "no room for a copy of its inputs" if NO_COPY in str(error) else brief(error)


def is_memory(error: BaseException) -> bool:
    """Whether this says that memory ran out."""
    return isinstance(error, MemoryError) or MEMORY.search(str(error)) is not None


def running(error: Exception, subject: str, device: str) -> LensmountError:
    """The error for a run that failed.

    Args:
        error: What onnxruntime raised.
        subject: The graph, in words.
        device: Where it ran.
    """
    if is_memory(error):
        return DeviceMemoryError(
            f"{device!r} ran out of memory while running {subject}",
            found=memory_said(error),
            fix="use a smaller batch, a smaller input size or a smaller model",
        )
    if DEVICE.search(str(error)):
        return DeviceError(f"{device!r} failed while running {subject}", found=brief(error), fix="lensmount doctor")
    return BackendError(
        f"onnxruntime failed to run {subject} on {device!r}",
        found=brief(error),
        fix="pip install --upgrade onnxruntime; or another backend: lensmount explain MODEL",
    )
