"""A machine with a GPU and TensorRT, for one test: the stand-ins of `tensorrt_stub` in the place of both."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lensmount.machine.environment import Environment, Gpu

STUB = Path(__file__).with_name("tensorrt_stub")
OURS = (
    "lensmount_tensorrt.cuda_memory",
    "lensmount_tensorrt.build",
    "lensmount_tensorrt.engine",
    "lensmount_tensorrt.lanes",
    "lensmount_tensorrt.log",
    "lensmount_tensorrt.pool",
    "lensmount_tensorrt.progress",
    "lensmount_tensorrt.session",
    "lensmount_tensorrt.tensors",
)
"""Modules of ours that keep a reference to TensorRT's."""


class Machine:
    """The simulated machine.

    Attributes:
        trt: The module `tensorrt`.
        gpu: `simulated_gpu.GPU`.
    """

    def __init__(self) -> None:
        self.trt: Any = importlib.import_module("tensorrt")
        simulated = importlib.import_module("simulated_gpu")
        self.gpu: Any = simulated.GPU
        self.misuse: type[AssertionError] = simulated.MisuseError
        self.become()

    def become(self, version: str = "10.13.0.35", capability: tuple[int, int] = (9, 0), **facts: Any) -> None:
        """Changes into another machine; what lies in its memory is gone."""
        self.trt._simulate(version)
        self.gpu.reset(capability=capability, **facts)

    @property
    def environment(self) -> Environment:
        """What `lensmount.machine.environment.detect` would say of it."""
        version = self.trt.__version__
        return Environment(
            gpus=tuple(
                Gpu(index=i, name=self.gpu.name, compute_capability="{}.{}".format(*self.gpu.capability))
                for i in range(self.gpu.devices)
            ),
            cuda="13.0",
            tensorrt=version,
            onnxruntime="onnxruntime",
            packages=(
                ("tensorrt", version),
                ("cuda-bindings", "13.0.1"),
                ("onnxruntime", "1.31.1"),
                ("torch", "2.13.0+cpu"),
            ),
        )


@contextmanager
def machine() -> Iterator[Machine]:
    """Puts the stand-ins where imports find them; afterwards, says what was done wrong or never given back."""
    _forget()
    sys.path.insert(0, str(STUB))
    importlib.invalidate_caches()
    try:
        made = Machine()
        yield made
        import gc

        gc.collect()
        assert made.gpu.mistakes == [], made.gpu.mistakes
        assert made.gpu.leaks() == [], made.gpu.leaks()
    finally:
        sys.path.remove(str(STUB))
        _forget()


def _forget() -> None:
    stubs = ("tensorrt", "cuda", "simulated_gpu")
    for name in [*sys.modules]:
        if name in OURS or name.partition(".")[0] in stubs:
            del sys.modules[name]
    package = sys.modules.get("lensmount_tensorrt")
    for name in OURS:
        if package is not None and hasattr(package, name.rpartition(".")[2]):
            delattr(package, name.rpartition(".")[2])
