"""What is installed: versions of distributions, the builds of torch and onnxruntime, and shared libraries.

Read from metadata, from the text of a runtime's own version file, and from file names; no runtime is imported.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path

from lensmount.machine.system import numbers, read_text

ONNXRUNTIMES = (
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-openvino",
    "onnxruntime-qnn",
    "onnxruntime-silicon",
    "onnxruntime",
)
"""Distributions that all install the import `onnxruntime`, and so overwrite one another."""

OPENCVS = ("opencv-python-headless", "opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless")
"""Distributions that all install the import `cv2`, and so overwrite one another."""

DISTRIBUTIONS = (
    "lensmount",
    "numpy",
    *OPENCVS,
    "onnxruntime",
    *(name for name in ONNXRUNTIMES if name != "onnxruntime"),
    "onnx", "torch", "torchvision",
    "tensorrt", "tensorrt-cu12", "tensorrt-cu13", "tensorrt-cu12-bindings", "tensorrt-cu13-bindings", "tensorrt-lean",
    "cuda-bindings", "cuda-python", "openvino", "ai-edge-litert",
    "safetensors", "transformers", "supervision",
    "nvidia-cudnn-cu12", "nvidia-cudnn-cu13",
)  # fmt: skip
"""Distributions whose versions matter to a choice of backend or to a bug report."""

LIBRARY_FOLDERS = (
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "usr/lib64",
    "usr/local/cuda/lib64",
    "usr/local/tensorrt/lib",
)


def distribution(name: str) -> metadata.Distribution | None:
    """An installed distribution, or None."""
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None


def first(packages: Mapping[str, str], *names: str) -> str | None:
    """Version of the first of these distributions that is installed."""
    return next((packages[name] for name in names if name in packages), None)


def _file(distribution: metadata.Distribution, name: str) -> str:
    return read_text(Path(str(distribution.locate_file(name))))


def torch_version(distribution: metadata.Distribution, system: str) -> str:
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


def onnxruntime(found: Mapping[str, metadata.Distribution]) -> tuple[str | None, str | None]:
    """Which distribution the import `onnxruntime` is, and the CUDA version that it was built for.

    Its own file decides when several were installed over one another.
    """
    installed = [name for name in ONNXRUNTIMES if name in found]
    if not installed:
        return None, None
    text = _file(found[installed[0]], "onnxruntime/capi/build_and_package_info.py")
    said = dict(re.findall(r"^(package_name|cuda_version)\s*=\s*['\"]([\w.-]+)", text, re.MULTILINE))
    name = said.get("package_name", installed[0]) if len(installed) > 1 else installed[0]
    return name, said.get("cuda_version")


def damaged(found: Mapping[str, metadata.Distribution]) -> tuple[str, ...]:
    """Distributions of onnxruntime whose files are gone: what uninstalling one of two that overlap leaves behind."""
    record = "onnxruntime/__init__.py"
    return tuple(
        name
        for name in ONNXRUNTIMES
        if name in found
        and f"{record}," in (found[name].read_text("RECORD") or "")
        and not Path(str(found[name].locate_file(record))).is_file()
    )


def libraries(root: Path, stems: tuple[str, ...], more: Iterable[str] = ()) -> dict[str, str]:
    """Versions of shared libraries by name up to `.so`, by file name (`libcudnn.so.9.3.0`); the newest of each.

    Folders named in `more` (`LD_LIBRARY_PATH`) are looked into as well as the usual ones.
    """
    found: dict[str, str] = {}
    for folder in (*LIBRARY_FOLDERS, *more):
        try:
            names = [path.name for path in (root / folder.lstrip("/")).iterdir()]
        except OSError:
            continue
        for name in names:
            stem, _, version = name.partition(".so.")
            stem += ".so"
            if stem in stems and numbers(version) > numbers(found.get(stem, "")):
                found[stem] = version
    return found
