"""An engine opened: checked against the machine, deserialised, and its inputs and outputs described.

Importing this module imports `tensorrt`, and so do the modules that import it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorrt as trt
from numpy.typing import NDArray

from lensmount.contracts.session import TensorSpec
from lensmount.errors import BackendError, ModelFileError, UnsupportedModelError
from lensmount_tensorrt import api as tensorrt_api
from lensmount_tensorrt import errors as tensorrt_errors
from lensmount_tensorrt import manifest as tensorrt_manifest
from lensmount_tensorrt import narrow_floats
from lensmount_tensorrt.cuda_memory import Cuda
from lensmount_tensorrt.log import Log
from lensmount_tensorrt.manifest import EngineManifest, Shape

MAX_HEADER = 1 << 20


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of an engine.

    Attributes:
        name: Its name.
        kind: TensorRT's name of the type: `HALF`.
        stored: numpy's name of the type whose bits the device holds.
        shape: Sizes; -1 where dynamic.
    """

    name: str
    kind: str
    stored: str
    shape: Shape

    @property
    def spec(self) -> TensorSpec:
        """As callers see it: a name in place of a dynamic size, bfloat16 and float8 as float32."""
        names = ("batch", *(f"{self.name}_{axis}" for axis in range(1, len(self.shape))))
        shape = tuple(size if size >= 0 else name for size, name in zip(self.shape, names, strict=False))
        return TensorSpec(self.name, shape, tensorrt_api.DTYPES[self.kind][1])

    def encode(self, array: NDArray[Any]) -> NDArray[Any]:
        """What callers give, as the bits that the device takes; the array itself where that is the same."""
        if self.kind == "BF16":
            return narrow_floats.to_bfloat16(array)
        return narrow_floats.to_float8(array) if self.kind == "FP8" else array

    def decode(self, array: NDArray[Any]) -> NDArray[Any]:
        """What the device gave, as callers see it; always a copy."""
        if self.kind == "BF16":
            return narrow_floats.from_bfloat16(array)
        return narrow_floats.from_float8(array) if self.kind == "FP8" else array.copy()

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy type whose bits the device holds."""
        return np.dtype(self.stored)


@dataclass(frozen=True, slots=True)
class Engine:
    """A deserialised engine.

    Attributes:
        cuda: The device.
        log: What TensorRT says.
        runtime: Has to live as long as the engine.
        engine: TensorRT's object.
        inputs: In the engine's order.
        outputs: In the engine's order.
        profiles: Smallest, best and largest shape of each input, for each profile.
        manifest: Where it comes from; None for engines of others.
        metadata: The graph's metadata.
        subject: The engine, in words.
    """

    cuda: Cuda
    log: Log
    runtime: trt.Runtime
    engine: trt.ICudaEngine
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    profiles: tuple[Mapping[str, tuple[Shape, Shape, Shape]], ...]
    manifest: EngineManifest | None
    metadata: Mapping[str, str]
    subject: str

    @property
    def device(self) -> str:
        """`cuda:0`."""
        return f"cuda:{self.cuda.index}"

    def profile_for(self, shapes: Mapping[str, Shape]) -> int:
        """The profile to run these shapes in: of those that hold them, the one whose largest batch is smallest.

        Raises:
            BackendError: None holds them.
        """
        fitting = [index for index, profile in enumerate(self.profiles) if _holds(profile, shapes)]
        if not fitting:
            offered = "; ".join(
                ", ".join(f"{name} {low} to {high}" for name, (low, _, high) in profile.items())
                for profile in self.profiles
            )
            raise BackendError(
                f"{self.subject} was not built for these shapes",
                found=", ".join(f"{name} {shape}" for name, shape in shapes.items()),
                expected=offered,
                fix=self.manifest.rebuild if self.manifest else tensorrt_errors.REBUILD + " --batch MIN,BEST,MAX",
            )
        return min(fitting, key=lambda index: sum(sum(high) for _, _, high in self.profiles[index].values()))


def _holds(profile: Mapping[str, tuple[Shape, Shape, Shape]], shapes: Mapping[str, Shape]) -> bool:
    return all(
        len(shape) == len(profile[name][0])
        and all(low <= size <= high for low, size, high in zip(profile[name][0], shape, profile[name][2], strict=True))
        for name, shape in shapes.items()
    )


def open_engine(cuda: Cuda, path: Path, *, allow_host_code: bool) -> Engine:
    """Checks and deserialises an engine.

    Raises:
        EngineMismatchError: It was built for another TensorRT, GPU or system.
        UnsafeFileError: It brings host code, which was not allowed.
        UnsupportedModelError: It needs a plugin, or has inputs or outputs of a kind that numpy cannot hold.
        ModelFileError: It is no whole engine.
        DeviceMemoryError: It does not fit the device.
    """
    subject, device = f"engine {path.name!r}", f"cuda:{cuda.index}"
    manifest = tensorrt_manifest.read(path)
    if manifest is not None:
        tensorrt_manifest.check(
            manifest,
            path,
            version=trt.__version__,
            capability=cuda.capability(),
            device=device,
            allow_host_code=allow_host_code,
        )
    data = path.read_bytes()
    if not data:
        raise ModelFileError(f"{subject} is empty", found=str(path), fix=tensorrt_errors.REBUILD)
    offset, header = _header(data)
    log = Log()
    trt.init_libnvinfer_plugins(log, "")
    log.take()
    try:
        runtime = trt.Runtime(log)
    except TypeError as error:  # the binding's word for a factory that answered nothing
        raise BackendError(
            f"TensorRT {trt.__version__} does not start on {device!r}",
            found=tensorrt_errors.brief(log.take() or [str(error)]),
            fix="lensmount doctor",
        ) from error
    runtime.engine_host_code_allowed = allow_host_code
    engine = runtime.deserialize_cuda_engine(memoryview(data)[offset:])
    if engine is None:
        raise tensorrt_errors.opening(log.take(), subject, device, trt.__version__)
    inputs, outputs = _tensors(engine, subject)
    return Engine(
        cuda=cuda,
        log=log,
        runtime=runtime,
        engine=engine,
        inputs=inputs,
        outputs=outputs,
        profiles=_profiles(engine, inputs),
        manifest=manifest,
        metadata=manifest.metadata if manifest else header,
        subject=subject,
    )


def _header(data: bytes) -> tuple[int, dict[str, str]]:
    """The JSON that some exporters write before the engine, behind its length in four bytes: its end, its texts."""
    length = int.from_bytes(data[:4], "little")
    if not 2 <= length <= min(MAX_HEADER, len(data) - 4) or data[4:5] != b"{":
        return 0, {}
    try:
        found = json.loads(data[4 : 4 + length])
    except (ValueError, RecursionError):
        return 0, {}
    return 4 + length, {str(k): v if isinstance(v, str) else json.dumps(v) for k, v in found.items()}


def _tensors(engine: trt.ICudaEngine, subject: str) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        kind = engine.get_tensor_dtype(name).name
        is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        if kind not in tensorrt_api.DTYPES:
            raise UnsupportedModelError(
                f"{name!r} of {subject} is not an array that numpy can hold",
                found=kind,
                expected=", ".join(tensorrt_api.DTYPES),
                fix="export the model with float inputs and outputs",
            )
        if engine.get_tensor_location(name) == trt.TensorLocation.HOST:
            raise UnsupportedModelError(
                f"{name!r} of {subject} is a shape, which TensorRT reads on the host",
                expected="inputs and outputs that are data",
                fix="export the model without inputs that give sizes",
            )
        tensor = Tensor(name, kind, tensorrt_api.DTYPES[kind][0], tuple(engine.get_tensor_shape(name)))
        (inputs if is_input else outputs).append(tensor)
    return tuple(inputs), tuple(outputs)


def _profiles(engine: trt.ICudaEngine, inputs: Sequence[Tensor]) -> tuple[dict[str, tuple[Shape, Shape, Shape]], ...]:
    """Every input's shapes in every profile; of a static input three times its own."""
    profiles = []
    for index in range(max(engine.num_optimization_profiles, 1)):
        shapes: dict[str, tuple[Shape, Shape, Shape]] = {}
        for tensor in inputs:
            if -1 not in tensor.shape:
                shapes[tensor.name] = (tensor.shape,) * 3
                continue
            low, best, high = (tuple(dims) for dims in engine.get_tensor_profile_shape(tensor.name, index))
            shapes[tensor.name] = (low, best, high)
        profiles.append(shapes)
    return tuple(profiles)
