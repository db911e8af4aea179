"""What can be installed on a machine: the command that brings a runtime, or why there is none to bring."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lensmount.machine.system import numbers

if TYPE_CHECKING:
    from lensmount.machine.environment import Environment, Gpu

TORCH_PAGE = "https://pytorch.org/get-started/locally"
LEAST_CAPABILITY = (7, 5)
"""What CUDA 13 compiles for at the least: it ended Maxwell, Pascal and Volta (its release notes). Nothing that is
compiled for a newer generation runs on an older one."""

_32_BIT = ("armv6l", "armv7l", "i386", "i686", "x86")


def obstacle(environment: Environment, runtime: str) -> str | None:
    """Why no wheel of `onnxruntime` or `torch` is published for this machine, and what to do; None where there is."""
    if environment.libc == "musl":
        return f"no wheels of {runtime} are published for musl; use a system with glibc (the image python:3.12-slim)"
    if environment.machine in _32_BIT:
        return f"no wheels of {runtime} are published for 32-bit systems ({environment.machine}); install a 64-bit one"
    if runtime == "torch" and environment.system == "darwin" and environment.machine == "x86_64":
        return (
            "no current torch is published for Macs with Intel processors; on Apple silicon, install a Python for "
            "arm64 (this one runs under Rosetta)"
        )
    return None


def cuda_build(environment: Environment, runtime: str, otherwise: str) -> str:
    """How to get a build of a runtime that uses this machine's GPU: from NVIDIA on a Jetson, `otherwise` elsewhere."""
    if environment.l4t is None:
        return otherwise
    return f"install NVIDIA's build of {runtime} for JetPack {environment.jetpack}: the common wheels know no Jetson"


def driver_too_old(environment: Environment, built: str | None) -> bool:
    """Whether the driver runs no program built for this CUDA version (`13.0`); minor versions do not matter."""
    if built is None or environment.cuda is None:
        return False
    return int(environment.cuda.split(".")[0]) < int(built.split(".")[0])


def too_old_for(environment: Environment, built: str | None) -> tuple[Gpu, ...]:
    """GPUs that a runtime built for this CUDA version (`13.0`) has no kernels for: their generation was ended."""
    if built is None or int(built.split(".")[0]) < 13:
        return ()
    return tuple(
        gpu for gpu in environment.gpus if gpu.compute_capability and numbers(gpu.compute_capability) < LEAST_CAPABILITY
    )


def no_kernels(runtime: str, gpus: tuple[Gpu, ...]) -> str:
    """Says that a runtime has no kernels for these GPUs."""
    named = ", ".join(f"{gpu.name} (compute capability {gpu.compute_capability})" for gpu in gpus)
    return f"{runtime} is built for CUDA 13, which ended {named}"
