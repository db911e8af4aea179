"""When a device runs out of memory: what was asked for, what is free, and the batch that would fit."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from lensmount.contracts.session import TensorSpec
from lensmount.errors import DeviceMemoryError

_SHARE = 0.9  # of what is free: allocators cut it into blocks
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_ASKED = (
    re.compile(r"[Tt]ried to allocate ([\d.]+)\s*([KMGT]?)(?:i?B|bytes)"),  # torch
    re.compile(r"requested buffer of size (\d+)()"),  # onnxruntime
)


class Meter(Protocol):
    """Memory of a device."""

    def free(self) -> int:
        """Bytes that a run could take now."""

    def peak_of(self, run: Callable[[], Any]) -> int:
        """Bytes that a run takes at its peak beyond what was taken before."""


def asked(text: str) -> int | None:
    """Bytes that a runtime's message says it could not get."""
    for pattern in _ASKED:
        found = pattern.search(text)
        if found:
            return int(float(found[1]) * _UNITS[found[2]])
    return None


def batch_of(inputs: tuple[TensorSpec, ...], feeds: Mapping[str, Any]) -> int | None:
    """The batch of a run that could have had another one; None where the graph fixes it or inputs differ in it."""
    if any(not spec.shape or isinstance(spec.shape[0], int) for spec in inputs):
        return None
    sizes = {int(feed.shape[0]) for feed in feeds.values() if len(feed.shape)}
    return sizes.pop() if len(sizes) == 1 else None


def fitting_batch(run: Callable[[int], Any], batch: int, meter: Meter | None) -> int | None:
    """The largest batch that fits, by running smaller ones.

    Args:
        run: Runs a batch of a size; raises where memory runs out.
        batch: The size that did not fit.
        meter: Measures what one and what two pictures take; without it batches are halved until one runs.

    Returns:
        A size below `batch`; 0 where not even one picture fits.
    """
    try:
        if meter is None:
            return _halved(run, batch)
        free = meter.free() * _SHARE
        one = meter.peak_of(lambda: run(1))
        two = meter.peak_of(lambda: run(2)) if batch > 2 else 2 * one
    except Exception:  # whatever a runtime raises for want of memory: this only adds to the error that is being raised
        return 0
    each = max(two - one, 1)
    return max(1, min(int((free - max(one - each, 0)) // each), batch - 1)) if batch > 1 else 0


def _halved(run: Callable[[int], Any], batch: int) -> int:
    size = batch // 2
    while size:
        try:
            run(size)
        except Exception:  # as above
            size //= 2
        else:
            return size
    return 0


def shortage(
    subject: str, device: str, said: str, *, batch: int | None, fits: int | None, free: int | None
) -> DeviceMemoryError:
    """The error, with the runtime's message in one line, the pictures of the run and `fitting_batch`'s answer."""
    requested = asked(said)
    facts = [f"a batch of {batch}"] if batch else []
    facts += [f"{_readable(requested)} asked for"] if requested else []
    facts += [f"{_readable(free)} free"] if free is not None else []
    expected, fix = None, "use a smaller batch, a smaller input size, precision='fp16' on a GPU, or a smaller model"
    if fits:
        expected = f"a batch of at most {fits}"
        fix = f"pass at most {fits} pictures at once (batch_size={fits}), or use a smaller input size or precision"
    elif fits == 0:
        expected = "memory for one picture"
        fix = "free memory on the device, use a smaller input size, precision='fp16' on a GPU, or a smaller model"
    found = f"{', '.join(facts)}: {said}" if facts else said
    error = DeviceMemoryError(f"{device!r} ran out of memory for {subject}", found=found, expected=expected, fix=fix)
    error.requested, error.free, error.fitting_batch = requested, free, fits
    return error


def _readable(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
