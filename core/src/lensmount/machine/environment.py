"""What this machine has: system, processor, GPUs, drivers, runtimes and their versions.

`detect()` reads files, installed metadata and the NVIDIA driver's management library; it starts no process, imports
no runtime and creates no CUDA context. Selection is a pure function of the `Environment`, so another machine can be
described as data and its choice computed here.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from lensmount.machine import installed, nvidia
from lensmount.machine import system as host

MPS_SINCE = (14, 0)
"""The first macOS on which the oldest torch that lensmount takes (2.10) runs on Apple's GPUs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A CUDA device.

    Attributes:
        index: CUDA's number: `cuda:<index>`.
        name: As the driver has it (`NVIDIA A100-SXM4-40GB`).
        compute_capability: `8.0`.
        memory_bytes: Its memory; on a Jetson the machine's, which it shares.
        driver: Version of the driver (`580.82.07`), where known.
    """

    index: int = 0
    name: str = "NVIDIA GPU"
    compute_capability: str | None = None
    memory_bytes: int | None = None
    driver: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What a machine has. Every field has a default, so that tests can describe any machine.

    Attributes:
        system: `linux`, `darwin`, `windows`.
        machine: As `platform.machine()` has it: `x86_64`, `aarch64`, `arm64`, `AMD64`.
        release: The system's release, where known: `Ubuntu 24.04.2 LTS`, `macOS 14.5`, `Windows 10.0.22631`.
        libc: `glibc` or `musl`, on Linux.
        python: Version of Python (`3.12.4`).
        cpu_name: Name of the processor, or of the board (Raspberry Pi).
        cpu_count: Processors that this process may use (affinity and container quota counted in).
        memory_bytes: Memory that this process may use.
        gpus: CUDA devices that this process sees.
        gpus_unseen: Why NVIDIA GPUs that are there are not among `gpus`: `no-library` (the card is on the bus, its
            driver's libraries are not here), `driver-stopped`, `driver-mismatch` (its module and its libraries are of
            two versions), `hidden` (`CUDA_VISIBLE_DEVICES` names none). None where all are, or none is there.
        cuda_driver: Version of the NVIDIA driver.
        cuda: Newest CUDA version that the driver runs (`13.0`).
        cudnn: Version of cuDNN, from its distribution or the system's library.
        tensorrt: Version of TensorRT, from its distribution or the system's library.
        l4t: Jetson Linux release (`36.4.3`), on a Jetson only.
        jetpack: JetPack version of that release.
        mps: Whether torch's Metal backend can run here (Apple silicon, macOS 14 or newer).
        onnxruntime: Which of the distributions that share the import `onnxruntime` is effectively there.
        onnxruntime_cuda: The CUDA version that it was built for (`13.0`), where it was.
        damaged: Distributions that are installed by name while their files are gone.
        packages: Installed distributions of interest with their versions. torch carries its build: `2.13.0+cu130`.
    """

    system: str = "linux"
    machine: str = "x86_64"
    release: str = ""
    libc: str | None = None
    python: str = "3.12.0"
    cpu_name: str = ""
    cpu_count: int = 1
    memory_bytes: int | None = None
    gpus: tuple[Gpu, ...] = ()
    gpus_unseen: str | None = None
    cuda_driver: str | None = None
    cuda: str | None = None
    cudnn: str | None = None
    tensorrt: str | None = None
    l4t: str | None = None
    jetpack: str | None = None
    mps: bool = False
    onnxruntime: str | None = None
    onnxruntime_cuda: str | None = None
    damaged: tuple[str, ...] = ()
    packages: tuple[tuple[str, str], ...] = ()

    def version(self, distribution: str) -> str | None:
        """Version of an installed distribution, or None."""
        return dict(self.packages).get(distribution)

    @property
    def devices(self) -> tuple[str, ...]:
        """All devices, best first: `cuda:0` …, `mps`, `cpu`. Whether a backend can use one is the backend's answer."""
        return (*(f"cuda:{gpu.index}" for gpu in self.gpus), *(("mps",) if self.mps else ()), "cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Where `detect` looks; another machine's answers can be put in its place.

    Attributes:
        root: Folder that stands for `/`.
        system: `linux`, `darwin`, `windows`.
        machine: As `platform.machine()` has it.
        release: The system's release, where no file below `root` tells it (macOS, Windows).
        environ: Environment variables.
        load_library: Opens a shared library by name, or answers None.
        distribution: Looks an installed distribution up, or answers None.
    """

    root: Path
    system: str
    machine: str
    release: str
    environ: Mapping[str, str]
    load_library: nvidia.LoadLibrary
    distribution: Callable[[str], metadata.Distribution | None]


def this_host() -> Host:
    """The machine that this process runs on."""
    return Host(
        root=Path("/"),
        system=host.system(),
        machine=host.machine(),
        release=host.release(),
        environ=os.environ,
        load_library=nvidia.load_library,
        distribution=installed.distribution,
    )


def detect(where: Host | None = None) -> Environment:
    """Describes a machine, by default this one. Takes milliseconds; never raises for what it cannot find."""
    where = where or this_host()
    root = where.root
    found = {name: one for name in installed.DISTRIBUTIONS if (one := where.distribution(name)) is not None}
    packages = {name: one.version for name, one in found.items()}
    if "torch" in packages:
        packages["torch"] = installed.torch_version(found["torch"], where.system)
    memory = host.memory_bytes(root, where.system)
    l4t = host.l4t(root)
    driver = nvidia.read_driver(where.system, where.environ, where.load_library)
    gpus = _gpus(where, driver, l4t, memory)
    folders = [folder for folder in where.environ.get("LD_LIBRARY_PATH", "").split(":") if folder]
    libraries = installed.libraries(root, ("libcudnn.so", "libnvinfer.so"), folders) if gpus else {}
    onnxruntime, onnxruntime_cuda = installed.onnxruntime(found)
    return Environment(
        system=where.system,
        machine=where.machine,
        release=host.release_name(root, where.system, where.release),
        libc=host.libc(root, where.system),
        python=platform.python_version(),
        cpu_name=host.cpu_name(root, where.system),
        cpu_count=host.cpu_count(root),
        memory_bytes=memory,
        gpus=gpus,
        gpus_unseen=None if gpus else driver.problem or ("no-library" if host.nvidia_cards(root) else None),
        cuda_driver=driver.driver,
        cuda=driver.cuda,
        cudnn=installed.first(packages, "nvidia-cudnn-cu13", "nvidia-cudnn-cu12") or libraries.get("libcudnn.so"),
        tensorrt=installed.first(packages, "tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-lean")
        or libraries.get("libnvinfer.so"),
        l4t=l4t,
        jetpack=host.jetpack(l4t),
        mps=where.system == "darwin" and where.machine == "arm64" and host.numbers(where.release) >= MPS_SINCE,
        onnxruntime=onnxruntime,
        onnxruntime_cuda=onnxruntime_cuda,
        damaged=installed.damaged(found),
        packages=tuple(packages.items()),
    )


def _gpus(where: Host, driver: nvidia.DriverFacts, l4t: str | None, memory: int | None) -> tuple[Gpu, ...]:
    if driver.gpus:
        return tuple(
            Gpu(
                index=index,
                name=facts.name,
                compute_capability=facts.compute_capability,
                memory_bytes=facts.memory_bytes,
                driver=driver.driver,
            )
            for index, facts in enumerate(driver.gpus)
        )
    # JetPack 5 has no NVML, and later ones an incomplete one; the chip's number says what GPU it holds. In a container
    # the release's file may be missing; there the driver has to answer.
    visible = where.environ.get("CUDA_VISIBLE_DEVICES", "0").startswith(("0", "GPU-"))
    chip = host.tegra(where.root) if visible and (l4t or driver.cuda) else None
    return (Gpu(name=chip[0], compute_capability=chip[1], memory_bytes=memory),) if chip else ()
