"""One lane of runs: a stream, and what runs of certain shapes need, kept for the next time.

A lane serves one run at a time. For the last shapes that it saw it keeps a `Prepared` run: an execution context of its
own, buffers at fixed addresses, and from the second run on a CUDA graph of copies and kernels together, which is
launched in one call. Contexts are not shared between shapes: a captured graph refers to its context's state, and
NVIDIA's guide leaves undefined what becomes of the graph once the context is changed. They share the lane's activation
memory instead.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import tensorrt as trt

from lensmount.errors import BackendError, DeviceMemoryError, LensmountError
from lensmount_tensorrt import errors as tensorrt_errors
from lensmount_tensorrt.cuda_memory import CapturedGraph, DeviceBuffer, PinnedBuffer, Stream, capture
from lensmount_tensorrt.engine import Engine, Tensor
from lensmount_tensorrt.manifest import Shape

if TYPE_CHECKING:
    from lensmount.contracts.arrays import Array

SHAPES_PER_LANE = 4
"""Prepared runs that a lane keeps; the least recently used goes first."""


class Lane:
    """A stream, activation memory, and prepared runs; used by one thread at a time."""

    def __init__(self, engine: Engine, graphs: bool | None) -> None:
        self._engine = engine
        self._graphs = graphs
        self._prepared: OrderedDict[tuple[type[Prepared], tuple[Shape, ...]], Prepared] = OrderedDict()
        self.stream = Stream(engine.cuda)
        try:
            self.activations = DeviceBuffer(engine.cuda, engine.engine.device_memory_size_v2, "activations")
        except BaseException:
            self.stream.free()
            raise

    def run(self, feeds: Mapping[str, Any], kind: type[Prepared] | None = None) -> dict[str, Any]:
        """Runs once.

        Args:
            feeds: Every input by name, with a shape, as `kind` takes them.
            kind: How runs go; None for `Prepared`, which takes and gives host arrays.
        """
        shapes = {tensor.name: tuple(feeds[tensor.name].shape) for tensor in self._engine.inputs}
        kind = kind or Prepared
        key = kind, tuple(shapes.values())
        prepared = self._prepared.get(key)
        if prepared is None:
            prepared = self._prepared[key] = self._prepare(kind, shapes)
        self._prepared.move_to_end(key)
        try:
            return prepared.run(feeds)
        except BaseException:
            # Whatever state a failed run left is not used again.
            self._prepared.pop(key).free()
            raise

    def _prepare(self, kind: type[Prepared], shapes: Mapping[str, Shape]) -> Prepared:
        profile = self._engine.profile_for(shapes)
        self._forget(SHAPES_PER_LANE - 1)
        try:
            return kind(self._engine, self, shapes, profile, self._graphs)
        except DeviceMemoryError:
            if not self._prepared:
                raise
        self._forget(0)  # what other shapes hold may be what is missing
        return kind(self._engine, self, shapes, profile, self._graphs)

    def _forget(self, left: int) -> None:
        while len(self._prepared) > left:
            self._prepared.popitem(last=False)[1].free()

    def free(self) -> None:
        """Lets everything go."""
        self.stream.drain()
        self._forget(0)
        self.stream.free()
        self.activations.free()


class Prepared:
    """Runs of one set of input shapes, between host arrays.

    Attributes:
        hosted: Whether inputs and outputs pass through page-locked memory.
    """

    hosted: ClassVar[bool] = True

    def __init__(
        self, engine: Engine, lane: Lane, shapes: Mapping[str, Shape], profile: int, graphs: bool | None
    ) -> None:
        self._engine = engine
        self._stream = lane.stream
        self._graphs = graphs
        self._runs = 0
        self._graph: CapturedGraph | None = None
        self._shapes = dict(shapes)
        self._device: dict[str, DeviceBuffer] = {}
        self._host: dict[str, PinnedBuffer] = {}
        self._allocators: dict[str, Allocator] = {}
        self._moved: set[str] = set()
        try:
            self._context = self._make_context(lane, profile)
            self._place()
        except BaseException:
            self.free()
            raise

    def _make_context(self, lane: Lane, profile: int) -> trt.IExecutionContext:
        engine = self._engine
        context: trt.IExecutionContext | None = engine.engine.create_execution_context(
            trt.ExecutionContextAllocationStrategy.USER_MANAGED
        )
        if context is None:
            raise tensorrt_errors.running(engine.log.take(), engine.subject, engine.device)
        context.set_device_memory(lane.activations.address, lane.activations.size)
        self._require(context.set_optimization_profile_async(profile, self._stream.number))
        for tensor in engine.inputs:
            self._require(context.set_input_shape(tensor.name, self._shapes[tensor.name]))
        missing = context.infer_shapes()
        if missing:
            raise BackendError(f"{engine.subject} leaves shapes open", found=", ".join(missing))
        return context

    def _require(self, done: bool) -> None:
        if not done:
            raise tensorrt_errors.running(self._engine.log.take(), self._engine.subject, self._engine.device)

    def _place(self) -> None:
        """Allocates a buffer on both sides for every input and output, and tells the context where they are."""
        engine, context = self._engine, self._context
        sizes: dict[str, int] = {}
        for tensor in (*engine.inputs, *engine.outputs):
            shape = self._shapes.get(tensor.name) or tuple(context.get_tensor_shape(tensor.name))
            if -1 in shape:  # it depends on the data: known during the run only, but bounded
                sizes[tensor.name] = max(context.get_max_output_size(tensor.name), 0)
                self._allocators[tensor.name] = Allocator(self, tensor.name)
            else:
                self._shapes[tensor.name] = shape
                sizes[tensor.name] = math.prod(shape) * tensor.dtype.itemsize
        try:
            for name, size in sizes.items():
                self._device[name] = DeviceBuffer(engine.cuda, size, repr(name))
                if self.hosted:
                    self._host[name] = PinnedBuffer(engine.cuda, size, repr(name))
        except DeviceMemoryError as error:
            error.fix = self._advice(sum(sizes.values())) or error.fix
            raise
        for name, buffer in self._device.items():
            if name in self._allocators:
                self._require(context.set_output_allocator(name, self._allocators[name]))
            self._require(context.set_tensor_address(name, buffer.address))

    def _advice(self, needed: int) -> str | None:
        """The batch that would fit, where the inputs have one."""
        batches = {shape[0] for name, shape in self._shapes.items() if shape and name in self._inputs}
        taken = sum(buffer.size for buffer in self._device.values())
        fits = (self._engine.cuda.free_bytes() + taken) * max(batches, default=0) // max(needed, 1)
        if len(batches) != 1 or not 1 <= fits < max(batches):
            return None
        return f"use batches of at most {fits} (its inputs and outputs take {needed:,} bytes at {max(batches)})"

    @property
    def _inputs(self) -> set[str]:
        return {tensor.name for tensor in self._engine.inputs}

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Copies in, runs, copies out, waits."""
        for tensor in self._engine.inputs:
            target = self._host[tensor.name].array(self._shapes[tensor.name], tensor.dtype)
            np.copyto(target, tensor.encode(feeds[tensor.name]))
        self._launch()
        self._wait()
        return {tensor.name: self._result(tensor) for tensor in self._engine.outputs}

    def _launch(self) -> None:
        """Queues a run: the first as it is, the second as it is captured, later ones in one launch."""
        if self._graph is None and self._runs == 1:
            self._capture()
        if self._graph is not None:
            self._graph.launch(self._stream)
        else:
            self._queue()
        self._runs += 1

    def _wait(self) -> None:
        """Waits for the run; then the context may be told which outputs have moved."""
        self._stream.wait()
        for name in self._moved:
            self._require(self._context.set_tensor_address(name, self._device[name].address))
        self._moved.clear()

    def _queue(self) -> None:
        """What a run is made of, and a captured graph."""
        for tensor in self._engine.inputs:
            buffer = self._device[tensor.name]
            self._stream.upload(self._host[tensor.name], buffer, buffer.size)
        self._require(self._context.execute_async_v3(self._stream.number))
        for tensor in self._engine.outputs:
            if tensor.name in self._allocators:
                self._grow(tensor)
            size = math.prod(self._shapes[tensor.name]) * tensor.dtype.itemsize
            self._stream.download(self._device[tensor.name], self._host[tensor.name], size)

    def _capture(self) -> None:
        """Records the second run: the first one has brought TensorRT's own state up to date, as a capture needs.

        Raises:
            BackendError: A graph was demanded, and the engine does not allow one.
        """
        if self._graphs is False:
            return
        try:
            if self._allocators:
                raise BackendError("sizes of outputs that depend on the data are read by the host")
            with capture(self._engine.cuda, self._stream) as recorder:
                self._queue()
            self._graph = recorder.graph
        except BackendError as error:
            self._engine.log.take()
            if self._graphs:
                raise BackendError(
                    f"{self._engine.subject} cannot be captured as a CUDA graph",
                    found=error.found or error.problem,
                    fix="leave cuda_graphs to the backend (None)",
                ) from error

    @property
    def captured(self) -> bool:
        """Whether runs are replayed from a graph."""
        return self._graph is not None

    def grow_device(self, name: str, size: int, alignment: int) -> int:
        """Makes an output's device buffer large enough, and answers its address; 0 where there is no room."""
        buffer = self._device[name]
        if buffer.size < size or buffer.address % max(alignment, 1):
            try:
                self._device[name] = DeviceBuffer(self._engine.cuda, size, repr(name), alignment)
            except LensmountError:
                return 0
            buffer.free()
            self._moved.add(name)  # the context is told after the run: it is not changed while it runs
        return self._device[name].address

    def note_shape(self, name: str, shape: Shape) -> None:
        """An output's shape in this run."""
        self._shapes[name] = shape

    def _grow(self, tensor: Tensor) -> None:
        size = math.prod(self._shapes[tensor.name]) * tensor.dtype.itemsize
        if self._host[tensor.name].size < size:
            self._host.pop(tensor.name).free()
            self._host[tensor.name] = PinnedBuffer(self._engine.cuda, size, repr(tensor.name))

    def _result(self, tensor: Tensor) -> Array:
        return tensor.decode(self._host[tensor.name].array(self._shapes[tensor.name], tensor.dtype))

    def free(self) -> None:
        """Waits for the lane's stream and lets everything go."""
        self._stream.drain()
        if self._graph is not None:
            self._graph.free()
        self._context = None  # type: ignore[assignment]  # before the memory that it refers to
        for device in self._device.values():
            device.free()
        for host in self._host.values():
            host.free()


class Allocator(trt.IOutputAllocator):
    """Tells TensorRT where an output goes whose size depends on the data, and learns its shape."""

    def __init__(self, prepared: Prepared, name: str) -> None:
        trt.IOutputAllocator.__init__(self)
        self._prepared = prepared
        self._name = name

    def reallocate_output_async(self, tensor_name: str, memory: int, size: int, alignment: int, stream: int) -> int:
        """Called by TensorRT when it knows how many bytes it needs; answers an address, or 0 for no room."""
        return self._prepared.grow_device(self._name, size, alignment)

    def notify_shape(self, tensor_name: str, shape: trt.Dims) -> None:
        """Called by TensorRT when it knows the shape."""
        self._prepared.note_shape(self._name, tuple(shape))
