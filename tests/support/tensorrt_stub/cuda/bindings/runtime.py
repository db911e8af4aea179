"""A stand-in for `cuda.bindings.runtime`: the same names, on `simulated_gpu`."""

from __future__ import annotations

import threading
from enum import IntEnum
from typing import Any

from simulated_gpu import GPU, POISON, Event, Stream, Work


class cudaError_t(IntEnum):  # noqa: N801
    cudaSuccess = 0  # noqa: N815
    cudaErrorInvalidValue = 1  # noqa: N815
    cudaErrorMemoryAllocation = 2  # noqa: N815
    cudaErrorInsufficientDriver = 35  # noqa: N815
    cudaErrorNoDevice = 100  # noqa: N815
    cudaErrorInvalidDevice = 101  # noqa: N815
    cudaErrorInvalidResourceHandle = 400  # noqa: N815
    cudaErrorStreamCaptureUnsupported = 900  # noqa: N815
    cudaErrorStreamCaptureInvalidated = 901  # noqa: N815


class cudaMemcpyKind(IntEnum):  # noqa: N801
    cudaMemcpyHostToHost = 0  # noqa: N815
    cudaMemcpyHostToDevice = 1  # noqa: N815
    cudaMemcpyDeviceToHost = 2  # noqa: N815
    cudaMemcpyDeviceToDevice = 3  # noqa: N815


class cudaStreamCaptureMode(IntEnum):  # noqa: N801
    cudaStreamCaptureModeGlobal = 0  # noqa: N815
    cudaStreamCaptureModeThreadLocal = 1  # noqa: N815
    cudaStreamCaptureModeRelaxed = 2  # noqa: N815


class cudaDeviceAttr(IntEnum):  # noqa: N801
    cudaDevAttrComputeCapabilityMajor = 75  # noqa: N815
    cudaDevAttrComputeCapabilityMinor = 76  # noqa: N815


cudaStreamNonBlocking = 1  # noqa: N816
cudaEventBlockingSync = 1  # noqa: N816
cudaEventDisableTiming = 2  # noqa: N816

OK = cudaError_t.cudaSuccess


class _Handle:
    def __init__(self, init_value: int = 0) -> None:
        self._value = init_value

    def __int__(self) -> int:
        return self._value


class cudaStream_t(_Handle):  # noqa: N801
    pass


class cudaEvent_t(_Handle):  # noqa: N801
    pass


class cudaGraph_t(_Handle):  # noqa: N801
    pass


class cudaGraphExec_t(_Handle):  # noqa: N801
    pass


def _spoils_capture() -> bool:
    """Whether this thread is capturing: then what synchronises or allocates ends the capture."""
    stream = GPU.capturing()
    if stream is not None:
        stream.invalidated = True
    return stream is not None


def _stream(handle: Any, doing: str) -> Stream:
    stream = GPU.streams.get(int(handle)) if int(handle) else GPU.default
    if stream is None or not stream.alive:
        raise GPU.mistake(f"{doing}: no such stream")
    return stream


def cudaGetErrorName(error: cudaError_t) -> tuple[cudaError_t, bytes]:  # noqa: N802
    return OK, error.name.encode()


def cudaGetErrorString(error: cudaError_t) -> tuple[cudaError_t, bytes]:  # noqa: N802
    return OK, {2: b"out of memory", 35: b"CUDA driver version is insufficient"}.get(int(error), b"an error")


def cudaGetLastError() -> tuple[cudaError_t]:  # noqa: N802
    return (OK,)


def cudaGetDeviceCount() -> tuple[cudaError_t, int | None]:  # noqa: N802
    return (OK, GPU.devices) if GPU.driver else (cudaError_t.cudaErrorInsufficientDriver, None)


def cudaGetDevice() -> tuple[cudaError_t, int]:  # noqa: N802
    return OK, getattr(GPU.current, "device", 0)


def cudaSetDevice(device: int) -> tuple[cudaError_t]:  # noqa: N802
    if not 0 <= device < GPU.devices:
        return (cudaError_t.cudaErrorInvalidDevice,)
    GPU.current.device = device
    return (OK,)


def cudaDeviceGetAttribute(attr: cudaDeviceAttr, device: int) -> tuple[cudaError_t, int]:  # noqa: N802
    return OK, GPU.capability[attr - cudaDeviceAttr.cudaDevAttrComputeCapabilityMajor]


