"""The machine under a benchmark: what it is, and whether something else keeps it busy. Standard library only."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BUSY_SHARE = 0.1
"""Share of the machine that others may use before a benchmark's numbers deserve a warning."""
STEAL_SHARE = 0.02


def fingerprint() -> dict[str, Any]:
    """What the numbers depend on: processor, memory, GPUs, system, versions."""
    from lensmount.machine.environment import detect

    found = detect()
    return {
        "cpu": found.cpu_name,
        "cores": found.cpu_count,
        "memory_bytes": found.memory_bytes,
        "gpus": [gpu.name for gpu in found.gpus],
        "cuda_driver": found.cuda_driver,
        "system": found.system,
        "machine": found.machine,
        "python": found.python,
        "packages": dict(found.packages),
    }


@dataclass(frozen=True, slots=True)
class Moment:
    """Counters of the whole machine at one moment, in seconds; `busy` is None where the system does not tell."""

    clock: float
    busy: float | None
    steal: float
    own: float
    load: float | None

    @staticmethod
    def now(root: Path = Path("/")) -> Moment:
        """Reads them."""
        busy, steal = _processor_times(root)
        times = os.times()
        own = times.user + times.system + times.children_user + times.children_system
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        return Moment(time.monotonic(), busy, steal, own, load)


def warnings_between(before: Moment, after: Moment, cores: int, all_cores: int | None = None) -> list[str]:
    """Why numbers measured in between may not be repeatable; empty on a quiet machine.

    Args:
        before: Read before the first worker process was started.
        after: Read after the last one had been waited for, so that their CPU time is known.
        cores: Processors that this process may use.
        all_cores: Processors of the machine that the counters cover; None for what the system says.
    """
    found = []
    every = all_cores or os.cpu_count() or cores
    seconds = max(after.clock - before.clock, 1e-9)
    if before.load is not None and before.load > 0.5 * every:
        found.append(f"the load average was {before.load:.1f} on {every} processors when the benchmark began")
    if before.busy is not None and after.busy is not None:
        others = (after.busy - before.busy - (after.own - before.own)) / (seconds * every)
        if others > BUSY_SHARE:
            found.append(f"other processes used {others:.0%} of the machine meanwhile")
        steal = (after.steal - before.steal) / (seconds * every)
        if steal > STEAL_SHARE:
            found.append(f"the hypervisor took {steal:.0%} of the processor time away (steal)")
    return found


def _processor_times(root: Path) -> tuple[float | None, float]:
    """Busy and stolen seconds of all processors since boot (Linux: /proc/stat, see proc(5))."""
    try:
        words = (root / "proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
        ticks = [int(word) for word in words[1:9]]
        rate = os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, AttributeError):
        return None, 0.0
    if words[:1] != ["cpu"]:
        return None, 0.0
    user, nice, system, _idle, _iowait, irq, softirq, steal = [*ticks, *[0] * (8 - len(ticks))]
    return (user + nice + system + irq + softirq) / rate, steal / rate


def memory() -> tuple[int | None, int | None]:
    """Resident memory of this process now, and at its peak, in bytes.

    On Linux from /proc: the `ru_maxrss` of a process is never below what its parent had when it started it.
    """
    values = {}
    try:
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            name, _, rest = line.partition(":")
            if name in ("VmRSS", "VmHWM"):
                values[name] = int(rest.split()[0]) * 1024
    except (OSError, ValueError):
        pass
    if values:
        return values.get("VmRSS"), values.get("VmHWM")
    if sys.platform == "win32":
        return None, None
    import resource

    return None, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class _Memory(ctypes.Structure):
    """NVML's nvmlMemory_t."""

    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


def device_memory() -> int | None:
    """Memory in use on all NVIDIA GPUs of the machine, by any process, in bytes; None without the driver."""
    from lensmount.machine.nvidia import load_library

    nvml: Any = load_library("nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1")
    try:
        if nvml is None or nvml.nvmlInit_v2() != 0:
            return None
        count = ctypes.c_uint(0)
        nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
        total = 0
        for index in range(count.value):
            handle, facts = ctypes.c_void_p(), _Memory()
            if nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)) == 0:
                nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(facts))
                total += facts.used
        nvml.nvmlShutdown()
    except (AttributeError, OSError):
        return None
    return total
