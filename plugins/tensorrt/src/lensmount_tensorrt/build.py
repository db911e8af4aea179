"""Building an engine from an ONNX graph. Importing this module imports `tensorrt`.

Networks are strongly typed: every layer computes in the type that the graph says, on TensorRT 10 as on 11, which knows
nothing else. The one exception is a float32 graph to be run in half precision on TensorRT 10, where the builder may
still lower it. int8 comes from graphs with QuantizeLinear and DequantizeLinear only: nothing is calibrated here.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import tensorrt as trt

from lensmount.errors import BackendError, BuildError, OptionError, StoreError, UnsupportedModelError
from lensmount_tensorrt import errors as tensorrt_errors
from lensmount_tensorrt.cuda_memory import Cuda
from lensmount_tensorrt.log import Log
from lensmount_tensorrt.manifest import EngineManifest, Shape
from lensmount_tensorrt.progress import Progress, progress_bar
from lensmount_tensorrt.settings import BuildSettings, Shapes, profile_shapes

WEAK_FLAGS = {"fp16": "FP16", "bf16": "BF16"}
"""Flags of TensorRT 10 that let the builder lower a float32 graph; TensorRT 11 has none of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What to build from.

    Attributes:
        model: Id of the model.
        path: The graph's file, with its data files next to it.
        sha256: Of the graph.
        precision: Precision that the graph computes in.
        metadata: The graph's metadata.
        image_size: `(height, width)` of the package's pictures, where fixed.
        gpu: Name of the GPU.
    """

    model: str
    path: Path
    sha256: str
    precision: str
    metadata: Mapping[str, str]
    image_size: tuple[int, int] | None
    gpu: str


def weak_flag(precision: str) -> trt.BuilderFlag | None:
    """The flag that lets this TensorRT lower a float32 graph to a precision, or None where there is none."""
    return trt.BuilderFlag.__members__.get(WEAK_FLAGS.get(precision, ""))


def typing_of(graph: str, wanted: str, subject: str) -> trt.BuilderFlag | None:
    """How to get an engine of a precision from a graph: None for strong typing, else the flag of a weak one.

    Raises:
        UnsupportedModelError: This TensorRT cannot build it from this graph; with what would do.
    """
    if graph == wanted:
        return None
    if wanted == "int8":
        raise UnsupportedModelError(
            f"{subject} is not quantised, and engines are not calibrated here",
            found=f"a graph that computes in {graph}",
            expected="a graph with QuantizeLinear and DequantizeLinear nodes (explicit quantisation)",
            fix="quantise the graph first, with onnxruntime.quantization (QDQ format) or NVIDIA's ModelOpt",
        )
    lowered = weak_flag(wanted) if graph == "fp32" else None
    if lowered is None:
        raise UnsupportedModelError(
            f"TensorRT {trt.__version__} cannot build a {wanted} engine from {subject}",
            found=f"a graph that computes in {graph}",
            expected=f"a graph that computes in {wanted}: from TensorRT 11 on the graph alone decides",
            fix=f"lensmount export MODEL --to onnx --precision {wanted}, and build from that; or convert the graph "
            "with NVIDIA's ModelOpt (python -m modelopt.onnx.autocast)",
        )
    return lowered


def build_engine(
    source: Source, precision: str, settings: BuildSettings, cuda: Cuda, *, progress: bool | None
) -> tuple[bytes, EngineManifest]:
    """Builds an engine on a device; takes minutes.

    Args:
        source: What to build from.
        precision: Precision that the engine is to compute in.
        settings: Batch, shapes and the rest.
        cuda: The device; an engine runs on its kind.
        progress: Show it; None for "on a terminal".

    Returns:
        The engine's bytes and its manifest.

    Raises:
        UnsupportedModelError: The precision cannot be had from this graph, or an operator is unknown.
        OptionError: The shapes do not fit the graph, or the timing cache is another machine's.
        BuildError: TensorRT refused; with its reason.
        DeviceMemoryError: The device has too little memory for the build.
        KeyboardInterrupt: The user stopped the build.
    """
    subject = f"graph {source.path.name!r} of {source.model!r}"
    weak = typing_of(source.precision, precision, subject)
    device = f"cuda:{cuda.index}"
    log = Log()
    trt.init_libnvinfer_plugins(log, "")
    with cuda.current():
        builder = _builder(log, device)
        strong = trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
        network = builder.create_network(0 if weak else 1 << int(strong))
        _parse(network, log, source.path, subject)
        tensors = [network.get_input(index) for index in range(network.num_inputs)]
        inputs: dict[str, Shape] = {tensor.name: tuple(tensor.shape) for tensor in tensors}
        shapes = profile_shapes(inputs, settings, source.image_size, subject)
        config = builder.create_builder_config()
        _configure(config, settings, weak)
        if any(-1 in shape for shape in inputs.values()):
            _require(
                config.add_optimization_profile(_profile(builder, inputs, shapes, subject)) >= 0, log, subject, device
            )
        cache = _read_timing_cache(config, settings.timing_cache, log)
        with progress_bar(f"building {source.model} for TensorRT {trt.__version__}", progress) as show:
            monitor = Progress(show)
            config.progress_monitor = monitor
            plan = builder.build_serialized_network(network, config)
        if monitor.cancelled:
            raise KeyboardInterrupt
        if plan is None:
            raise tensorrt_errors.building(log.take(), subject, device, trt.__version__)
        engine = bytes(plan)
        if settings.timing_cache is not None and cache is not None:
            _write_timing_cache(settings.timing_cache, bytes(cache.serialize()))
    manifest = EngineManifest(
        model=source.model,
        graph=source.path.name,
        graph_sha256=source.sha256,
        tensorrt=trt.__version__,
        compute_capability=cuda.capability(),
        gpu=source.gpu,
        system=platform.system().lower(),
        machine=platform.machine(),
        precision=precision,
        strongly_typed=weak is None,
        profiles=(shapes,),
        version_compatible=settings.version_compatible,
        hardware="ampere-plus" if settings.hardware_compatible else "none",
        optimization_level=settings.optimization_level,
        workspace=settings.workspace,
        size=len(engine),
        metadata=dict(source.metadata),
    )
    return engine, manifest


def _builder(log: Log, device: str) -> trt.Builder:
    try:
        return trt.Builder(log)
    except TypeError as error:  # the binding's word for a factory that answered nothing
        raise BackendError(
            f"TensorRT {trt.__version__} does not start on {device!r}",
            found=tensorrt_errors.brief(log.take() or [str(error)]),
            fix="lensmount doctor",
        ) from error


def _parse(network: trt.INetworkDefinition, log: Log, path: Path, subject: str) -> None:
    parser = trt.OnnxParser(network, log)
    if parser.parse_from_file(str(path)):
        return
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    nodes = [
        f"{error.node_operator()} {error.node_name()!r} (node {error.node()})" for error in errors if error.node() >= 0
    ]
    said = tensorrt_errors.brief([error.desc() for error in errors] or log.take())
    raise UnsupportedModelError(
        f"TensorRT {trt.__version__} cannot read {subject}",
        found=f"{', '.join(nodes[:5])}: {said}" if nodes else said,
        expected="ONNX's standard operators; libraries of TensorRT plugins are not loaded",
        fix="export the model again with standard operators (for detectors: --nms none)",
    )


def _configure(config: trt.IBuilderConfig, settings: BuildSettings, weak: trt.BuilderFlag | None) -> None:
    # TF32 keeps 10 bits of a float's mantissa, and is on by default: a user who asked for fp32 gets fp32.
    config.clear_flag(trt.BuilderFlag.TF32)
    if weak is not None:
        config.set_flag(weak)
    if settings.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if settings.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    config.builder_optimization_level = settings.optimization_level
    if settings.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace)


def _profile(
    builder: trt.Builder, inputs: Mapping[str, Shape], shapes: Mapping[str, Shapes], subject: str
) -> trt.IOptimizationProfile:
    profile = builder.create_optimization_profile()
    for name, shape in inputs.items():
        if -1 in shape:
            try:
                profile.set_shape(name, *shapes[name])
            except ValueError as error:
                raise BuildError(f"TensorRT refuses the shapes of {name!r} of {subject}", found=str(error)) from error
    return profile


def _require(done: bool, log: Log, subject: str, device: str) -> None:
    if not done:
        raise tensorrt_errors.building(log.take(), subject, device, trt.__version__)


def _read_timing_cache(config: trt.IBuilderConfig, path: Path | None, log: Log) -> trt.ITimingCache | None:
    """The file's cache, or a new one; every build has one, so that equal layers are timed once.

    Raises:
        OptionError: The file is another device's or version's, or no timing cache.
    """
    try:
        data = path.read_bytes() if path is not None and path.exists() else b""
    except OSError as error:
        raise OptionError(f"timing cache {path} cannot be read", found=str(error)) from error
    cache = config.create_timing_cache(data)
    if not config.set_timing_cache(cache, False):
        raise OptionError(
            f"timing cache {path} does not fit this machine",
            found=tensorrt_errors.brief(log.take()),
            expected="one that this version of TensorRT wrote on this kind of GPU",
            fix="name another file",
        )
    return cache


def _write_timing_cache(path: Path, data: bytes) -> None:
    from lensmount.store.files import write_atomic

    try:
        write_atomic(path, data)
    except OSError as error:
        raise StoreError(f"timing cache {path} cannot be written", found=str(error), fix="check the folder") from error
