"""onnxruntime on torch tensors: bound by address where they lie, answered where the graph ran.

On CUDA the session computes on a stream that torch knows (`user_compute_stream`), so that torch's work before and after
a run is ordered by the device, without the host waiting. Providers that do not take one are ordered by the host.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from lensmount.backend.device_tensors import fitting
from lensmount.backend.devices import split_device
from lensmount.backend.torch_place import import_torch
from lensmount_onnx.providers import CUDA

if TYPE_CHECKING:
    from lensmount.contracts.session import TensorSpec

STREAM_OPTION = "user_compute_stream"

Providers = list[tuple[str, dict[str, Any]]]


class Ordering(Protocol):
    """Puts a run between what torch does before and after it."""

    def before(self, tensors: Sequence[Any]) -> None:
        """Called with the inputs, before the run."""

    def after(self) -> None:
        """Called when the run was queued, or has ended."""


class OnHost:
    """For the CPU: everything has happened when a call returns."""

    def before(self, tensors: Sequence[Any]) -> None:
        """Nothing to wait for."""

    def after(self) -> None:
        """Nothing to wait for."""


class Waiting:
    """The host waits until torch's current stream has come to the inputs; onnxruntime's own run ends with its work.

    Args:
        cuda: `torch.cuda`.
        device: `cuda:0`.
    """

    def __init__(self, cuda: Any, device: str) -> None:
        self._cuda = cuda
        self._device = device

    def before(self, tensors: Sequence[Any]) -> None:
        """Waits."""
        self._cuda.current_stream(self._device).synchronize()

    def after(self) -> None:
        """The run has ended."""


class SharedStream:
    """The session's compute stream, which waits for torch's current one, and the other way round.

    Args:
        cuda: `torch.cuda`.
        device: `cuda:0`.

    Attributes:
        address: What onnxruntime takes for `user_compute_stream`.
    """

    def __init__(self, cuda: Any, device: str) -> None:
        self._cuda = cuda
        self._device = device
        self._stream = cuda.Stream(device=device)
        self.address = str(self._stream.cuda_stream)

    def before(self, tensors: Sequence[Any]) -> None:
        """The compute stream waits; the inputs' memory is not given to others before it has read them."""
        self._stream.wait_stream(self._cuda.current_stream(self._device))
        for tensor in tensors:
            tensor.record_stream(self._stream)

    def after(self) -> None:
        """Torch's current stream waits."""
        self._cuda.current_stream(self._device).wait_stream(self._stream)


def share_stream(chosen: Providers, device: str) -> SharedStream | None:
    """Gives CUDA's provider a stream of torch's; None where there is no such provider. Changes `chosen`."""
    for name, options in chosen:
        if name == CUDA and device.startswith("cuda"):
            stream = SharedStream(import_torch().cuda, device)
            options[STREAM_OPTION] = stream.address
            return stream
    return None


def ordering(session: Any, provider: str, device: str, stream: SharedStream | None) -> Ordering:
    """How runs are ordered, by what the opened session says of its stream."""
    if not device.startswith("cuda"):
        return OnHost()
    taken = session.get_provider_options().get(provider, {}).get(STREAM_OPTION)
    if stream is not None and str(taken) == stream.address:
        return stream
    return Waiting(import_torch().cuda, device)


class TensorRunner:
    """Runs a session on tensors. Safe to call from several threads: runs of one session take turns.

    Args:
        session: `onnxruntime.InferenceSession`.
        inputs: Its inputs.
        outputs: Its outputs.
        device: Where it runs.
        order: See `ordering`.
        options: onnxruntime's run options.
    """

    def __init__(
        self,
        session: Any,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        device: str,
        order: Ordering,
        options: Any,
    ) -> None:
        self._session = session
        self._inputs = inputs
        self._outputs = outputs
        self._kind, self._index = split_device(device)
        self._order = order
        self._options = options
        self._lock = threading.Lock()

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """See `lensmount.contracts.session.TensorSession`; outputs may lie in onnxruntime's memory, which they keep."""
        import numpy as np

        torch = import_torch()
        # A binding per call: it holds the call's arrays.
        binding = self._session.io_binding()
        tensors = [fitting(torch, feeds[spec.name], spec.name, spec.dtype) for spec in self._inputs]
        for spec, tensor in zip(self._inputs, tensors, strict=True):
            shape = tuple(tensor.shape)
            binding.bind_input(spec.name, self._kind, self._index, np.dtype(spec.dtype).type, shape, tensor.data_ptr())
        for spec in self._outputs:
            binding.bind_output(spec.name, self._kind, self._index)
        with self._lock:
            self._order.before(tensors)
            self._session.run_with_iobinding(binding, self._options)
            self._order.after()
        device = tensors[0].device
        values = zip(self._outputs, binding.get_outputs(), strict=True)
        return {spec.name: _as_tensor(torch, value, device, spec.dtype) for spec, value in values}


def _as_tensor(torch: Any, value: Any, device: Any, dtype: str) -> Any:
    """An `OrtValue` as a tensor: through DLPack, sharing its memory; over the host where onnxruntime is too old."""
    shared = hasattr(value, "__dlpack__")
    tensor = torch.from_dlpack(value) if shared else torch.from_numpy(value.numpy()).to(device)
    return tensor.bool() if dtype == "bool" else tensor
