"""Turns what OpenVINO raises into lensmount's errors."""

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

UPGRADE = "pip install --upgrade openvino"

MEMORY = re.compile(
    r"bad_alloc|bad allocation|out of memory|not enough memory|failed to allocate|CL_OUT_OF|CL_MEM_OBJECT_ALLOCATION",
    re.IGNORECASE,
)
DEVICE = re.compile(
    r"CL_DEVICE|CL_INVALID_DEVICE|device lost|ZE_RESULT_ERROR_DEVICE|libOpenCL|ze_loader", re.IGNORECASE
)
OPERATOR = re.compile(r"No conversion rule found for operations: (.{1,200})|doesn't support|Unsupported operation")
OUTSIDE = re.compile(r"outside the base directory", re.IGNORECASE)
PARSING = re.compile(r"can't be parsed|Could not open the file|Unable to read the model", re.IGNORECASE)

NOISE = re.compile(
    r"Exception from \S+:\d+:|Check '.{0,200}?' failed at \S+:\d+:|FrontEnd API failed with \w+:"
    r"|Model wasn't fully converted\.|Summary:"
)
"""Places in OpenVINO's sources, and phrases that say nothing more."""


def brief(error: BaseException) -> str:
    """One line of what OpenVINO said, without its source files."""
    text = " ".join(NOISE.sub(" ", " ".join(str(error).split())).split()).strip(" |-")
    return text if len(text) <= 300 else text[:297] + "…"


def reading(error: Exception, subject: str) -> LensmountError:
    """The error for a graph that OpenVINO could not read.

    Args:
        error: What OpenVINO raised.
        subject: The graph, in words.
    """
    text = str(error)
    if MEMORY.search(text) or isinstance(error, MemoryError):
        return DeviceMemoryError(f"there is not enough memory to read {subject}", found=brief(error))
    if OUTSIDE.search(text):
        return UnsafeFileError(
            f"{subject} asks for data outside its folder", found=brief(error), expected="files next to the graph"
        )
    if OPERATOR.search(text):
        return UnsupportedModelError(
            f"{subject} has an operator that the installed OpenVINO lacks",
            found=brief(error),
            expected="operators that OpenVINO's reader of ONNX knows",
            fix=f"{UPGRADE}; or load it with backend='onnx'",
        )
    expected = "a whole ONNX graph" if PARSING.search(text) else None
    return ModelFileError(
        f"{subject} cannot be read by OpenVINO",
        found=brief(error),
        expected=expected,
        fix="fetch or export the file again; or load it with backend='onnx'",
    )


def opening(error: Exception, subject: str, device: str) -> LensmountError:
    """The error for a graph that was read and could not be compiled.

    Args:
        error: What OpenVINO raised.
        subject: The graph, in words.
        device: Where it was to run.
    """
    if MEMORY.search(str(error)) or isinstance(error, MemoryError):
        return DeviceMemoryError(
            f"there is not enough memory on {device!r} to open {subject}",
            found=brief(error),
            fix="free memory, or use a smaller model or another device",
        )
    if DEVICE.search(str(error)):
        return DeviceError(f"OpenVINO cannot start on {device!r} for {subject}", found=brief(error))
    return BackendError(
        f"OpenVINO cannot compile {subject} for {device!r}", found=brief(error), fix="load it with backend='onnx'"
    )


def running(error: Exception, subject: str, device: str) -> LensmountError:
    """The error for a run that failed.

    Args:
        error: What OpenVINO raised.
        subject: The graph, in words.
        device: Where it ran.
    """
    if MEMORY.search(str(error)) or isinstance(error, MemoryError):
        return DeviceMemoryError(
            f"{device!r} ran out of memory while running {subject}",
            found=brief(error),
            fix="use a smaller batch, a smaller input size or a smaller model",
        )
    if DEVICE.search(str(error)):
        return DeviceError(f"{device!r} failed while running {subject}", found=brief(error))
    return BackendError(f"OpenVINO failed to run {subject} on {device!r}", found=brief(error))