def cudaMemGetInfo() -> tuple[cudaError_t, int, int]:  # noqa: N802
    return OK, GPU.memory - GPU.used, GPU.memory


def cudaMalloc(size: int) -> tuple[cudaError_t, int | None]:  # noqa: N802
    if _spoils_capture():
        return cudaError_t.cudaErrorStreamCaptureUnsupported, None
    GPU.count("cudaMalloc")
    address = GPU.allocate(size)
    return (OK, address) if address else (cudaError_t.cudaErrorMemoryAllocation, None)


def cudaFree(devPtr: Any) -> tuple[cudaError_t]:  # noqa: N802, N803
    if _spoils_capture():
        return (cudaError_t.cudaErrorStreamCaptureUnsupported,)
    return (OK if GPU.free(int(devPtr)) else cudaError_t.cudaErrorInvalidValue,)


def cudaMallocHost(size: int) -> tuple[cudaError_t, int | None]:  # noqa: N802
    if _spoils_capture():
        return cudaError_t.cudaErrorStreamCaptureUnsupported, None
    GPU.count("cudaMallocHost")
    address = GPU.allocate_pinned(size)
    return (OK, address) if address else (cudaError_t.cudaErrorMemoryAllocation, None)


def cudaFreeHost(ptr: Any) -> tuple[cudaError_t]:  # noqa: N802
    return (OK if GPU.pinned.pop(int(ptr), None) is not None else cudaError_t.cudaErrorInvalidValue,)


def cudaMemcpyAsync(  # noqa: N802
    dst: Any, src: Any, count: int, kind: cudaMemcpyKind, stream: cudaStream_t
) -> tuple[cudaError_t]:
    queue = _stream(stream, "cudaMemcpyAsync")
    if kind == cudaMemcpyKind.cudaMemcpyDeviceToDevice:
        return _copy_on_device(queue, int(dst), int(src), count)
    host_address, device_address = (src, dst) if kind == cudaMemcpyKind.cudaMemcpyHostToDevice else (dst, src)
    upload = kind == cudaMemcpyKind.cudaMemcpyHostToDevice
    block, offset = GPU.block(int(device_address), count, "cudaMemcpyAsync")
    host = GPU.host(int(host_address), count)
    pinned = GPU.is_pinned(int(host_address), count)
    GPU.count("copies of page-locked memory" if pinned else "copies of pageable memory")
    if upload and not pinned:
        host = host.copy()  # the driver stages it before it answers

    def run() -> None:
        if not block.alive:
            raise GPU.mistake("a copy uses freed device memory")
        part = block.data[offset : offset + count]
        if upload:
            part[:] = host
            block.written = count
        else:
            host[:] = part

    def poison() -> None:
        if not upload:
            host[:] = POISON  # whoever reads before waiting reads this

    GPU.enqueue(queue, Work(run, (block.address,), "cudaMemcpyAsync", poison))
    return (OK,)


def _copy_on_device(queue: Stream, dst: int, src: int, count: int) -> tuple[cudaError_t]:
    (target, place), (source, start) = (GPU.block(address, count, "cudaMemcpyAsync") for address in (dst, src))
    GPU.count("copies on the device")

    def run() -> None:
        if not (target.alive and source.alive):
            raise GPU.mistake("a copy uses freed device memory")
        target.data[place : place + count] = source.data[start : start + count]
        target.written = count

    def poison() -> None:
        target.data[place : place + count] = POISON  # whoever reads before waiting reads this

    GPU.enqueue(
        queue, Work(run, (target.address, source.address), "cudaMemcpyAsync", poison if target.adopted else None)
    )
    return (OK,)


def cudaStreamCreateWithFlags(flags: int) -> tuple[cudaError_t, cudaStream_t]:  # noqa: N802
    number = GPU.number()
    GPU.streams[number] = Stream(number)
    return OK, cudaStream_t(number)


def cudaStreamDestroy(stream: cudaStream_t) -> tuple[cudaError_t]:  # noqa: N802
    found = _stream(stream, "cudaStreamDestroy")
    GPU.drain(found)
    found.alive = False
    return (OK,)


def cudaStreamSynchronize(stream: cudaStream_t) -> tuple[cudaError_t]:  # noqa: N802
    if _spoils_capture():
        return (cudaError_t.cudaErrorStreamCaptureUnsupported,)
    GPU.count("cudaStreamSynchronize")
    GPU.drain(_stream(stream, "cudaStreamSynchronize"))
    return (OK,)


