"""torch on the simulated GPU: its tensors lie on torch's CPU device, in memory that the simulation takes for its own.

An operation that computes runs behind whatever its stream holds by then, as a kernel queued there would: what other
streams hold, it sees only where somebody ordered the streams. Memory of a tensor that is gone goes to whoever comes
next on torch's stream, who writes into it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

FREE = {
    "data_ptr",
    "empty",
    "is_contiguous",
    "size",
    "dim",
    "untyped_storage",
    "__get__",
    "numel",
    "element_size",
    "device",
}
"""Functions that queue nothing."""


class SimulatedTorch(TorchFunctionMode):
    """What the backend takes for torch while it is entered.

    Args:
        gpu: `simulated_gpu.GPU`.
        work: `simulated_gpu.Work`.
    """

    def __init__(self, gpu: Any, work: Any) -> None:
        super().__init__()
        self._gpu, self._work = gpu, work
        self._users: dict[int, set[int]] = {}  # tensors by the memory that they share
        self._free: list[np.ndarray] = []
        self.stream = gpu.default
        self.cuda = SimpleNamespace(
            current_stream=lambda device: SimpleNamespace(cuda_stream=self.stream.number),
            device_count=lambda: gpu.devices,
            is_available=lambda: True,
        )

    def device(self, name: str, index: int | None = None) -> torch.device:
        """Where tensors lie, in disguise."""
        return torch.device("cpu")

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def queue(self, run: Callable[[], None]) -> None:
        """A kernel on torch's stream."""
        self._gpu.enqueue(self.stream, self._work(run, (), "torch"))

    def host(self, tensor: Tensor) -> np.ndarray:
        """What a download gives: it waits for torch's stream, and for nothing else."""
        self._gpu.drain(self.stream)
        with torch._C.DisableTorchFunction():
            return tensor.numpy().copy()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        kwargs = kwargs or {}
        if name not in FREE and not self._does_nothing(name, args):
            self._gpu.drain(self.stream)
        made = func(*args, **kwargs)
        if isinstance(made, Tensor):
            self._adopt(made)
        return made

    def _does_nothing(self, name: str, args: Any) -> bool:
        with torch._C.DisableTorchFunction():
            same = name == "to" and len(args) == 2 and args[0].dtype == args[1]
            return same or (name == "contiguous" and args[0].is_contiguous())

    def empty(self, shape: tuple[int, ...], *, dtype: torch.dtype, device: Any) -> Tensor:
        """Memory that was given back, be its stream still busy with it, where some has the size; else new memory."""
        with torch._C.DisableTorchFunction():  # allocating queues nothing
            made = torch.empty(shape, dtype=dtype)
            fitting = [data for data in self._free if data.nbytes == made.numel() * made.element_size()]
            if fitting and fitting[-1].nbytes:
                self._free = [data for data in self._free if data is not fitting[-1]]
                made = torch.from_numpy(fitting[-1]).view(dtype).reshape(shape)
            self._adopt(made)
        return made

    def _adopt(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        address = storage.data_ptr()
        if not address:
            return
        known = self._gpu.blocks.get(address)
        if known is None or not known.alive:
            # A view of our own: the memory outlives the tensor, as a block of an allocator's does.
            data = torch.empty(0, dtype=torch.uint8).set_(storage).numpy()
            self._gpu.adopt(address, data)
        users = self._users.setdefault(address, set())
        if id(tensor) not in users:
            users.add(id(tensor))
            weakref.finalize(tensor, self._gone, address, id(tensor)).atexit = False

    def _gone(self, address: int, number: int) -> None:
        users, block = self._users[address], self._gpu.blocks.get(address)
        users.discard(number)
        if users or block is None or not block.adopted:
            return
        data = block.data

        def scribble() -> None:
            data[:] = 0xEE

        self.queue(scribble)  # the next owner, on the stream that it was allocated on
        self._free.append(data)


@contextmanager
def simulated(machine: Any, monkeypatch: Any) -> Iterator[SimulatedTorch]:
    """torch on a `tensorrt_machine`, where the backend looks for it."""
    import importlib

    made = SimulatedTorch(machine.gpu, importlib.import_module("simulated_gpu").Work)
    for module in ("lensmount.backend.device_tensors", "lensmount_tensorrt.tensors"):
        monkeypatch.setattr(f"{module}.import_torch", lambda: made)
    yield made
    machine.gpu.drain(made.stream)
