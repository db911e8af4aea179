"""What is wrong with a machine's installation: why a GPU stands idle, why a runtime is not what its name says.

A pure function of what was found, so that other machines can be diagnosed from their description.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lensmount.backend.wheels import TORCH_PAGE
from lensmount.host.hints import FORMATS
from lensmount.machine.installed import ONNXRUNTIMES, OPENCVS
from lensmount.machine.system import numbers

if TYPE_CHECKING:
    from lensmount.host.discovery import PluginStatus
    from lensmount.machine.environment import Environment
    from lensmount.specs import Backend, BackendStatus

UNSEEN = {
    "no-library": (
        "an NVIDIA card is on the bus, but the driver's libraries are not here",
        "install NVIDIA's driver; in a container, install the NVIDIA Container Toolkit on the host and start with "
        "--gpus all",
    ),
    "driver-stopped": (
        "NVIDIA's driver is installed but does not run",
        "restart the machine; if that does not help, install the driver again (a new kernel wants it rebuilt)",
    ),
    "driver-mismatch": (
        "NVIDIA's kernel module and its libraries are of different versions: the driver was updated without a restart",
        "restart the machine",
    ),
    "hidden": ("CUDA_VISIBLE_DEVICES hides every GPU", "unset CUDA_VISIBLE_DEVICES, or name GPUs that exist"),
}
"""Problem and remedy by `Environment.gpus_unseen`."""

LEAST_CUDA = {10: (12, 8), 12: (12, 8), 11: (13, 0)}
"""The first CUDA toolkit that knows a generation of GPUs, by the major part of its compute capability: Blackwell from
12.8 on, Thor (numbered 11.0 since) from 13.0 on; from the toolkits' release notes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is not as it should be.

    Attributes:
        check: What was looked at: `gpu`, `onnx`, `torch`, `overlap`, `cudnn`, `plugin` …
        problem: One sentence.
        fix: What to do about it.
        serious: Something installed does not do what it is there for. Otherwise it is worth knowing, no more.
    """

    check: str
    problem: str
    fix: str | None = None
    serious: bool = True


def diagnose(
    environment: Environment, backends: Iterable[tuple[Backend, BackendStatus]], broken: Iterable[PluginStatus] = ()
) -> tuple[Finding, ...]:
    """All that is wrong, the gravest first: the machine, backends with their probe's answer, broken plugins."""
    known = list(backends)
    found = [*_machine(environment), *_backends(environment, known), *_overlaps(environment)]
    found += [*_cuda_libraries(environment), *_capabilities(environment), *_mac(environment)]
    found += [
        Finding(
            check="plugin",
            problem=f"plugin {plugin.name!r} was left out at {plugin.stage}: {plugin.error}",
            fix=f"pip install --upgrade {plugin.distribution}" if plugin.distribution else None,
        )
        for plugin in broken
    ]
    return tuple(sorted(found, key=lambda finding: not finding.serious))


def _machine(environment: Environment) -> Iterator[Finding]:
    if environment.gpus_unseen is not None:
        problem, fix = UNSEEN[environment.gpus_unseen]
        yield Finding(check="gpu", problem=problem, fix=fix, serious=environment.gpus_unseen != "hidden")


def _backends(environment: Environment, known: list[tuple[Backend, BackendStatus]]) -> Iterator[Finding]:
    if not any(status.usable for _, status in known):
        fixes = dict.fromkeys(status.fix or f'pip install "{backend.extra}"' for backend, status in known)
        fix = " or ".join(fixes or [FORMATS["onnx"], FORMATS["torch"]])
        yield Finding(check="backend", problem="no backend can run here", fix=fix)
    for backend, status in known:
        why = status.reason or ""
        broken = why.startswith("the probe of") or (backend.name == "onnx" and bool(environment.damaged))
        if why and (broken or status.usable):  # usable, but not on all that is there
            yield Finding(check=backend.name, problem=f"{backend.name}: {why}", fix=status.fix)


