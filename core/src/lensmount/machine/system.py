"""Reads what the operating system says of the machine: processor, memory, container limits, Jetson release.

Files and system calls only, no subprocess. Every function takes the root folder that it reads below, so that another
machine's files can be put in its place.
"""

from __future__ import annotations

import ctypes
import math
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

JETPACKS = {
    "32.7": "4.6", "34.1": "5.0", "35.1": "5.0.2", "35.2": "5.1", "35.3": "5.1.1", "35.4": "5.1.2", "35.5": "5.1.3",
    "35.6.0": "5.1.4", "36.2": "6.0", "36.3": "6.0", "36.4.0": "6.1", "36.4.3": "6.2", "36.4.4": "6.2.1",
    "36.5": "6.2.2", "38.2": "7.0", "38.4": "7.1",
}  # fmt: skip
"""JetPack by L4T release, most specific prefix first; from NVIDIA's JetPack archive."""

JETPACK_MAJORS = {32: "4", 34: "5", 35: "5", 36: "6", 38: "7"}
"""JetPack major by L4T major, for releases that `JETPACKS` does not know."""

TEGRA = {
    "nvidia,tegra210": ("Tegra X1", "5.3"),
    "nvidia,tegra186": ("Tegra X2", "6.2"),
    "nvidia,tegra194": ("Xavier", "7.2"),
    "nvidia,tegra234": ("Orin", "8.7"),
    "nvidia,tegra264": ("Thor", "11.0"),
}
"""Integrated GPU and its compute capability by the device tree's `compatible`; from NVIDIA's CUDA GPU list."""


def read_text(path: Path, limit: int = 65536) -> str:
    """The start of a text file, or an empty string when it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(limit).decode("utf-8", "replace").replace("\0", "\n")
    except OSError:
        return ""


def system() -> str:
    """`linux`, `darwin`, `windows`, or what `sys.platform` says."""
    # Not platform.system(): on Windows it asks WMI, which can take seconds.
    return "windows" if sys.platform == "win32" else sys.platform


def machine() -> str:
    """`x86_64`, `aarch64`, `arm64`, `AMD64` …, as `platform.machine()` has it."""
    if hasattr(os, "uname"):
        return os.uname().machine
    return os.environ.get("PROCESSOR_ARCHITEW6432") or os.environ.get("PROCESSOR_ARCHITECTURE", "")


def release() -> str:
    """The release of macOS (`14.5`) or Windows (`10.0.22631`); empty elsewhere, where a file tells it."""
    if sys.platform == "darwin":
        import platform

        return platform.mac_ver()[0]
    windows = getattr(sys, "getwindowsversion", None)
    return "{0.major}.{0.minor}.{0.build}".format(windows()) if windows else ""


def release_name(root: Path, name: str, release: str) -> str:
    """The release in words: `Ubuntu 24.04.2 LTS`, `macOS 14.5`; empty where unknown."""
    words = {"darwin": "macOS", "windows": "Windows"}
    if name in words:
        return f"{words[name]} {release}".strip() if release else ""
    found = re.search(r"^PRETTY_NAME=\"?([^\"\n]*)", read_text(root / "etc/os-release"), re.MULTILINE)
    return found[1].strip() if found else ""


def numbers(version: str) -> tuple[int, ...]:
    """`14.5.1` as `(14, 5, 1)`; empty for an empty text."""
    return tuple(int(part) for part in re.findall(r"\d+", version))


def libc(root: Path, name: str) -> str | None:
    """The C library of a Linux system by its loader: `glibc` or `musl`; None elsewhere, or where none is found."""
    if name != "linux":
        return None
    loaders = {"lib64/ld-linux-*.so.*": "glibc", "lib/ld-linux-*.so.*": "glibc", "lib/ld-musl-*.so.*": "musl"}
    return next((library for pattern, library in loaders.items() if any(root.glob(pattern))), None)


# --- processor and memory ---------------------------------------------------------------------------------------------


def cpu_name(root: Path, name: str) -> str:
    """The processor's name, or the board's where the processor has none (Raspberry Pi)."""
    if name == "darwin":
        return str(_sysctl("machdep.cpu.brand_string", text=True) or "")
    if name == "windows":
        return _windows_cpu_name()
    # The first processor's block suffices; the whole file takes tens of milliseconds on a large server.
    cpuinfo = read_text(root / "proc/cpuinfo", 4096)
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return found[1].strip() if found else read_text(root / "proc/device-tree/model").strip()


def memory_bytes(root: Path, name: str) -> int | None:
    """Memory that this process may use: the machine's, or its container's limit where that is less."""
    if name == "darwin":
        size = _sysctl("hw.memsize")
        return None if size is None else int(size)
    if name == "windows":
        return _windows_memory()
    found = re.search(r"^MemTotal:\s*(\d+) kB", read_text(root / "proc/meminfo"), re.MULTILINE)
    limits = [int(found[1]) * 1024] if found else []
    for folder in _cgroups(root, "memory"):
        for file in ("memory.max", "memory.limit_in_bytes"):
            text = read_text(folder / file).strip()
            if text.isdigit():
                limits.append(int(text))
    return min(limits, default=None)


def cpu_quota(root: Path = Path("/")) -> int | None:
    """Processors that the container's CPU quota allows, rounded up; None without a quota."""
    quotas = []
    for folder in _cgroups(root, "cpu"):
        words = read_text(folder / "cpu.max").split()
        if not words:
            words = [*read_text(folder / "cpu.cfs_quota_us").split(), *read_text(folder / "cpu.cfs_period_us").split()]
        if len(words) == 2 and words[0].isdigit() and words[1].isdigit() and int(words[1]):
            quotas.append(max(1, math.ceil(int(words[0]) / int(words[1]))))
    return min(quotas, default=None)


