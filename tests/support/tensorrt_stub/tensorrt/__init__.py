"""A stand-in for TensorRT's Python API: builds and runs ONNX graphs on onnxruntime's CPU, on `simulated_gpu`.

It answers as TensorRT is documented to: None or False, with the reason in the log. `_simulate` chooses the version; 10
and 11 differ where the real ones do. Plans hold the graph itself, behind a header that is checked as the real one is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from simulated_gpu import GPU

__version__ = "10.13.0.35"
MAGIC = b"STANDIN-PLAN"
_known_plugins: set[str] = set()
_understate_bounds = False


class _Enum:
    """pybind11's enumerations: `X.NAME`, `.name`, `.value`, `int(X.NAME)`, `X.__members__`."""

    __members__: ClassVar[dict[str, Any]] = {}

    def __init__(self, value: int) -> None:
        self._value = value
        self._name = next((n for n, v in type(self)._values.items() if v == value), "?")

    _values: ClassVar[dict[str, int]] = {}

    def __init_subclass__(cls, values: dict[str, int] | None = None) -> None:
        cls._set(values or {})

    @classmethod
    def _set(cls, values: dict[str, int]) -> None:
        for name in cls.__members__ if "__members__" in vars(cls) else ():
            delattr(cls, name)
        cls._values = values
        cls.__members__ = {name: cls(value) for name, value in values.items()}
        for name, member in cls.__members__.items():
            setattr(cls, name, member)

    @property
    def name(self) -> str:
        return self._name

    @property
    def value(self) -> int:
        return self._value

    def __int__(self) -> int:
        return self._value

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._value == self._value

    def __hash__(self) -> int:
        return hash((type(self).__name__, self._value))

    def __repr__(self) -> str:
        return f"<{type(self).__name__}.{self._name}: {self._value}>"


_TYPES = {
    "FLOAT": 0,
    "HALF": 1,
    "INT8": 2,
    "INT32": 3,
    "BOOL": 4,
    "UINT8": 5,
    "FP8": 6,
    "BF16": 7,
    "INT64": 8,
    "INT4": 9,
}


class DataType(_Enum, values=_TYPES):
    pass


class TensorIOMode(_Enum, values={"NONE": 0, "INPUT": 1, "OUTPUT": 2}):
    pass


class TensorLocation(_Enum, values={"DEVICE": 0, "HOST": 1}):
    pass


class MemoryPoolType(_Enum, values={"WORKSPACE": 0}):
    pass


class HardwareCompatibilityLevel(_Enum, values={"NONE": 0, "AMPERE_PLUS": 1, "SAME_COMPUTE_CAPABILITY": 2}):
    pass


class ExecutionContextAllocationStrategy(_Enum, values={"STATIC": 0, "ON_PROFILE_CHANGE": 1, "USER_MANAGED": 2}):
    pass


class BuilderFlag(_Enum):
    pass


class NetworkDefinitionCreationFlag(_Enum):
    pass


_WEAK = {"FP16": 0, "INT8": 1, "BF16": 17}


def _simulate(version: str) -> None:
    """Makes this module that version of TensorRT."""
    global __version__
    __version__ = version
    eleven = int(version.split(".")[0]) >= 11
    common = {"TF32": 6, "VERSION_COMPATIBLE": 12 if eleven else 13}
    BuilderFlag._set(common if eleven else {**_WEAK, **common})
    NetworkDefinitionCreationFlag._set({"STRONGLY_TYPED": 0} if eleven else {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1})
    _known_plugins.clear()


_simulate(__version__)


class Dims:
    def __init__(self, shape: Sequence[Any] = ()) -> None:
        self._shape = tuple(int(size) for size in shape)

    def __len__(self) -> int:
        return len(self._shape)

    def __getitem__(self, arg0: int) -> int:
        return self._shape[arg0]

    def __iter__(self) -> Iterator[int]:
        return iter(self._shape)


class ILogger:
    class Severity(_Enum, values={"INTERNAL_ERROR": 0, "ERROR": 1, "WARNING": 2, "INFO": 3, "VERBOSE": 4}):
        pass

    def __init__(self) -> None:
        self._made = True

    def log(self, severity: ILogger.Severity, msg: str) -> None:
        raise NotImplementedError


