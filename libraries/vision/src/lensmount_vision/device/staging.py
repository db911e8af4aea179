"""Host arrays to the device, each once, through page-locked buffers that are used again."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lensmount_vision.images.torch_streams import Marker, Runtime

SLOTS = 4  # buffers of one thread: while one is filled, copies from the others run
SLOT_BYTES = 16 * 2**20  # the most that one holds; larger arrays go in pieces


class _Slot:
    __slots__ = ("buffer", "busy")

    def __init__(self) -> None:
        self.buffer: Tensor | None = None
        self.busy: Marker | None = None


class Staging:
    """Uploads arrays. Thread-safe: each thread has buffers of its own, `SLOTS` of at most `SLOT_BYTES`.

    A copy from page-locked memory is only queued when `upload` returns; a buffer is filled again after the event behind
    its last copy. The array itself may change or go as soon as `upload` has returned.

    Args:
        runtime: Device, memory and events.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._threads = threading.local()

    def upload(self, arrays: Sequence[NDArray[Any]]) -> Tensor:
        """Copies arrays of one shape and dtype to the device.

        Args:
            arrays: One or more; strides may be anything, negative ones cost a copy.

        Returns:
            `(N, …)` on the device, contiguous, ordered on the current stream.
        """
        first = torch.from_numpy(np.empty(0, arrays[0].dtype))
        target = torch.empty((len(arrays), *arrays[0].shape), dtype=first.dtype, device=self._runtime.device)
        if self._runtime.device.type == "cpu":
            for place, array in zip(target, arrays, strict=True):
                place.copy_(_as_tensor(array))
            return target
        for place, array in zip(target, arrays, strict=True):
            for part, source in _pieces(place, _as_tensor(array)):
                self._copy(part, source)
        return target

    def _copy(self, target: Tensor, source: Tensor) -> None:
        slot = self._next()
        count = source.numel() * source.element_size()
        if slot.busy is not None:
            slot.busy.synchronize()
        if slot.buffer is None or slot.buffer.numel() < count:
            slot.buffer = self._runtime.pinned(count)
        held = slot.buffer[:count].view(source.dtype).view(source.shape)
        held.copy_(source)  # torch's copy, which shares a large one among its threads
        target.copy_(held, non_blocking=True)
        slot.busy = self._runtime.mark()

    def _next(self) -> _Slot:
        ring: list[_Slot] | None = getattr(self._threads, "ring", None)
        if ring is None:
            ring = self._threads.ring = [_Slot() for _ in range(SLOTS)]
        ring.append(ring.pop(0))
        return ring[-1]


def _pieces(target: Tensor, source: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of views of whole rows, as many as a buffer holds, and of parts of rows where one alone is too long."""
    size = source.numel() * source.element_size()
    if size <= SLOT_BYTES:
        yield target, source
        return
    if len(source) == 1 or source.ndim == 0:
        yield from _pieces(target[0], source[0])
        return
    step = max(1, SLOT_BYTES * len(source) // size)
    for start in range(0, len(source), step):
        yield from _pieces(target[start : start + step], source[start : start + step])


class _Unlocked:
    """Shows a read-only array's memory as writable: torch warns of others, and only reads it here."""

    def __init__(self, array: NDArray[Any]) -> None:
        facts = dict(array.__array_interface__)
        facts["data"] = (facts["data"][0], False)
        self.__array_interface__ = facts
        self.array = array


def _as_tensor(array: NDArray[Any]) -> Tensor:
    if any(stride < 0 for stride in array.strides):
        array = np.ascontiguousarray(array)
    return torch.from_numpy(array if array.flags.writeable else np.asarray(_Unlocked(array)))
