"""What is particular to CUDA, behind one face: pinned memory, events, streams.

Everything of a call runs on the stream that is current, in the calling thread, on the model's device. So what a caller
made on that stream is ordered before it, and no other stream waits for anything.
"""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from itertools import accumulate
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ALIGNMENT = 16  # bytes, of each array in a download


class Marker(Protocol):
    """A place in the work queued on a device (`torch.cuda.Event`)."""

    def synchronize(self) -> None:
        """Waits, on the host, until the device has come there."""


class Runtime(Protocol):
    """A device as the device path needs it."""

    @property
    def device(self) -> torch.device:
        """Where tensors lie."""

    def current(self) -> AbstractContextManager[Any]:
        """Makes the device torch's current one."""

    def pinned(self, count: int) -> Tensor:
        """`count` bytes of host memory that copies to the device can be queued from."""

    def mark(self) -> Marker:
        """Marks the end of what is queued on the current stream."""

    def after(self, marker: Marker) -> None:
        """Lets what is queued from now on wait for a place that may lie on another stream."""

    def claim(self, tensor: Tensor) -> None:
        """Keeps a tensor's memory from other uses until what is queued now has ended, whatever stream it is from."""


class HostRuntime:
    """torch's CPU device, and others without streams: work is done when a call returns."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def current(self) -> AbstractContextManager[Any]:
        """Nothing to make current."""
        return nullcontext()

    def pinned(self, count: int) -> Tensor:
        """Plain memory."""
        return torch.empty(count, dtype=torch.uint8, device="cpu")

    def mark(self) -> Marker:
        """A place that was reached already."""
        return _REACHED

    def after(self, marker: Marker) -> None:
        """Nothing to wait for."""

    def claim(self, tensor: Tensor) -> None:
        """Nothing to keep."""


class CudaRuntime:
    """A CUDA device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def current(self) -> AbstractContextManager[Any]:
        """`torch.cuda.device`."""
        return torch.cuda.device(self.device)

    def pinned(self, count: int) -> Tensor:
        """Page-locked memory."""
        return torch.empty(count, dtype=torch.uint8, device="cpu", pin_memory=True)

    def mark(self) -> Marker:
        """An event on the current stream."""
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch has no annotation
        event.record(torch.cuda.current_stream(self.device))
        return event

    def after(self, marker: Marker) -> None:
        """The current stream waits for the event."""
        assert isinstance(marker, torch.cuda.Event)
        torch.cuda.current_stream(self.device).wait_event(marker)

    def claim(self, tensor: Tensor) -> None:
        """`record_stream` with the current stream."""
        tensor.record_stream(torch.cuda.current_stream(self.device))


class _Reached:
    def synchronize(self) -> None:
        """Already there."""


_REACHED = _Reached()


def put(array: NDArray[Any], device: torch.device) -> Tensor:
    """A small array on a device, without waiting for what is queued there.

    CUDA reads plain host memory before such a copy returns, so the array may go.
    """
    return torch.from_numpy(array).to(device, non_blocking=device.type == "cuda")


class Passenger:
    """A small tensor that comes to the host with the next `fetch` of this thread, or by itself if there is none."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.array: NDArray[Any] | None = None
        _passengers().append(self)

    def read(self) -> NDArray[Any]:
        """Its values."""
        if self in _passengers():
            _passengers().remove(self)
        if self.array is None:
            self.array = _download(self.tensor)
        return self.array


_LOCAL = threading.local()


def _passengers() -> list[Passenger]:
    waiting: list[Passenger] = _LOCAL.__dict__.setdefault("waiting", [])
    return waiting


def fetch(*tensors: Tensor) -> list[NDArray[Any]]:
    """Brings tensors of one device to the host in one download, which waits for what is queued on the current stream.

    Several are laid end to end on the device first; their arrays are parts of one piece of memory.

    Args:
        tensors: Of any shapes and of dtypes that numpy has.
    """
    along = [passenger for passenger in _passengers() if passenger.tensor.device == tensors[0].device]
    if along:
        _LOCAL.waiting = [passenger for passenger in _passengers() if passenger not in along]
        brought = _packed(*tensors, *(passenger.tensor for passenger in along))
        for passenger, array in zip(along, brought[len(tensors) :], strict=True):
            passenger.array = array.copy()
        return brought[: len(tensors)]
    return [_download(tensors[0])] if len(tensors) == 1 else _packed(*tensors)


def _packed(*tensors: Tensor) -> list[NDArray[Any]]:
    sizes = [tensor.numel() * tensor.element_size() for tensor in tensors]
    starts = list(accumulate((-(-size // ALIGNMENT) * ALIGNMENT for size in sizes), initial=0))
    packed = torch.empty(starts[-1], dtype=torch.uint8, device=tensors[0].device)
    for tensor, start, size in zip(tensors, starts, sizes, strict=False):
        packed[start : start + size] = tensor.reshape(-1).view(torch.uint8)
    host = _download(packed)
    return [
        host[start : start + size].view(_numpy(tensor.dtype)).reshape(tensor.shape)
        for tensor, start, size in zip(tensors, starts, sizes, strict=False)
    ]


def _download(tensor: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.cpu().numpy()
    return array


def _numpy(dtype: torch.dtype) -> np.dtype[Any]:
    return np.dtype(str(dtype).removeprefix("torch."))


def runtime_for(device: str | torch.device) -> Runtime:
    """The runtime of a device: `cuda:0`, `cpu`, `mps`."""
    place = torch.device(device)
    return CudaRuntime(place) if place.type == "cuda" else HostRuntime(place)