def _error(logger: ILogger, text: str) -> None:
    if not getattr(logger, "_made", False):
        raise TypeError("ILogger.__init__ was not called")
    logger.log(ILogger.Severity.ERROR, text)


class IProgressMonitor:
    def __init__(self) -> None:
        self._made = True

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        raise NotImplementedError

    def step_complete(self, phase_name: str, step: int) -> bool:
        raise NotImplementedError

    def phase_finish(self, phase_name: str) -> None:
        raise NotImplementedError


class IOutputAllocator:
    def __init__(self) -> None:
        self._made = True


class IHostMemory(bytes):
    """Bytes, in the place of the buffer protocol that a Python class offers from 3.12 on only."""

    @property
    def nbytes(self) -> int:
        return len(self)


class ITensor:
    def __init__(self, name: str, dtype: DataType, shape: tuple[int, ...]) -> None:
        self._facts = name, dtype, Dims(shape)

    @property
    def name(self) -> str:
        return self._facts[0]

    @property
    def dtype(self) -> DataType:
        return self._facts[1]

    @property
    def shape(self) -> Dims:
        return self._facts[2]

    @property
    def is_shape_tensor(self) -> bool:
        return False


class INetworkDefinition:
    def __init__(self, strongly_typed: bool) -> None:
        self._strong = strongly_typed
        self._graph: bytes = b""
        self._layers = 0
        self._plugins: list[str] = []
        self._inputs: list[ITensor] = []
        self._outputs: list[ITensor] = []

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    @property
    def num_outputs(self) -> int:
        return len(self._outputs)

    @property
    def num_layers(self) -> int:
        return self._layers

    def get_input(self, index: Any) -> ITensor:
        return self._inputs[index]

    def get_output(self, index: Any) -> ITensor:
        return self._outputs[index]


class IOptimizationProfile:
    def __init__(self) -> None:
        self._shapes: dict[str, tuple[tuple[int, ...], ...]] = {}

    def set_shape(self, input: str, min: Sequence[int], opt: Sequence[int], max: Sequence[int]) -> None:
        shapes = (tuple(min), tuple(opt), tuple(max))
        ordered = all(0 <= a <= b <= c for a, b, c in zip(*shapes, strict=False))
        if len({len(s) for s in shapes}) != 1 or not ordered:
            raise ValueError("inconsistent shapes")
        self._shapes[input] = shapes

    def __bool__(self) -> bool:
        return bool(self._shapes)


class ITimingCache:
    def __init__(self, entries: dict[str, str]) -> None:
        self._entries = entries

    def serialize(self) -> IHostMemory:
        return IHostMemory(b"TIMING" + json.dumps(self._entries).encode())


class IBuilderConfig:
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger
        self._flags = {int(BuilderFlag.TF32)}
        self._profiles: list[IOptimizationProfile] = []
        self._pools: dict[int, int] = {}
        self._cache: ITimingCache | None = None
        self.builder_optimization_level = 3
        self.hardware_compatibility_level = HardwareCompatibilityLevel.NONE
        self.progress_monitor: IProgressMonitor | None = None

    def set_flag(self, flag: BuilderFlag) -> None:
        self._flags.add(int(flag))

    def clear_flag(self, flag: BuilderFlag) -> None:
        self._flags.discard(int(flag))

    def get_flag(self, flag: BuilderFlag) -> bool:
        return int(flag) in self._flags

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: Any) -> None:
        self._pools[int(pool)] = int(pool_size)

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        if not profile:
            _error(self._logger, "Error Code 4: API Usage Error (the profile is not valid)")
            return -1
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: Any) -> ITimingCache:
        data = bytes(serialized_timing_cache)
        return ITimingCache(json.loads(data[6:]) if data.startswith(b"TIMING") else {})

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        owner = cache._entries.get("owner")
        if owner not in (None, _owner()) and not ignore_mismatch:
            _error(self._logger, "Error Code 4: API Usage Error (timing cache was made for another device or version)")
            return False
        self._cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self._cache


