"""The tensorrt backend: engines of format `engine` on TensorRT 10.1 to 11, without torch.

Engines are built by `lensmount export MODEL --to tensorrt`, or by others; none is built here unless `load` is asked for
it. What an engine was built for is compared with the machine before TensorRT sees it. docs/tensorrt.md says more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lensmount.backend.devices import split_device
from lensmount.contracts.session import OpenRequest
from lensmount.errors import DeviceError, ModelFileError
from lensmount.specs import BackendStatus
from lensmount_tensorrt import api as tensorrt_api
from lensmount_tensorrt.api import INSTALL, numbers, why_unsupported

if TYPE_CHECKING:
    from lensmount.contracts import Environment
    from lensmount_tensorrt.session import TensorRTSession

BINDINGS = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12")
"""Distributions that bring the import `tensorrt`; the system's packages on a Jetson call theirs `tensorrt` as well."""

JETSON_FIX = (
    "apt install python3-libnvinfer, and make the environment with python3 -m venv --system-site-packages; then "
    'pip install "lensmount[tensorrt-jetson]"'
)
PRECISIONS = ("fp32", "fp16", "bf16", "int8")


def probe(environment: Environment) -> BackendStatus:
    """Whether TensorRT runs here; reads installed metadata and files only."""
    bound = next((name for name in BINDINGS if environment.version(name)), None)
    version = environment.version(bound) if bound else None
    problem = _why_not(environment, bound, version)
    if problem is not None:
        reason, fix = problem
        return BackendStatus(usable=False, version=version or environment.tensorrt, reason=reason, fix=fix)
    return BackendStatus(
        usable=True,
        version=version,
        devices=tuple(f"cuda:{gpu.index}" for gpu in environment.gpus),
        precisions=(("cuda", PRECISIONS),),
    )


def _why_not(environment: Environment, bound: str | None, version: str | None) -> tuple[str, str | None] | None:
    """What is missing, and the command that brings it."""
    jetson = environment.l4t is not None
    install = JETSON_FIX if jetson else INSTALL
    if not environment.gpus:
        return "no NVIDIA GPU that this process sees", None
    if version is None or bound is None:
        if environment.tensorrt is not None:
            where = f"TensorRT {environment.tensorrt}'s libraries are here, its Python module is not"
            return where, install
        return "TensorRT is not installed", install
    unsupported = why_unsupported(version)
    if unsupported:
        upgrade = "JetPack 6 or newer brings TensorRT 10" if jetson else 'pip install "tensorrt>=10.1,<12"'
        return unsupported, upgrade
    driver = numbers(environment.cuda)[0] if environment.cuda else None
    if driver is not None and driver < 13 and bound != "tensorrt-cu12" and environment.version("tensorrt-cu13"):
        return (
            f"tensorrt-cu13 needs a driver for CUDA 13, this one ends at {environment.cuda}",
            f"pip uninstall tensorrt tensorrt-cu13; pip install tensorrt-cu12=={version}; or update the driver",
        )
    cuda = environment.version("cuda-bindings")
    if cuda is None:
        return "cuda-bindings, through which CUDA memory is managed, is not installed", install
    if driver is not None and numbers(cuda)[0] > driver:
        return (
            f"cuda-bindings {cuda} needs a driver for CUDA {numbers(cuda)[0]}, this one ends at {environment.cuda}",
            f'pip install "cuda-bindings<{driver + 1}"',
        )
    return None


def open_session(request: OpenRequest) -> TensorRTSession:
    """Opens an engine.

    Raises:
        MissingDependencyError: TensorRT or cuda-bindings is not installed or cannot be imported.
        EngineMismatchError: The engine was built for another TensorRT, GPU or system.
        UnsafeFileError: It brings host code, and `allow_host_code` was not given.
        ModelFileError: The file is missing or no engine.
        DeviceError: The device is not there, or not a CUDA device.
        DeviceMemoryError: The engine does not fit the device.
    """
    path = request.path
    if path is None:
        raise ModelFileError(
            f"package {request.package.name!r} has no engine to open", expected="an artifact of role 'graph'"
        )
    kind, index = split_device(request.device)
    if kind != "cuda":
        raise DeviceError("TensorRT runs on CUDA devices only", found=request.device, expected="cuda:0 …")
    tensorrt_api.require()
    if not path.is_file():
        raise ModelFileError(f"engine {path.name!r} is not there", found=str(path), expected="a file")
    from lensmount_tensorrt.session import open_on

    return open_on(index, path, request)
