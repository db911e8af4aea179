"""Asks NVIDIA's driver what GPUs there are, through its management library (NVML); creates no CUDA context.

NVML is asked rather than CUDA because `cuInit` takes a hundred milliseconds and breaks every later `fork`. NVML sees
all GPUs in the order of the PCI bus, so `CUDA_VISIBLE_DEVICES` is applied here. Where several *different* GPUs are
visible and `CUDA_DEVICE_ORDER` is not `PCI_BUS_ID`, CUDA's own numbering is its secret and may differ from ours.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

LoadLibrary = Callable[[str], Any]

NVML = {"linux": "libnvidia-ml.so.1", "windows": "nvml.dll"}
CUDA = {"linux": "libcuda.so.1", "windows": "nvcuda.dll"}
PROBLEMS = {18: "driver-mismatch"}
"""Words for what `nvmlInit_v2` answers when it fails; every other number means that the driver does not run."""


class GpuFacts(NamedTuple):
    """One GPU as the driver describes it."""

    name: str
    compute_capability: str | None
    memory_bytes: int | None


class DriverFacts(NamedTuple):
    """The driver and what it sees; `problem` is as `Environment.gpus_unseen` has it."""

    gpus: tuple[GpuFacts, ...] = ()
    driver: str | None = None
    cuda: str | None = None
    problem: str | None = None


class _Memory(ctypes.Structure):
    """nvmlMemory_t."""

    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


def load_library(name: str) -> Any | None:
    """A shared library, or None when it is not there."""
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None


def read_driver(system: str, environ: Mapping[str, str], load: LoadLibrary = load_library) -> DriverFacts:
    """What the NVIDIA driver says; empty when there is no driver. `load` opens a library by name, or answers None."""
    cuda = _cuda_version(system, load)
    nvml = load(NVML[system]) if system in NVML else None
    if nvml is None:
        return DriverFacts(cuda=cuda)
    try:
        if status := nvml.nvmlInit_v2():
            return DriverFacts(cuda=cuda, problem=PROBLEMS.get(status, "driver-stopped"))
        try:
            handles = _handles(nvml)
            gpus = tuple(_describe(nvml, handle) for handle in _visible(nvml, handles, environ))
            hidden = "hidden" if handles and not gpus else None
            return DriverFacts(gpus, _string(nvml.nvmlSystemGetDriverVersion), cuda, hidden)
        finally:
            nvml.nvmlShutdown()
    except AttributeError:  # A stub library without the functions, as some containers have.
        return DriverFacts(cuda=cuda)


def version(number: int) -> str:
    """CUDA's packed version number in words: 13020 is 13.2."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _cuda_version(system: str, load: LoadLibrary) -> str | None:
    library = load(CUDA[system]) if system in CUDA else None
    number = ctypes.c_int(0)
    try:
        # The one call of the driver that is valid before cuInit.
        if library is None or library.cuDriverGetVersion(ctypes.byref(number)):
            return None
    except AttributeError:
        return None
    return version(number.value) if number.value else None


def _string(call: Any, *arguments: Any, size: int = 96) -> str | None:
    buffer = ctypes.create_string_buffer(size)
    return None if call(*arguments, buffer, size) else buffer.value.decode("utf-8", "replace")


def _handles(nvml: Any) -> list[Any]:
    count = ctypes.c_uint(0)
    if nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)):
        return []
    handles = []
    for index in range(count.value):
        handle = ctypes.c_void_p()
        if not nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)):
            handles.append(handle)
    return handles


def _visible(nvml: Any, handles: list[Any], environ: Mapping[str, str]) -> list[Any]:
    """Handles of the GPUs that CUDA will number from 0."""
    wanted = environ.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return handles
    chosen: list[Any] = []
    for word in (part.strip() for part in wanted.split(",")):
        found = _by_name(nvml, handles, word)
        # CUDA ignores everything after the first entry that it cannot resolve.
        if found is None:
            break
        chosen.append(found)
    return chosen


def _by_name(nvml: Any, handles: list[Any], word: str) -> Any | None:
    """The handle of one entry of `CUDA_VISIBLE_DEVICES`: an index, or (the start of) a UUID."""
    if word.isdigit():
        return handles[int(word)] if int(word) < len(handles) else None
    if word.startswith("MIG-"):
        handle = ctypes.c_void_p()
        return None if nvml.nvmlDeviceGetHandleByUUID(word.encode(), ctypes.byref(handle)) else handle
    if not word.startswith("GPU-"):
        return None
    matches = [h for h in handles if (_string(nvml.nvmlDeviceGetUUID, h) or "").startswith(word)]
    return matches[0] if len(matches) == 1 else None


def _describe(nvml: Any, handle: Any) -> GpuFacts:
    major, minor = ctypes.c_int(0), ctypes.c_int(0)
    failed = nvml.nvmlDeviceGetCudaComputeCapability(handle, ctypes.byref(major), ctypes.byref(minor))
    memory = _Memory()
    no_memory = nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory))
    return GpuFacts(
        _string(nvml.nvmlDeviceGetName, handle) or "NVIDIA GPU",
        None if failed else f"{major.value}.{minor.value}",
        None if no_memory else int(memory.total),
    )