def _owner() -> str:
    return f"{__version__} {GPU.capability}"


class Builder:
    def __init__(self, logger: ILogger) -> None:
        if not GPU.driver or not GPU.devices:
            _error(logger, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._logger = logger

    def create_network(self, flags: Any = 0) -> INetworkDefinition:
        strong = int(__version__.split(".")[0]) >= 11
        return INetworkDefinition(strong or bool(int(flags) & 1 << int(NetworkDefinitionCreationFlag.STRONGLY_TYPED)))

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig(self._logger)

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory | None:
        problem = _why_not_built(network, config)
        if problem:
            _error(self._logger, problem)
            return None
        if not _report(config.progress_monitor):
            _error(self._logger, "IBuilder::buildSerializedNetwork: the build was cancelled")
            return None
        if config._cache is not None:
            config._cache._entries.update(owner=_owner(), layers=str(network._layers))
        flags = [name for name, flag in BuilderFlag.__members__.items() if config.get_flag(flag)]
        header = {
            "version": __version__,
            "capability": GPU.capability,
            "flags": flags,
            "strong": network._strong,
            "plugins": network._plugins,
            "hardware": config.hardware_compatibility_level.name,
            "profiles": [profile._shapes for profile in config._profiles],
            "level": config.builder_optimization_level,
            "workspace": config._pools.get(0),
        }
        text = json.dumps(header).encode()
        return IHostMemory(MAGIC + len(text).to_bytes(4, "little") + text + network._graph)


def _why_not_built(network: INetworkDefinition, config: IBuilderConfig) -> str | None:
    if not network._inputs:
        return "Error Code 4: Internal Error (Network must have at least one input)"
    weak = [name for name in _WEAK if name in BuilderFlag._values and config.get_flag(getattr(BuilderFlag, name))]
    if weak and network._strong:
        return f"Error Code 3: Parameter check failed, condition: !config.getFlag(BuilderFlag::k{weak[0]})."
    dynamic = [tensor for tensor in network._inputs if -1 in tuple(tensor.shape)]
    if dynamic and not config._profiles:
        return "Error Code 4: Network has dynamic or shape inputs, but no optimization profile has been defined."
    for profile in config._profiles:
        for tensor in dynamic:
            shapes = profile._shapes.get(tensor.name)
            if shapes is None:
                return f"Error Code 4: API Usage Error ({tensor.name}: the profile lacks it)"
            for shape in shapes:
                fits = len(shape) == len(tensor.shape) and all(
                    want in (-1, got) for want, got in zip(tensor.shape, shape, strict=True)
                )
                if not fits:
                    return f"Error Code 4: API Usage Error ({tensor.name}: the profile does not fit the network)"
    if GPU.build_memory > GPU.memory - GPU.used:
        return f"Error Code 2: OutOfMemory (Requested amount of GPU memory ({GPU.build_memory} bytes) is missing)"
    return None


def _report(monitor: IProgressMonitor | None) -> bool:
    if monitor is None:
        return True
    if not getattr(monitor, "_made", False):
        raise TypeError("IProgressMonitor.__init__ was not called")
    monitor.phase_start("Building Engine", None, 2)
    monitor.phase_start("Timing graph nodes", "Building Engine", 3)
    going = all(monitor.step_complete("Timing graph nodes", step) for step in range(3))
    monitor.phase_finish("Timing graph nodes")
    going = going and all(monitor.step_complete("Building Engine", step) for step in range(2))
    monitor.phase_finish("Building Engine")
    return going


class ParserError:
    def __init__(self, facts: tuple[str, int, str, str]) -> None:
        self._facts = facts

    def desc(self) -> str:
        return self._facts[0]

    def node(self) -> int:
        return self._facts[1]

    def node_name(self) -> str:
        return self._facts[2]

    def node_operator(self) -> str:
        return self._facts[3]


_ELEMENTS = {1: "FLOAT", 10: "HALF", 3: "INT8", 6: "INT32", 9: "BOOL", 2: "UINT8", 17: "FP8", 16: "BF16", 7: "INT64"}


class OnnxParser:
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network = network
        self._errors: list[ParserError] = []

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: Any) -> ParserError:
        return self._errors[index]

    def parse_from_file(self, model: str) -> bool:
        import onnx

        if not isinstance(model, str):
            raise TypeError("parse_from_file(): incompatible function arguments")
        try:
            graph = onnx.load(model)
        except Exception as error:
            self._errors.append(ParserError((f"Failed to parse ONNX model: {error}", -1, "", "")))
            return False
        for index, node in enumerate(graph.graph.node):
            if node.domain in ("", "ai.onnx"):
                continue
            if node.op_type in _known_plugins:
                self._network._plugins.append(node.op_type)
                continue
            text = (
                'Assertion failed: creator && "Plugin not found, are the plugin name, version, and namespace correct?"'
            )
            self._errors.append(ParserError((text, index, node.name, node.op_type)))
        weights = {tensor.name for tensor in graph.graph.initializer}
        for value in graph.graph.input:
            if value.name not in weights:
                self._network._inputs.append(_described(value))
        self._network._outputs.extend(_described(value) for value in graph.graph.output)
        self._network._layers = len(graph.graph.node)
        self._network._graph = graph.SerializeToString()
        return not self._errors


