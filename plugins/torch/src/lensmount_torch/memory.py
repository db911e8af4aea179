"""Memory of CUDA devices, as torch's allocator has it."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from lensmount.backend import memory
from lensmount.backend.torch_errors import brief

if TYPE_CHECKING:
    from lensmount.contracts.session import TensorSpec
    from lensmount.errors import DeviceMemoryError


class CudaMeter:
    """What is free on a CUDA device, with what torch holds and does not use.

    Args:
        torch: The module.
        device: `cuda:0`.
    """

    def __init__(self, torch: Any, device: str) -> None:
        self._cuda = torch.cuda
        self._device = device

    def free(self) -> int:
        """See `Meter.free`."""
        free, _ = self._cuda.mem_get_info(self._device)
        held = self._cuda.memory_reserved(self._device) - self._cuda.memory_allocated(self._device)
        return int(free + held)

    def peak_of(self, run: Callable[[], Any]) -> int:
        """See `Meter.peak_of`; torch's peak statistics of the device are reset."""
        before = self._cuda.memory_allocated(self._device)
        self._cuda.reset_peak_memory_stats(self._device)
        run()
        self._cuda.synchronize(self._device)
        return int(self._cuda.max_memory_allocated(self._device) - before)


def shortage(
    torch: Any,
    error: Exception,
    subject: str,
    device: str,
    inputs: tuple[TensorSpec, ...],
    feeds: Mapping[str, Any],
    forward: Callable[[Mapping[str, Any]], Any],
) -> DeviceMemoryError:
    """The error for a run that found no memory; on CUDA, one and two pictures are run again to measure them.

    Args:
        torch: The module.
        error: What torch raised; the tensors in its frames are let go of.
        subject: What ran, in words.
        device: Where.
        inputs: The network's inputs.
        feeds: What it was given.
        forward: Runs it.
    """
    said = brief(error)
    # The frames of the failed run hold its tensors.
    traceback.clear_frames(error.__traceback__)
    batch = memory.batch_of(inputs, feeds)
    free = fits = None
    if device.startswith("cuda"):
        meter = CudaMeter(torch, device)
        free = meter.free()
        torch.cuda.empty_cache()
        if batch is not None:
            fits = memory.fitting_batch(lambda size: forward({n: f[:size] for n, f in feeds.items()}), batch, meter)
    return memory.shortage(subject, device, said, batch=batch, fits=fits, free=free)