def cpu_count(root: Path = Path("/")) -> int:
    """Processors that this process may use: the machine's, less what affinity and the container's quota take away."""
    # Through getattr: the call exists on Linux only, and Windows and macOS have no affinity to ask for.
    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(count, cpu_quota(root) or count))


def _cgroups(root: Path, controller: str) -> Iterator[Path]:
    """Folders whose limits bind this process, version 2 and 1, from its own group up to the root."""
    base = root / "sys/fs/cgroup"
    for line in read_text(root / "proc/self/cgroup").splitlines():
        parts = line.split(":", 2)
        if len(parts) != 3 or (parts[1] and controller not in parts[1].split(",")):
            continue
        top = base / parts[1] if parts[1] else base
        group = top / parts[2].lstrip("/")
        yield from (folder for folder in (group, *group.parents) if folder == top or top in folder.parents)


# --- NVIDIA -----------------------------------------------------------------------------------------------------------


def nvidia_cards(root: Path) -> int:
    """NVIDIA graphics cards on the PCI bus of a Linux machine, whether or not their driver is there (sysfs)."""
    # 0x0300 is a VGA controller, 0x0302 a 3D controller: a card for computing has no screen
    return sum(
        read_text(card / "vendor", 16).strip() == "0x10de" and read_text(card / "class", 16).startswith("0x03")
        for card in (root / "sys/bus/pci/devices").glob("*")
    )


def l4t(root: Path) -> str | None:
    """Jetson Linux release (`36.4.3`), or None on other machines."""
    found = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", read_text(root / "etc/nv_tegra_release"))
    return f"{found[1]}.{found[2]}" if found else None


def jetpack(release: str | None) -> str | None:
    """JetPack version of a Jetson Linux release; the major version alone when the release is not in the table."""
    if release is None:
        return None
    parts = release.split(".")
    known = (JETPACKS.get(".".join(parts[:length])) for length in (3, 2))
    return next(filter(None, known), JETPACK_MAJORS.get(int(parts[0])))


def tegra(root: Path) -> tuple[str, str] | None:
    """Name and compute capability of a Jetson's integrated GPU, from the device tree; None when unknown."""
    compatible = read_text(root / "proc/device-tree/compatible").split("\n")
    return next((TEGRA[name] for name in compatible if name in TEGRA), None)


# --- macOS and Windows ------------------------------------------------------------------------------------------------


def _sysctl(name: str, *, text: bool = False) -> Any:
    """One value of macOS's sysctl, or None."""
    try:
        call = ctypes.CDLL(None).sysctlbyname
        size = ctypes.c_size_t(0)
        if call(name.encode(), None, ctypes.byref(size), None, 0):
            return None
        buffer = ctypes.create_string_buffer(size.value)
        if call(name.encode(), buffer, ctypes.byref(size), None, 0):
            return None
    except (OSError, AttributeError, TypeError):
        return None
    return buffer.value.decode("utf-8", "replace") if text else int.from_bytes(buffer.raw, sys.byteorder)


class _MemoryStatus(ctypes.Structure):
    """Windows's MEMORYSTATUSEX."""

    _fields_ = (
        ("length", ctypes.c_uint32),
        ("load", ctypes.c_uint32),
        ("total", ctypes.c_uint64),
        *((f"rest{i}", ctypes.c_uint64) for i in range(6)),
    )


def _windows_memory() -> int | None:
    try:
        status = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
        kernel: Any = ctypes.CDLL("kernel32.dll")
        return int(status.total) if kernel.GlobalMemoryStatusEx(ctypes.byref(status)) else None
    except (OSError, AttributeError):
        return None


def _windows_cpu_name() -> str:
    try:
        import winreg as registry
    except ImportError:
        return ""
    module: Any = registry
    try:
        with module.OpenKey(module.HKEY_LOCAL_MACHINE, r"HARDWARE\DESCRIPTION\System\CentralProcessor\0") as key:
            return str(module.QueryValueEx(key, "ProcessorNameString")[0]).strip()
    except OSError:
        return ""
