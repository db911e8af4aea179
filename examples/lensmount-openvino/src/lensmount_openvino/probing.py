"""What of this machine OpenVINO could use, from installed metadata and the system's files: OpenVINO is not imported."""

from __future__ import annotations

from pathlib import Path

from lensmount.contracts import Environment
from lensmount.specs import BackendStatus

INSTALL = "pip install lensmount-openvino"
INTEL = "0x8086"
"""Intel's number among the vendors of PCI devices."""

PRECISIONS = (("cpu", ("fp32", "fp16", "bf16", "int8")), ("xpu", ("fp32", "fp16", "int8")), ("npu", ("fp16", "int8")))
"""Precisions by kind of device; fp16 and bf16 on a CPU only where it has the instructions (else: float32)."""


def probe(environment: Environment) -> BackendStatus:
    """Whether OpenVINO can run here, and on what.

    `cpu` alone has a rank; Intel GPUs (`xpu:0`, as torch calls them) and NPUs (`npu`) are there for who asks. On Linux
    the kernel's files tell of them. Elsewhere only the driver could, which a probe does not call: there `xpu:0` and
    `npu` are taken as given, and OpenVINO says at load whether they are.
    """
    version = environment.version("openvino")
    if version is None:
        return BackendStatus(usable=False, reason="openvino is not installed", fix=INSTALL)
    devices = ("cpu", *accelerators(environment.system))
    kinds = {device.partition(":")[0] for device in devices}
    return BackendStatus(
        usable=True, version=version, devices=devices, precisions=tuple(p for p in PRECISIONS if p[0] in kinds)
    )


def accelerators(system: str, root: Path = Path("/")) -> tuple[str, ...]:
    """Devices other than the CPU.

    Args:
        system: `linux`, `darwin`, `windows`.
        root: Folder that stands for `/`.
    """
    if system == "darwin":
        return ()
    if system != "linux":
        return ("xpu:0", "npu")
    gpus = _of_intel(root / "sys/class/drm", "renderD*")
    npus = _of_intel(root / "sys/class/accel", "accel*")
    return (*(f"xpu:{index}" for index in range(gpus)), *(("npu",) if npus else ()))


def _of_intel(folder: Path, pattern: str) -> int:
    vendors: list[str] = []
    for entry in folder.glob(pattern):
        try:
            vendors.append((entry / "device/vendor").read_text(encoding="ascii").strip())
        except (OSError, UnicodeDecodeError):
            continue
    return vendors.count(INTEL)
