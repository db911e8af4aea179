"""Turns what TensorRT logs into lensmount's errors: its API answers None or False, and says why in the log alone."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lensmount.errors import (
    BackendError,
    BuildError,
    DeviceMemoryError,
    EngineMismatchError,
    LensmountError,
    ModelFileError,
    UnsafeFileError,
    UnsupportedModelError,
)

REBUILD = "build it again here: lensmount export MODEL --to tensorrt"
ALLOW = (
    "allow_host_code=True at load, if you trust where the engine comes from; or build it without --version-compatible"
)

MEMORY = re.compile(r"out ?of ?memory|requested amount of GPU memory|cudaErrorMemoryAllocation|bad_alloc", re.I)
CAPABILITY = re.compile(r"incompatible device, expecting compute ([\d.]+?) got compute ([\d.]+?)[,.]? ", re.I)
VERSION = re.compile(
    r"Version tag does not match\. Note: Current Version: (\d+), Serialized Engine Version: (\d+)", re.I
)
PLATFORM = re.compile(
    r"platform.{0,60}(mismatch|different|incompatible|not match)|built (on|for) a different platform", re.I
)
MAGIC = re.compile(r"magic ?tag|kMAGIC_TAG|kPLAN_MAGIC_TAG|not a TensorRT|truncated|size mismatch|plan size", re.I)
HOST_CODE = re.compile(r"host ?(executable )?code|engine_?host_?code_?allowed", re.I)
PLUGIN = re.compile(
    r"(?:cannot find plugin|could not find plugin|plugin (?:creator )?not found)[^:]*:?\s*([\w.:]+)?", re.I
)
NOISE = re.compile(r"\[\S+\.(?:cpp|h)::\S+?::\d+\]\s*|^\d+:\s*|In \S+ at \S+:\d+\s*", re.M)
"""Source files and line numbers in TensorRT's messages."""


def brief(messages: Sequence[str]) -> str:
    """What TensorRT said, on one line, without its source files; at most 400 characters."""
    text = " | ".join(dict.fromkeys(" ".join(NOISE.sub("", message).split()) for message in messages))
    return (text if len(text) <= 400 else text[:397] + "…") or "TensorRT gave no reason"


def opening(messages: Sequence[str], subject: str, device: str, version: str) -> LensmountError:
    """The error for an engine that could not be deserialised.

    Args:
        messages: What TensorRT logged, oldest first.
        subject: The engine, in words.
        device: Where it was to run.
        version: The installed TensorRT.
    """
    text = "\n".join(messages) + " "
    if found := VERSION.search(text):
        return EngineMismatchError(
            f"{subject} was built by another TensorRT",
            found=f"serialisation version {found[2]}",
            expected=f"serialisation version {found[1]}, of TensorRT {version}",
            fix=REBUILD,
        )
    if found := CAPABILITY.search(text):
        return EngineMismatchError(
            f"{subject} was built for another GPU",
            found=f"compute capability {found[2]}",
            expected=f"compute capability {found[1]}, of {device!r}",
            fix=REBUILD,
        )
    if HOST_CODE.search(text):
        return UnsafeFileError(
            f"{subject} brings code for the host, which TensorRT would run",
            found=brief(messages),
            expected="an engine with code for the GPU alone",
            fix=ALLOW,
        )
    if found := PLUGIN.search(text):
        return UnsupportedModelError(
            f"{subject} needs a TensorRT plugin that is not there",
            found=found[1] or brief(messages),
            expected="TensorRT's own layers and plugins; libraries of others are not loaded",
            fix="export the model with standard operators, and " + REBUILD,
        )
    if PLATFORM.search(text):
        return EngineMismatchError(f"{subject} was built on another system", found=brief(messages), fix=REBUILD)
    if MEMORY.search(text):
        return out_of_memory(messages, f"opening {subject}", device)
    if MAGIC.search(text):
        return ModelFileError(
            f"{subject} is not a whole TensorRT engine",
            found=brief(messages),
            expected=f"an engine that TensorRT {version} wrote",
            fix=REBUILD,
        )
    return BackendError(f"TensorRT {version} cannot open {subject}", found=brief(messages), fix=REBUILD)


def out_of_memory(messages: Sequence[str], doing: str, device: str) -> DeviceMemoryError:
    """The error for memory that was not there."""
    return DeviceMemoryError(
        f"{device!r} is out of memory while {doing}",
        found=brief(messages),
        fix="use a smaller batch or input size, contexts=1, or a smaller model",
    )


def running(messages: Sequence[str], subject: str, device: str) -> LensmountError:
    """The error for a run that TensorRT refused or failed."""
    if MEMORY.search("\n".join(messages)):
        return out_of_memory(messages, f"running {subject}", device)
    return BackendError(f"TensorRT failed to run {subject} on {device!r}", found=brief(messages))


def building(messages: Sequence[str], subject: str, device: str, version: str) -> LensmountError:
    """The error for an engine that could not be built."""
    text = "\n".join(messages)
    if MEMORY.search(text):
        return DeviceMemoryError(
            f"{device!r} is out of memory while building an engine from {subject}",
            found=brief(messages),
            fix="free memory, lower --workspace, or build for a smaller largest batch (--batch 1,1,4)",
        )
    return BuildError(f"TensorRT {version} cannot build an engine from {subject}", found=brief(messages))