def _described(value: Any) -> ITensor:
    kind = value.type.tensor_type
    shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim)
    return ITensor(value.name, getattr(DataType, _ELEMENTS[kind.elem_type]), shape)


def init_libnvinfer_plugins(logger: ILogger, namespace: str) -> bool:
    return True


def _serialization(version: str) -> int:
    major, minor, patch, *_ = (*map(int, version.split(".")), 0, 0)
    return major * 1000 + minor * 10 + patch


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        if not GPU.driver or not GPU.devices:
            _error(logger, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._logger = logger
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, serialized_engine: Any) -> ICudaEngine | None:
        data = bytes(serialized_engine)
        problem, header, graph = self._read(data)
        if problem:
            _error(self._logger, "IRuntime::deserializeCudaEngine: " + problem)
            return None
        return ICudaEngine(self, header, graph)

    def _read(self, data: bytes) -> tuple[str | None, dict[str, Any], bytes]:
        serialization = "Error Code 1: Serialization (Serialization assertion "
        if not data.startswith(MAGIC):
            return serialization + "magicTagRead == kMAGIC_TAG failed.Magic tag does not match)", {}, b""
        length = int.from_bytes(data[len(MAGIC) : len(MAGIC) + 4], "little")
        start = len(MAGIC) + 4
        header = json.loads(data[start : start + length])
        portable = "VERSION_COMPATIBLE" in header["flags"]
        if portable and not self.engine_host_code_allowed:
            return (
                "Error Code 4: Internal Error (engine contains host code; engine_host_code_allowed is not set)",
                {},
                b"",
            )
        theirs, ours = _serialization(header["version"]), _serialization(__version__)
        if theirs > ours or (theirs != ours and not portable):
            return (
                serialization + "stdVersionRead == kSERIALIZATION_VERSION failed.Version tag does not match. "
                f"Note: Current Version: {ours}, Serialized Engine Version: {theirs})",
                {},
                b"",
            )
        built = tuple(header["capability"])
        fits = GPU.capability >= (8, 0) if header["hardware"] == "AMPERE_PLUS" else built == GPU.capability
        if not fits:
            return (
                "Error Code 6: API Usage Error (The engine plan file is generated on an incompatible device, "
                f"expecting compute {GPU.capability[0]}.{GPU.capability[1]} got compute {built[0]}.{built[1]}, "
                "please rebuild.)",
                {},
                b"",
            )
        missing = [name for name in header["plugins"] if name not in _known_plugins]
        if missing:
            return f"Error Code 4: API Usage Error (Cannot find plugin: {missing[0]}, version: 1, namespace:.)", {}, b""
        return None, header, data[start + length :]


from tensorrt._running import ICudaEngine as ICudaEngine  # noqa: E402  # it needs the names above
from tensorrt._running import IExecutionContext as IExecutionContext  # noqa: E402