def _overlaps(environment: Environment) -> Iterator[Finding]:
    there = [name for name in ONNXRUNTIMES if environment.version(name)]
    if len(there) > 1:
        wanted = "onnxruntime-gpu" if environment.gpus and "onnxruntime-gpu" in there else environment.onnxruntime
        versions = ", ".join(f"{name} {environment.version(name)}" for name in there)
        yield Finding(
            check="overlap",
            problem=f"{versions} all install the module onnxruntime over one another; effective is the last that was "
            f"installed, {environment.onnxruntime}",
            fix=f"pip uninstall -y {' '.join(there)} && pip install {wanted}",
        )
    there = [name for name in OPENCVS if environment.version(name)]
    if len(there) > 1:
        yield Finding(
            check="overlap",
            problem=f"{', '.join(there)} all install the module cv2 over one another",
            fix=f"pip uninstall -y {' '.join(there)} && pip install {there[0]}",
            serious=False,
        )


def _cuda_libraries(environment: Environment) -> Iterator[Finding]:
    """What onnxruntime's CUDA build loads when it starts, from elsewhere; without it, it falls back to the CPU."""
    if not environment.gpus or environment.onnxruntime != "onnxruntime-gpu" or environment.system == "darwin":
        return
    version = environment.version("onnxruntime-gpu") or ""
    built = environment.onnxruntime_cuda
    major = (built or environment.cuda or "13").split(".")[0]
    jetson = environment.l4t is not None
    fix = "sudo apt install nvidia-jetpack" if jetson else f"pip install nvidia-cudnn-cu{major}"
    if environment.cudnn is None and environment.system == "windows":
        yield Finding(
            check="cudnn",
            problem="onnxruntime-gpu needs cuDNN; whether it is on the PATH is not looked up on Windows",
            fix=f"if CUDA fails to start: {fix}",
            serious=False,
        )
    elif environment.cudnn is None:
        yield Finding(check="cudnn", problem="onnxruntime-gpu needs cuDNN, and none was found", fix=fix)
    elif numbers(environment.cudnn) < (9,) and numbers(version) >= (1, 19):
        yield Finding(
            check="cudnn", problem=f"onnxruntime-gpu {version} needs cuDNN 9; found {environment.cudnn}", fix=fix
        )
    of_torch = _torch_cuda(environment)
    if built is not None and of_torch is not None and of_torch[0] != numbers(built)[0]:
        yield Finding(
            check="cuda",
            problem=f"torch brings libraries of CUDA {of_torch[0]}, onnxruntime-gpu needs those of CUDA {major}",
            fix='pip install "onnxruntime-gpu[cuda,cudnn]", or builds of both for one CUDA',
            serious=False,
        )


def _torch_cuda(environment: Environment) -> tuple[int, ...] | None:
    found = re.search(r"[+.]cu(\d+)(\d)$", environment.version("torch") or "")
    return (int(found[1]), int(found[2])) if found else None


def _capabilities(environment: Environment) -> Iterator[Finding]:
    """GPUs newer than the installed torch: it sees them, and fails at the first operation."""
    built = _torch_cuda(environment)
    if built is None or environment.l4t is not None:  # NVIDIA's builds for a Jetson are made for it
        return
    for gpu in environment.gpus:
        generation = numbers(gpu.compute_capability or "")[:1]
        if generation and built < LEAST_CUDA.get(generation[0], (0, 0)):
            yield Finding(
                check="torch",
                problem=f"torch {environment.version('torch')} was built with a CUDA older than {gpu.name} "
                f"(compute capability {gpu.compute_capability}), and has no kernels for it",
                fix=f"install a build for a newer CUDA: {TORCH_PAGE}",
            )


def _mac(environment: Environment) -> Iterator[Finding]:
    if environment.system != "darwin" or environment.machine != "arm64" or environment.mps:
        return
    yield Finding(
        check="mps",
        problem=f"Apple's GPU is not used: torch needs macOS 14 for it, this is {environment.release or 'older'}",
        fix="update macOS",
        serious=environment.version("torch") is not None,
    )
