"""CUDA memory, streams, events and graphs through `cuda-bindings`: what the TensorRT backend needs, without torch.

`cuda-bindings` is NVIDIA's own thin wrapper of the CUDA runtime: 10 MB, no compiler, no torch. Every function answers
a tuple that begins with the error; `Cuda` turns errors into ours. Addresses are plain ints. Importing this module
imports `cuda.bindings`.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
from collections.abc import Iterator
from typing import Any, TypeVar, overload

import numpy as np
from cuda.bindings import runtime
from numpy.typing import NDArray

from lensmount.errors import BackendError, DeviceError, DeviceMemoryError, LensmountError

T = TypeVar("T")


class Cuda:
    """The CUDA runtime on one device.

    Args:
        index: The device's number among those that CUDA sees.

    Raises:
        DeviceError: There is no such device, or the driver is missing or too old.
    """

    def __init__(self, index: int) -> None:
        self.index = index
        count = self._devices()
        if not 0 <= index < count:
            raise DeviceError(
                f"there is no device 'cuda:{index}'",
                found=f"{count} CUDA devices",
                expected=f"cuda:0 to cuda:{count - 1}" if count else "a CUDA device",
                fix="lensmount doctor",
            )

    def _devices(self) -> int:
        error, count = runtime.cudaGetDeviceCount()
        if error != runtime.cudaError_t.cudaSuccess:
            raise DeviceError(
                "CUDA does not start on this machine",
                found=self.describe(error),
                expected="an NVIDIA GPU with a driver that is new enough for the installed cuda-bindings",
                fix='update the driver, or take an older release: pip install "cuda-bindings<13"; lensmount doctor',
            )
        return count

    def describe(self, error: runtime.cudaError_t) -> str:
        """Name and text of an error, as CUDA has them."""
        _, name = runtime.cudaGetErrorName(error)
        _, text = runtime.cudaGetErrorString(error)
        return f"{name.decode()}: {text.decode()}"

    @overload
    def check(self, result: tuple[runtime.cudaError_t], doing: str) -> None: ...

    @overload
    def check(self, result: tuple[runtime.cudaError_t, T], doing: str) -> T: ...

    def check(self, result: tuple[Any, ...], doing: str) -> Any:
        """The value of a call behind its error, or None.

        Raises:
            DeviceMemoryError: The device (or page-locked host memory) is exhausted.
            BackendError: Any other error.
        """
        error, *values = result
        if error != runtime.cudaError_t.cudaSuccess:
            raise self.failure(error, doing)
        return values[0] if values else None

    def failure(self, error: runtime.cudaError_t, doing: str) -> LensmountError:
        """Our error for one of CUDA's."""
        runtime.cudaGetLastError()  # else the next call of anybody in this thread may be told of it
        if error == runtime.cudaError_t.cudaErrorMemoryAllocation:
            return DeviceMemoryError(
                f"'cuda:{self.index}' is out of memory while {doing}",
                found=f"{self.describe(error)}; {self.memory()}",
                fix="use a smaller batch or input size, fewer contexts, or a smaller model",
            )
        return BackendError(f"CUDA failed while {doing} on 'cuda:{self.index}'", found=self.describe(error))

    def memory(self) -> str:
        """Free and total memory of the device, in words."""
        error, free, total = runtime.cudaMemGetInfo()
        if error != runtime.cudaError_t.cudaSuccess:
            return "free memory unknown"
        return f"{free >> 20:,} of {total >> 20:,} MiB free"

    def free_bytes(self) -> int:
        """Free memory of the device."""
        _, free, _ = runtime.cudaMemGetInfo()
        return int(free or 0)

    def capability(self) -> str:
        """Compute capability: `8.6`."""
        attributes = runtime.cudaDeviceAttr
        numbers = [
            self.check(runtime.cudaDeviceGetAttribute(attribute, self.index), "reading its compute capability")
            for attribute in (
                attributes.cudaDevAttrComputeCapabilityMajor,
                attributes.cudaDevAttrComputeCapabilityMinor,
            )
        ]
        return f"{numbers[0]}.{numbers[1]}"

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Makes this device the calling thread's, and puts the thread's own back: other libraries share the setting."""
        before = self.check(runtime.cudaGetDevice(), "reading the current device")
        if before == self.index:
            yield
            return
        self.check(runtime.cudaSetDevice(self.index), "choosing the device")
        try:
            yield
        finally:
            runtime.cudaSetDevice(before)


class DeviceBuffer:
    """Bytes on the device; `free` gives them back.

    Args:
        cuda: The device.
        size: Bytes.
        what: What they are for, in words.
        alignment: The address is a multiple of this; CUDA itself promises 256.

    Raises:
        DeviceMemoryError: There is no room.
    """

    def __init__(self, cuda: Cuda, size: int, what: str, alignment: int = 256) -> None:
        self._cuda = cuda
        self.size = size
        slack = alignment if alignment > 256 else 0
        # CUDA answers a request for nothing with no address; a tensor without elements still needs one.
        doing = f"allocating {size:,} bytes for {what}"
        self._base: int = cuda.check(runtime.cudaMalloc(max(size, 1) + slack), doing)
        self.address = -(-self._base // alignment) * alignment if slack else self._base

    def free(self) -> None:
        """Gives the memory back; a second call does nothing."""
        if self._base:
            runtime.cudaFree(self._base)
            self._base = self.address = 0


class PinnedBuffer:
    """Page-locked host memory: the only kind that a copy can leave or reach while the host goes on.

    Attributes:
        view: The memory as uint8 `(size,)`; not to be used after `free`.
    """

    def __init__(self, cuda: Cuda, size: int, what: str) -> None:
        self._cuda = cuda
        self.size = size
        self.address: int = cuda.check(
            runtime.cudaMallocHost(max(size, 1)), f"page-locking {size:,} bytes of host memory for {what}"
        )
        memory = (ctypes.c_uint8 * max(size, 1)).from_address(self.address)
        self.view: NDArray[np.uint8] = np.ctypeslib.as_array(memory)[:size]

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """The beginning of the memory as an array of this shape; a view."""
        return self.view[: math.prod(shape) * dtype.itemsize].view(dtype).reshape(shape)

    def free(self) -> None:
        """Gives the memory back; a second call does nothing."""
        if self.address:
            runtime.cudaFreeHost(self.address)
            self.address = 0


class Stream:
    """A stream of its own, which does not wait for the default stream, with an event at the end of what was queued.

    The event is waited for instead of the stream or the device: it marks the end of one run and blocks no other, and
    the waiting thread sleeps instead of spinning.
    """

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self.handle = cuda.check(runtime.cudaStreamCreateWithFlags(runtime.cudaStreamNonBlocking), "making a stream")
        flags = runtime.cudaEventDisableTiming | runtime.cudaEventBlockingSync
        self._done = cuda.check(runtime.cudaEventCreateWithFlags(flags), "making an event")
        self._open = True

    @property
    def number(self) -> int:
        """The handle as a number, as TensorRT takes it."""
        return int(self.handle)

    def upload(self, source: PinnedBuffer, target: DeviceBuffer, size: int) -> None:
        """Queues a copy from the host to the device."""
        kind = runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._copy(target.address, source.address, size, kind, "copying to the device")

    def download(self, source: DeviceBuffer, target: PinnedBuffer, size: int) -> None:
        """Queues a copy from the device to the host."""
        kind = runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._copy(target.address, source.address, size, kind, "copying to the host")

    def copy(self, source: int, target: int, size: int) -> None:
        """Queues a copy between addresses on the device."""
        kind = runtime.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        self._copy(target, source, size, kind, "copying on the device")

    def after(self, other: int) -> None:
        """Lets what is queued from now on wait, on the device, for what another library's stream holds by now."""
        self._order(runtime.cudaStream_t(other), self.handle)

    def before(self, other: int) -> None:
        """Lets what is queued from now on on another library's stream wait for what this one holds by now."""
        self._order(self.handle, runtime.cudaStream_t(other))

    def _order(self, first: runtime.cudaStream_t, then: runtime.cudaStream_t) -> None:
        # A wait is for the event as it was when the wait was queued: one event serves any number of orders.
        self._cuda.check(runtime.cudaEventRecord(self._done, first), "recording an event")
        self._cuda.check(runtime.cudaStreamWaitEvent(then, self._done, 0), "ordering two streams")

    def _copy(self, target: int, source: int, size: int, kind: runtime.cudaMemcpyKind, doing: str) -> None:
        if size:
            self._cuda.check(runtime.cudaMemcpyAsync(target, source, size, kind, self.handle), doing)

    def wait(self) -> None:
        """Waits until everything queued so far is done.

        Raises:
            BackendError: Something queued failed.
        """
        self._cuda.check(runtime.cudaEventRecord(self._done, self.handle), "recording an event")
        self._cuda.check(runtime.cudaEventSynchronize(self._done), "waiting for the device")

    def drain(self) -> None:
        """Waits for what is queued, whatever becomes of it: before memory is freed that it uses."""
        if self._open:
            runtime.cudaStreamSynchronize(self.handle)

    def free(self) -> None:
        """Waits for what is queued, and lets go; a second call does nothing."""
        if self._open:
            self.drain()
            self._open = False
            runtime.cudaEventDestroy(self._done)
            runtime.cudaStreamDestroy(self.handle)


