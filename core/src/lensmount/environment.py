"""What this machine has: system, processor, GPUs, drivers, runtimes and their versions.

`detect()` reads files, installed metadata and the NVIDIA driver's management library; it starts no process, imports
no runtime and creates no CUDA context. Selection is a pure function of the `Environment`, so another machine can be
described by hand and its choice computed here.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from lensmount import machine as host
from lensmount import nvidia

DISTRIBUTIONS = (
    "lensmount",
    "numpy",
    "opencv-python-headless",
    "opencv-python",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-openvino",
    "onnxruntime-qnn",
    "onnxruntime-silicon",
    "onnx",
    "torch",
    "torchvision",
    "tensorrt",
    "tensorrt-cu12",
    "tensorrt-cu13",
    "tensorrt-lean",
    "cuda-bindings",
    "openvino",
    "safetensors",
    "transformers",
    "supervision",
    "nvidia-cudnn-cu12",
    "nvidia-cudnn-cu13",
)
"""Distributions whose versions matter to a choice of backend or to a bug report."""

ONNXRUNTIMES = (
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-openvino",
    "onnxruntime-qnn",
    "onnxruntime-silicon",
    "onnxruntime",
)
"""Distributions that all install the import `onnxruntime`, and so overwrite one another."""

LIBRARY_FOLDERS = (
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "usr/lib64",
    "usr/local/cuda/lib64",
    "usr/local/tensorrt/lib",
)


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
    """What a machine has. Every field has a default, so that a machine can be described by hand.

    Attributes:
        system: `linux`, `darwin`, `windows`.
        machine: As `platform.machine()` has it: `x86_64`, `aarch64`, `arm64`, `AMD64`.
        python: Version of Python (`3.12.4`).
        cpu_name: Name of the processor, or of the board (Raspberry Pi).
        cpu_count: Processors that this process may use (affinity and container quota counted in).
        memory_bytes: Memory that this process may use.
        gpus: CUDA devices that this process sees.
        cuda_driver: Version of the NVIDIA driver.
        cuda: Newest CUDA version that the driver runs (`13.0`).
        cudnn: Version of cuDNN, from its distribution or the system's library.
        tensorrt: Version of TensorRT, from its distribution or the system's library.
        l4t: Jetson Linux release (`36.4.3`), on a Jetson only.
        jetpack: JetPack version of that release.
        mps: Whether torch's Metal backend can run here (Apple silicon, macOS 12.3 or newer).
        onnxruntime: Which of the distributions that share the import `onnxruntime` is effectively there.
        packages: Installed distributions of interest with their versions. torch carries its build: `2.13.0+cu130`.
    """

    system: str = "linux"
    machine: str = "x86_64"
    python: str = "3.12.0"
    cpu_name: str = ""
    cpu_count: int = 1
    memory_bytes: int | None = None
    gpus: tuple[Gpu, ...] = ()
    cuda_driver: str | None = None
    cuda: str | None = None
    cudnn: str | None = None
    tensorrt: str | None = None
    l4t: str | None = None
    jetpack: str | None = None
    mps: bool = False
    onnxruntime: str | None = None
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
        environ: Environment variables.
        load_library: Opens a shared library by name, or answers None.
        distribution: Looks an installed distribution up, or answers None.
    """

    root: Path
    system: str
    machine: str
    environ: Mapping[str, str]
    load_library: nvidia.LoadLibrary
    distribution: Callable[[str], metadata.Distribution | None]


def this_host() -> Host:
    """The machine that this process runs on."""
    return Host(
        root=Path("/"),
        system=host.system(),
        machine=host.machine(),
        environ=os.environ,
        load_library=nvidia.load_library,
        distribution=_distribution,
    )