def cudaStreamWaitEvent(stream: cudaStream_t, event: cudaEvent_t, flags: int) -> tuple[cudaError_t]:  # noqa: N802
    queue, found = _stream(stream, "cudaStreamWaitEvent"), _event(event, "cudaStreamWaitEvent")
    if found.stream is None:
        return (OK,)  # an event that was never recorded is waited for by nobody
    # As it is now: recording the event again changes nothing for those who wait already.
    other, position = found.stream, found.position
    GPU.enqueue(queue, Work(lambda: GPU.drain(other, position), (), "cudaStreamWaitEvent"))
    return (OK,)


def cudaStreamBeginCapture(stream: cudaStream_t, mode: cudaStreamCaptureMode) -> tuple[cudaError_t]:  # noqa: N802
    found = _stream(stream, "cudaStreamBeginCapture")
    if found.captured is not None:
        return (cudaError_t.cudaErrorInvalidValue,)
    found.captured, found.capturer, found.invalidated = [], threading.get_ident(), False
    return (OK,)


def cudaStreamEndCapture(stream: cudaStream_t) -> tuple[cudaError_t, cudaGraph_t | None]:  # noqa: N802
    found = _stream(stream, "cudaStreamEndCapture")
    if found.captured is None:
        return cudaError_t.cudaErrorInvalidValue, None
    captured, found.captured, found.capturer = found.captured, None, None
    if found.invalidated:
        return cudaError_t.cudaErrorStreamCaptureInvalidated, None
    number = GPU.number()
    GPU.graphs[number] = captured
    GPU.count("captures")
    return OK, cudaGraph_t(number)


def cudaGraphInstantiate(graph: cudaGraph_t, flags: int) -> tuple[cudaError_t, cudaGraphExec_t]:  # noqa: N802
    number = GPU.number()
    GPU.executables[number] = list(GPU.graphs[int(graph)])
    return OK, cudaGraphExec_t(number)


def cudaGraphLaunch(graphExec: cudaGraphExec_t, stream: cudaStream_t) -> tuple[cudaError_t]:  # noqa: N802, N803
    found = _stream(stream, "cudaGraphLaunch")
    if int(graphExec) not in GPU.executables:
        raise GPU.mistake("cudaGraphLaunch: the graph was destroyed")
    GPU.count("graph launches")
    for work in GPU.executables[int(graphExec)]:
        GPU.enqueue(found, work)
    return (OK,)


def cudaGraphDestroy(graph: cudaGraph_t) -> tuple[cudaError_t]:  # noqa: N802
    return (OK if GPU.graphs.pop(int(graph), None) is not None else cudaError_t.cudaErrorInvalidResourceHandle,)


def cudaGraphExecDestroy(graphExec: cudaGraphExec_t) -> tuple[cudaError_t]:  # noqa: N802, N803
    found = GPU.executables.pop(int(graphExec), None)
    return (OK if found is not None else cudaError_t.cudaErrorInvalidResourceHandle,)


def cudaEventCreateWithFlags(flags: int) -> tuple[cudaError_t, cudaEvent_t]:  # noqa: N802
    number = GPU.number()
    GPU.events[number] = Event(number)
    return OK, cudaEvent_t(number)


def _event(handle: Any, doing: str) -> Event:
    event = GPU.events.get(int(handle))
    if event is None or not event.alive:
        raise GPU.mistake(f"{doing}: the event was destroyed")
    return event


def cudaEventRecord(event: cudaEvent_t, stream: cudaStream_t) -> tuple[cudaError_t]:  # noqa: N802
    found, queue = _event(event, "cudaEventRecord"), _stream(stream, "cudaEventRecord")
    found.stream, found.position = queue, len(queue.queue)
    return (OK,)


def cudaEventSynchronize(event: cudaEvent_t) -> tuple[cudaError_t]:  # noqa: N802
    if _spoils_capture():
        return (cudaError_t.cudaErrorStreamCaptureUnsupported,)
    GPU.count("cudaEventSynchronize")
    found = _event(event, "cudaEventSynchronize")
    if found.stream is not None:
        GPU.drain(found.stream, found.position)
    return (OK,)


def cudaEventDestroy(event: cudaEvent_t) -> tuple[cudaError_t]:  # noqa: N802
    _event(event, "cudaEventDestroy").alive = False
    return (OK,)