class CapturedGraph:
    """What was queued on a stream inside `capture`, ready to be launched again in one call."""

    def __init__(self, cuda: Cuda, executable: runtime.cudaGraphExec_t) -> None:
        self._cuda = cuda
        self._executable: runtime.cudaGraphExec_t | None = executable

    def launch(self, stream: Stream) -> None:
        """Queues all of it on a stream."""
        assert self._executable is not None, "the graph was freed"
        self._cuda.check(runtime.cudaGraphLaunch(self._executable, stream.handle), "launching a CUDA graph")

    def free(self) -> None:
        """Lets go; a second call does nothing."""
        if self._executable is not None:
            runtime.cudaGraphExecDestroy(self._executable)
            self._executable = None


class Recorder:
    """Holds the graph once `capture` has ended well."""

    graph: CapturedGraph | None = None


@contextlib.contextmanager
def capture(cuda: Cuda, stream: Stream) -> Iterator[Recorder]:
    """Records what is queued on a stream in the block, instead of running it.

    Raises:
        BackendError: Something in the block cannot be captured. The stream is usable again.
    """
    # Thread-local: what other threads do with CUDA meanwhile (allocate, say) neither fails nor spoils this capture.
    mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
    recorder = Recorder()
    cuda.check(runtime.cudaStreamBeginCapture(stream.handle, mode), "beginning to capture a CUDA graph")
    try:
        yield recorder
    except BaseException:
        _, unfinished = runtime.cudaStreamEndCapture(stream.handle)
        if unfinished:
            runtime.cudaGraphDestroy(unfinished)
        runtime.cudaGetLastError()
        raise
    graph = cuda.check(runtime.cudaStreamEndCapture(stream.handle), "capturing a CUDA graph")
    try:
        executable = cuda.check(runtime.cudaGraphInstantiate(graph, 0), "instantiating a CUDA graph")
    finally:
        runtime.cudaGraphDestroy(graph)
    recorder.graph = CapturedGraph(cuda, executable)