def detect(where: Host | None = None) -> Environment:
    """Describes a machine, by default this one. Takes milliseconds; never raises for what it cannot find.

    Args:
        where: Where to look instead.
    """
    where = where or this_host()
    root = where.root
    found = [(name, found) for name in DISTRIBUTIONS if (found := where.distribution(name)) is not None]
    packages = {name: distribution.version for name, distribution in found}
    folders = dict(found)
    if "torch" in packages:
        packages["torch"] = _torch_version(folders["torch"], where.system)
    memory = host.memory_bytes(root, where.system)
    release = host.l4t(root)
    driver = nvidia.read_driver(where.system, where.environ, where.load_library)
    gpus = tuple(
        Gpu(
            index=index,
            name=facts.name,
            compute_capability=facts.compute_capability,
            memory_bytes=facts.memory_bytes,
            driver=driver.driver,
        )
        for index, facts in enumerate(driver.gpus)
    )
    if not gpus and release and where.environ.get("CUDA_VISIBLE_DEVICES", "0").startswith(("0", "GPU-")):
        # JetPack 5 has no NVML, and later ones an incomplete one; the chip's number says what GPU it holds.
        chip = host.tegra(root)
        gpus = (Gpu(name=chip[0], compute_capability=chip[1], memory_bytes=memory),) if chip else ()
    libraries = _libraries(root, ("libcudnn.so", "libnvinfer.so")) if gpus else {}
    return Environment(
        system=where.system,
        machine=where.machine,
        python=platform.python_version(),
        cpu_name=host.cpu_name(root, where.system),
        cpu_count=host.cpu_count(root),
        memory_bytes=memory,
        gpus=gpus,
        cuda_driver=driver.driver,
        cuda=driver.cuda,
        cudnn=_first(packages, "nvidia-cudnn-cu13", "nvidia-cudnn-cu12") or libraries.get("libcudnn.so"),
        tensorrt=_first(packages, "tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-lean")
        or libraries.get("libnvinfer.so"),
        l4t=release,
        jetpack=host.jetpack(release),
        mps=where.system == "darwin" and where.machine == "arm64" and _macos() >= (12, 3),
        onnxruntime=_onnxruntime(folders),
        packages=tuple(packages.items()),
    )


def _distribution(name: str) -> metadata.Distribution | None:
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None


def _first(packages: Mapping[str, str], *names: str) -> str | None:
    return next((packages[name] for name in names if name in packages), None)


def _file(distribution: metadata.Distribution, name: str) -> str:
    return host.read_text(Path(str(distribution.locate_file(name))))


def _torch_version(distribution: metadata.Distribution, system: str) -> str:
    """The version of torch with its build as a local part (`+cu130`, `+cpu`), from the text of its `version.py`.

    Builds from elsewhere carry other local parts (`2.5.0a0+872d972e41.nv24.08` from NVIDIA); the build comes last.
    """
    version = distribution.version
    text = _file(distribution, "torch/version.py")
    # A Mac's build has no tag: it is neither a CUDA nor a CPU-only one.
    build = "cpu" if text and system != "darwin" else ""
    for variable, prefix in (("cuda", "cu"), ("hip", "rocm"), ("xpu", "xpu")):
        found = re.search(rf"^{variable}\b[^=]*=\s*['\"]([\d.]+)", text, re.MULTILINE)
        if found:
            build = prefix + (found[1].replace(".", "") if prefix == "cu" else found[1])
            break
    if not build or version.endswith(build):
        return version
    return f"{version}{'.' if '+' in version else '+'}{build}"


def _onnxruntime(found: Mapping[str, metadata.Distribution]) -> str | None:
    """Which distribution the import `onnxruntime` is; its own file decides when several were installed over it."""
    installed = [name for name in ONNXRUNTIMES if name in found]
    if len(installed) > 1:
        text = _file(found[installed[0]], "onnxruntime/capi/build_and_package_info.py")
        named = re.search(r"^package_name\s*=\s*['\"]([\w-]+)", text, re.MULTILINE)
        if named:
            return named[1]
    return installed[0] if installed else None


def _libraries(root: Path, stems: tuple[str, ...]) -> dict[str, str]:
    """Versions of shared libraries, from their file names (`libcudnn.so.9.3.0`)."""
    found: dict[str, str] = {}
    for folder in LIBRARY_FOLDERS:
        try:
            names = [path.name for path in (root / folder).iterdir()]
        except OSError:
            continue
        for name in names:
            stem, _, version = name.partition(".so.")
            if stem + ".so" in stems and len(version) > len(found.get(stem + ".so", "")):
                found[stem + ".so"] = version
    return found


def _macos() -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", platform.mac_ver()[0])[:2])
