"""The stand-in's engines and execution contexts."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from simulated_gpu import GPU, Work

import tensorrt as trt

NUMPY = {"FLOAT": "f4", "HALF": "f2", "INT8": "i1", "INT32": "i4", "BOOL": "?", "UINT8": "u1", "INT64": "i8"}
DATA_DEPENDENT = {"NonZero", "NonMaxSuppression", "Unique", "Compress"}
ACTIVATIONS = 4096


class ICudaEngine:
    def __init__(self, runtime: Any, header: dict[str, Any], graph: bytes) -> None:
        import onnx

        self._runtime = runtime
        self._logger = runtime._logger
        self._header = header
        model = onnx.load_from_string(graph)
        self._model = model
        weights = {tensor.name for tensor in model.graph.initializer}
        self._inputs = [trt._described(v) for v in model.graph.input if v.name not in weights]
        self._outputs = [trt._described(v) for v in model.graph.output]
        self._tensors = {tensor.name: tensor for tensor in (*self._inputs, *self._outputs)}
        self._depends = self._data_dependent()
        self._sessions: Any = None
        self._results: dict[Any, list[np.ndarray]] = {}

    def _data_dependent(self) -> set[str]:
        """Outputs below an operator whose result's size depends on the data."""
        tainted: set[str] = set()
        for node in self._model.graph.node:
            if node.op_type in DATA_DEPENDENT or tainted & set(node.input):
                tainted |= set(node.output)
        return {tensor.name for tensor in self._outputs} & tainted

    @property
    def name(self) -> str:
        return self._model.graph.name

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    @property
    def num_optimization_profiles(self) -> int:
        return max(len(self._header["profiles"]), 1)

    @property
    def device_memory_size_v2(self) -> int:
        return ACTIVATIONS

    def get_tensor_name(self, index: Any) -> str:
        return list(self._tensors)[index]

    def get_tensor_mode(self, name: str) -> Any:
        modes = trt.TensorIOMode
        return modes.INPUT if name in {tensor.name for tensor in self._inputs} else modes.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        return self._tensors[name].dtype

    def get_tensor_shape(self, name: str) -> Any:
        return self._tensors[name].shape

    def get_tensor_location(self, name: str) -> Any:
        return trt.TensorLocation.DEVICE

    def get_tensor_profile_shape(self, name: str, profile_index: Any) -> list[Any]:
        if self.get_tensor_mode(name) != trt.TensorIOMode.INPUT:
            raise ValueError("not an input")
        return [trt.Dims(shape) for shape in self._header["profiles"][profile_index][name]]

    def is_shape_inference_io(self, name: str) -> bool:
        return False

    def create_execution_context(self, strategy: Any = trt.ExecutionContextAllocationStrategy.STATIC) -> Any:
        GPU.count("contexts")
        return IExecutionContext(self, strategy)

    # --- running, on the CPU ------------------------------------------------------------------------------------------

    def _run(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        if self._sessions is None:
            self._sessions = self._session()
        return self._sessions(feeds)

    def _session(self) -> Any:
        import onnx
        from onnx.reference import ReferenceEvaluator

        if any(tensor.dtype.name not in NUMPY for tensor in self._tensors.values()):
            return lambda feeds: ReferenceEvaluator(self._model).run(None, feeds)
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        data = onnx.ModelProto.SerializeToString(self._model)
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        return lambda feeds: session.run(None, feeds)

    def _dry(self, shapes: dict[str, tuple[int, ...]]) -> list[np.ndarray]:
        """Outputs for inputs of ones: all that a size can depend on is largest."""
        key = tuple(shapes.items())
        if key not in self._results:
            feeds = {t.name: np.ones(shapes[t.name], _numpy(t.dtype.name)) for t in self._inputs}
            self._results[key] = self._run(feeds)
        return self._results[key]


def _numpy(kind: str) -> np.dtype:
    if kind in NUMPY:
        return np.dtype(NUMPY[kind])
    import ml_dtypes

    return np.dtype({"BF16": ml_dtypes.bfloat16, "FP8": ml_dtypes.float8_e4m3fn}[kind])


class IExecutionContext:
    def __init__(self, engine: ICudaEngine, strategy: Any) -> None:
        self._engine = engine
        self._managed = strategy == trt.ExecutionContextAllocationStrategy.USER_MANAGED
        self._shapes: dict[str, tuple[int, ...]] = {
            tensor.name: tuple(tensor.shape) for tensor in engine._inputs if -1 not in tuple(tensor.shape)
        }
        self._addresses: dict[str, int] = {}
        self._allocators: dict[str, Any] = {}
        self._memory = (0, 0)
        self._profile = 0
        self._version = 0
        self._inside = threading.Lock()
        self._under_way: list[tuple[Any, int]] = []

    @contextmanager
    def _alone(self, change: bool = False) -> Iterator[None]:
        """A context is for one thread at a time, and not to be changed while it runs."""
        if not self._inside.acquire(blocking=False):
            raise GPU.mistake("an execution context is used by two threads at once")
        try:
            if change:
                if self._busy():
                    raise GPU.mistake("an execution context is changed while it runs")
                self._version += 1
            yield
        finally:
            self._inside.release()

    def _busy(self) -> list[Any]:
        return [stream for stream, position in self._under_way if stream.done < position]

    def _fail(self, text: str) -> bool:
        trt._error(self._engine._logger, text)
        return False

    def set_device_memory(self, memory: Any, size: Any) -> None:
        with self._alone(change=True):
            if not self._managed:
                raise GPU.mistake("set_device_memory on a context that brings its own")
            GPU.block(int(memory), int(size), "set_device_memory")
            self._memory = (int(memory), int(size))

    def set_optimization_profile_async(self, profile_index: Any, stream_handle: Any) -> bool:
        with self._alone(change=True):
            if not 0 <= profile_index < self._engine.num_optimization_profiles:
                return self._fail(f"setOptimizationProfileAsync: Error Code 3: no profile {profile_index}")
            if int(stream_handle) not in GPU.streams:
                raise GPU.mistake("set_optimization_profile_async: no such stream")
            self._profile = profile_index
            return True

    def set_input_shape(self, name: str, shape: Any) -> bool:
        with self._alone(change=True):
            tensor = self._engine._tensors[name]
            static = tuple(tensor.shape)
            if len(shape) != len(static) or any(w not in (-1, g) for w, g in zip(static, shape, strict=True)):
                return self._fail(
                    f"IExecutionContext::setInputShape: Error Code 3: API Usage Error (Static dimension mismatch "
                    f"while setting input shape for {name}. Set dimensions are {list(shape)}.)"
                )
            if -1 in static:
                low, _, high = self._engine._header["profiles"][self._profile][name]
                if not all(a <= s <= b for a, s, b in zip(low, shape, high, strict=True)):
                    return self._fail(
                        f"IExecutionContext::setInputShape: Error Code 3: API Usage Error (Set dimension {list(shape)} "
                        f"for tensor {name} does not satisfy any optimization profiles. Valid range for profile "
                        f"{self._profile}: {low}..{high}.)"
                    )
            self._shapes[name] = tuple(int(size) for size in shape)
            return True

    def set_tensor_address(self, name: str, memory: Any) -> bool:
        with self._alone(change=True):
            if name not in self._engine._tensors:
                return self._fail(f"setTensorAddress: Error Code 3: no tensor {name}")
            self._addresses[name] = int(memory)
            return True

    def set_output_allocator(self, name: str, output_allocator: Any) -> bool:
        with self._alone(change=True):
            if not getattr(output_allocator, "_made", False):
                raise TypeError("IOutputAllocator.__init__ was not called")
            self._allocators[name] = output_allocator
            return True

    def get_tensor_shape(self, name: str) -> Any:
        if name in self._shapes:
            return trt.Dims(self._shapes[name])
        static = tuple(self._engine._tensors[name].shape)
        if self.infer_shapes():
            return trt.Dims(static)
        if name in self._engine._depends:
            return trt.Dims(tuple(-1 for _ in static))
        return trt.Dims(self._dry(name).shape)

    def _dry(self, name: str) -> np.ndarray:
        names = [tensor.name for tensor in self._engine._outputs]
        return self._engine._dry(self._shapes)[names.index(name)]

    def get_max_output_size(self, name: str) -> int:
        if self.infer_shapes():
            return -1
        return 8 if trt._understate_bounds else int(self._dry(name).nbytes)

    def infer_shapes(self) -> list[str]:
        return [tensor.name for tensor in self._engine._inputs if tensor.name not in self._shapes]

    def execute_async_v3(self, stream_handle: Any) -> bool:
        with self._alone():
            time.sleep(0.0005)  # long enough for another thread to trespass
            return self._execute(GPU.streams[int(stream_handle)])

    def _execute(self, stream: Any) -> bool:
        GPU.count("execute_async_v3")
        engine = self._engine
        if self.infer_shapes():
            return self._fail(f"enqueueV3: Error Code 3: the shape of {self.infer_shapes()[0]} was not specified")
        unset = [name for name in engine._tensors if not self._addresses.get(name)]
        if unset:
            return self._fail(f"enqueueV3: Error Code 3: API Usage Error (Address is not set for tensor {unset[0]})")
        if self._managed and self._memory[1] < engine.device_memory_size_v2:
            return self._fail("enqueueV3: Error Code 3: API Usage Error (device memory was not set)")
        if any(other is not stream for other in self._busy()):
            raise GPU.mistake("an execution context runs on two streams at once")
        if engine._depends:
            if stream.captured is not None:
                stream.invalidated = True
                return self._fail("enqueueV3: operation not permitted when stream is capturing")
            GPU.drain(stream)  # the size is known on the host before this call answers
            self._settle(self._compute())
        inputs = {t.name: self._bound(t.name, self._shapes[t.name], t) for t in engine._inputs}
        blocks = tuple(address for address in (*self._addresses.values(), self._memory[0]) if address)
        version, this = self._version, weakref.ref(self)

        def run() -> None:
            context = this()
            if context is None:
                raise GPU.mistake("an execution context was destroyed before its work was done")
            if context._version != version:
                raise GPU.mistake("an execution context was changed between capture (or enqueue) and execution")
            for block in blocks:
                GPU.block(block, 1, "execution")
            for name, (_, nbytes) in inputs.items():
                written = GPU.block(addresses[name], nbytes, "execution")[0].written
                if written != nbytes:
                    raise GPU.mistake(
                        f"input {name!r} takes {nbytes} bytes, {written} were copied: wrong type or shape"
                    )
            context._write(context._compute())

        addresses = dict(self._addresses)
        GPU.enqueue(stream, Work(run, blocks, "execute_async_v3"))
        if stream.captured is None:
            self._under_way = [(stream, len(stream.queue))]
        return True

    def _bound(self, name: str, shape: tuple[int, ...], tensor: Any) -> tuple[int, int]:
        size = int(np.prod(shape, dtype=np.int64)) * _numpy(tensor.dtype.name).itemsize
        GPU.block(self._addresses[name], size, f"tensor {name!r}")
        return self._addresses[name], size

    def _compute(self) -> list[np.ndarray]:
        feeds = {}
        for tensor in self._engine._inputs:
            shape, dtype = self._shapes[tensor.name], _numpy(tensor.dtype.name)
            size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            block, offset = GPU.block(self._addresses[tensor.name], size, f"input {tensor.name!r}")
            feeds[tensor.name] = block.data[offset : offset + size].view(dtype).reshape(shape)
        return self._engine._run(feeds)

    def _settle(self, results: list[np.ndarray]) -> None:
        """Tells the allocators of outputs whose size depends on the data."""
        for tensor, result in zip(self._engine._outputs, results, strict=True):
            if tensor.name in self._engine._depends:
                allocator = self._allocators[tensor.name]
                address = allocator.reallocate_output_async(
                    tensor.name, self._addresses[tensor.name], result.nbytes, 512, 0
                )
                if address and address % 512:
                    raise GPU.mistake("an allocator's memory is not aligned as was asked")
                if not address:
                    raise GPU.mistake("an allocator had no memory")
                self._addresses[tensor.name] = address
                allocator.notify_shape(tensor.name, trt.Dims(result.shape))

    def _write(self, results: list[np.ndarray]) -> None:
        for tensor, result in zip(self._engine._outputs, results, strict=True):
            data = np.ascontiguousarray(result).view(np.uint8).reshape(-1)
            block, offset = GPU.block(self._addresses[tensor.name], data.nbytes, f"output {tensor.name!r}")
            block.data[offset : offset + data.nbytes] = data
