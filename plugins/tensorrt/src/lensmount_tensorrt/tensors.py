"""Runs of an engine on torch tensors: what lies on the device stays there, and the host waits for nothing.

Inputs are copied on the device from where torch has them to the addresses that the engine is bound to, and outputs from
there into tensors of torch's: a few microseconds, for which the recorded graph stays good whatever tensors come. The
lane's stream waits for the stream that is current in the calling thread, and that one for the lane's. So torch's
allocator may give the memory of inputs to others as soon as a call has returned: their work is queued behind it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from lensmount.backend.device_tensors import fitting
from lensmount.backend.torch_place import import_torch
from lensmount.errors import BackendError
from lensmount_tensorrt.lanes import Prepared

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lensmount_tensorrt.engine import Tensor

UNKNOWN = ("FP8",)
"""Types whose rounding is not torch's: engines that have them keep to host arrays."""


def takes_tensors(tensors: Sequence[Tensor]) -> bool:
    """Whether torch has all these types."""
    return not any(tensor.kind in UNKNOWN for tensor in tensors)


class PreparedTensors(Prepared):
    """Runs of one set of input shapes, between tensors on the engine's device."""

    hosted: ClassVar[bool] = False

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Queues a run. Where sizes of outputs depend on the data, it is waited for.

        Raises:
            BackendError: A tensor lies elsewhere, or has another type.
        """
        torch = import_torch()
        place = torch.device(self._engine.device)
        tensors = [self._fitting(torch, place, tensor, feeds[tensor.name]) for tensor in self._engine.inputs]
        caller: int = torch.cuda.current_stream(place).cuda_stream
        self._stream.after(caller)
        for tensor, given in zip(self._engine.inputs, tensors, strict=True):
            self._stream.copy(given.data_ptr(), self._device[tensor.name].address, self._size(tensor))
        self._launch()
        # torch may have given us memory that its stream still reads: copies into it come behind that.
        made = {
            tensor.name: torch.empty(self._shapes[tensor.name], dtype=_dtype(torch, tensor), device=place)
            for tensor in self._engine.outputs
        }
        self._stream.after(caller)
        for tensor in self._engine.outputs:
            self._stream.copy(self._device[tensor.name].address, made[tensor.name].data_ptr(), self._size(tensor))
        self._stream.before(caller)
        if self._allocators:
            self._wait()
        return {name: value.float() if value.dtype == torch.bfloat16 else value for name, value in made.items()}

    def _queue(self) -> None:
        """The engine alone: copies are of other tensors each time."""
        self._require(self._context.execute_async_v3(self._stream.number))

    def _size(self, tensor: Tensor) -> int:
        return math.prod(self._shapes[tensor.name]) * tensor.dtype.itemsize

    def _fitting(self, torch: Any, place: Any, tensor: Tensor, given: Any) -> Any:
        if given.device != place:
            raise BackendError(
                f"input {tensor.name!r} of {self._engine.subject} lies on another device",
                found=str(given.device),
                expected=str(place),
            )
        return fitting(torch, given, tensor.name, _name(tensor))


def _name(tensor: Tensor) -> str:
    return "bfloat16" if tensor.kind == "BF16" else tensor.stored


def _dtype(torch: Any, tensor: Tensor) -> Any:
    return getattr(torch, _name(tensor))
