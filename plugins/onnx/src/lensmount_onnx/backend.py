"""The onnx backend: graphs of format `onnx` on onnxruntime.

Effective provider and device are read back and compared with the request: onnxruntime falls back to the CPU silently,
this backend raises. Worker threads sleep instead of spinning between runs: spinning gains about 2 % on an idle machine
and costs 40 % on one with a busy core.
"""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from lensmount.backend import memory, wheels
from lensmount.backend.device_tensors import tensors_wanted
from lensmount.backend.devices import session_threads, split_device
from lensmount.contracts.session import OpenRequest, TensorSpec, check_feeds
from lensmount.errors import (
    BackendError,
    ClosedError,
    LensmountError,
    MissingDependencyError,
    ModelFileError,
    UnsupportedModelError,
)
from lensmount.specs import BackendStatus
from lensmount_onnx import binding as onnx_binding
from lensmount_onnx import errors as onnx_errors
from lensmount_onnx import providers as onnx_providers
from lensmount_onnx import saturation
from lensmount_reading import inspect_graph, supply_data

if TYPE_CHECKING:
    from lensmount.contracts import Environment, Gpu, GraphNetwork
    from lensmount.contracts.arrays import Array

INSTALL = 'pip install "lensmount[onnx]"'
INSTALL_GPU = 'pip install "lensmount[onnx-gpu]"'

_SAME = ("float16", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool")
DTYPES = {"float": "float32", "double": "float64", "string": "object", **{name: name for name in _SAME}}
"""numpy's name by onnxruntime's `tensor(…)`."""

PRECISIONS = {"cpu": ("fp32", "fp16", "int8"), "cuda": ("fp32", "fp16", "bf16", "int8"), "mps": ("fp32", "fp16")}
"""Precisions of graphs by device kind. The CPU stores and loads fp16 and computes most of it in fp32."""


def probe(environment: Environment) -> BackendStatus:
    """Whether onnxruntime runs here, and where; reads installed metadata only.

    `mps` (Apple's GPU through CoreML) stands behind `cpu`: it is there for who asks, and never chosen by itself.
    """
    name = environment.onnxruntime or next(
        (name for name in ("onnxruntime-gpu", "onnxruntime") if environment.version(name)), None
    )
    if name is None:
        install = wheels.cuda_build(environment, "onnxruntime-gpu", INSTALL_GPU) if environment.gpus else INSTALL
        fix = wheels.obstacle(environment, "onnxruntime") or install
        return BackendStatus(usable=False, reason="onnxruntime is not installed", fix=fix)
    if name in environment.damaged:
        reason = f"the files of {name} are gone: another onnxruntime was installed over it and removed again"
        return BackendStatus(usable=False, reason=reason, fix=f"pip install --force-reinstall --no-deps {name}")
    left_out, why_not = _without_cuda(name, environment) if environment.gpus else ((), None)
    gpus = tuple(f"cuda:{gpu.index}" for gpu in environment.gpus if gpu not in left_out)
    mac = environment.system == "darwin" and environment.machine == "arm64"
    devices = (*gpus, "cpu", *(("mps",) if mac else ()))
    kinds = dict.fromkeys(split_device(device)[0] for device in devices)
    return BackendStatus(
        usable=True,
        version=environment.version(name),
        devices=devices,
        precisions=tuple((kind, PRECISIONS[kind]) for kind in kinds),
        reason=why_not and f"not on CUDA: {why_not[0]}",
        fix=why_not and why_not[1],
    )


def _without_cuda(name: str, environment: Environment) -> tuple[tuple[Gpu, ...], tuple[str, str] | None]:
    """The GPUs that cannot be used; and why, with what would change that."""
    if name != "onnxruntime-gpu":
        fix = wheels.cuda_build(environment, "onnxruntime-gpu", onnx_providers.INSTALL_GPU)
        return environment.gpus, (f"the installed {name} is a build without it", fix)
    built = environment.onnxruntime_cuda
    subject = f"{name} {environment.version(name)}"
    if wheels.driver_too_old(environment, built):
        why = f"{subject} needs a driver for CUDA {built}, this one ends at {environment.cuda}"
        fix = "install a newer NVIDIA driver, or an onnxruntime-gpu that was built for the driver's CUDA"
        return environment.gpus, (why, fix)
    if old := wheels.too_old_for(environment, built):
        return old, (wheels.no_kernels(subject, old), "install an onnxruntime-gpu for CUDA 12 (1.26 or older)")
    return (), None


def open_session(request: OpenRequest) -> OnnxSession:
    """Opens a graph.

    Raises:
        MissingDependencyError: onnxruntime is not installed or cannot be imported.
        ModelFileError: The file is missing, corrupt, or no ONNX graph; `UnsafeFileError` for data outside its folder;
            `UnsupportedModelError` for an operator, opset or type that the installed onnxruntime lacks.
        DeviceError: The device or provider is not there, or onnxruntime fell back from it.
        DeviceMemoryError: The device is out of memory.
        OptionError: `threads`, `LENSMOUNT_THREADS`, `providers` or `device_path` is not valid.
    """
    graph = request.graph
    path = request.path
    if path is None and graph is None:
        raise ModelFileError(
            f"package {request.package.name!r} has no graph to open", expected="an artifact of role 'graph'"
        )
    subject = f"graph {path.name!r}" if path is not None else f"the graph of package {request.package.name!r}"
    threads = session_threads(request)
    split_device(request.device)
    ort = _import()
    if path is not None and not path.is_file():
        raise ModelFileError(f"{subject} is not there", found=str(path), expected="a file")
    file = None if path is None else inspect_graph(path, request.package)
    computes = "fp32" if file is None else file.precision
    chosen = onnx_providers.choose(request, ort.get_available_providers())
    tensors = tensors_wanted(request)
    stream = onnx_binding.share_stream(chosen, request.device) if tensors else None
    said = _preload(ort) if request.device.startswith("cuda") else ""
    options = _session_options(ort, threads)
    if computes == "int8" and saturation.saturates():
        options.add_session_config_entry(saturation.EXACT, "1")
    try:
        with supply_data(options, () if file is None else file.supplied):
            source = str(path) if graph is None else graph.model
            held = _supply(ort, options, graph)
            session = ort.InferenceSession(source, options, providers=chosen, enable_fallback=0)
        session.disable_fallback()
    except Exception as error:
        raise onnx_errors.opening(error, subject, request.device) from error
    try:
        provider, device = onnx_providers.read_back(session, chosen, request)
    except BackendError as error:
        error.found = f"{error.found}; {said}" if said else error.found
        raise
    # The TensorRT provider lowers a float graph to half precision; every other runs the graph as it is.
    lowered = provider == onnx_providers.TENSORRT and request.precision == "fp16" and computes == "fp32"
    session.initializers = held  # as long as it, and so as any of its runs
    opened = OnnxSession(session, _run_options(ort), subject, provider, device, "fp16" if lowered else computes)
    if tensors:
        opened.take_tensors(onnx_binding.ordering(session, provider, device, stream))
    return opened


def _import() -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise MissingDependencyError("the onnx backend needs onnxruntime", found=str(error), fix=INSTALL) from error
    except ImportError as error:
        raise MissingDependencyError(
            "onnxruntime is installed but cannot be imported",
            found=str(error),
            fix=f"pip install --force-reinstall onnxruntime, or {INSTALL}",
        ) from error
    return onnxruntime


def _session_options(ort: Any, threads: int | None) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return options


def _supply(ort: Any, options: Any, graph: GraphNetwork | None) -> tuple[Any, ...]:
    """Hands a graph's initializers to a session to be, without a copy; what is returned must outlive the session."""
    if graph is None or not graph.initializers:
        return ()
    values = [ort.OrtValue.ortvalue_from_numpy(array) for array in graph.initializers.values()]
    options.add_external_initializers(list(graph.initializers), values)
    return tuple(values)


def _run_options(ort: Any) -> Any:
    # A failed run raises, and its error says all; onnxruntime would print it on stderr as well.
    options = ort.RunOptions()
    options.log_severity_level = 4
    return options


_preload_once = threading.Lock()


def _preload(ort: Any) -> str:
    """Loads the CUDA libraries that pip installed (`nvidia-*`); what onnxruntime prints about it is returned."""
    if not hasattr(ort, "preload_dlls"):
        return ""
    said = io.StringIO()
    with _preload_once, contextlib.redirect_stdout(said), contextlib.suppress(RuntimeError, OSError):
        ort.preload_dlls()
    return " ".join(said.getvalue().split())[:300]


class OnnxSession:
    """A graph opened on onnxruntime; satisfies `lensmount.contracts.Session`.

    Attributes:
        backend: `onnx`.
        device: Device that it effectively runs on.
        precision: Precision that the graph computes in.
        provider: First execution provider, as onnxruntime names it.
        inputs: Inputs in order.
        outputs: Outputs in order.
        metadata: The graph's custom metadata.
        assignment: Nodes by the provider that runs them; empty where onnxruntime is too old to tell.
        tensor_device: Where `run_tensors` takes and gives tensors; None where models are to work on the host.
        channels_last: False: graphs take their pictures contiguous.
    """

    def __init__(
        self, session: Any, run_options: Any, subject: str, provider: str, device: str, precision: str
    ) -> None:
        self._session: Any | None = session
        self._quiet = run_options
        self._subject = subject
        self._on_host = not device.startswith("cuda")
        self.backend = "onnx"
        self.device = device
        self.provider = provider
        self.inputs = tuple(_spec(node, self._subject) for node in session.get_inputs())
        self.outputs = tuple(_spec(node, self._subject) for node in session.get_outputs())
        self._names = [spec.name for spec in self.outputs]
        self.metadata: Mapping[str, str] = dict(session.get_modelmeta().custom_metadata_map)
        self.assignment = onnx_providers.assignment(session)
        self.precision = precision
        self.tensor_device: str | None = None
        self.channels_last = False
        self._tensors: onnx_binding.TensorRunner | None = None

    def take_tensors(self, order: onnx_binding.Ordering) -> None:
        """Opens the way for `run_tensors`, ordered as told."""
        session = self._open()
        self.tensor_device = self.device
        self._tensors = onnx_binding.TensorRunner(session, self.inputs, self.outputs, self.device, order, self._quiet)

    def run_tensors(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Runs once on `torch.Tensor`s; see `lensmount.contracts.session.TensorSession`.

        Outputs may share onnxruntime's memory. It is used again when they are gone, so code that reads them on another
        stream than the one that was current here copies them first.
        """
        self._open()
        if self._tensors is None:
            raise BackendError(f"the session of {self._subject} takes no tensors", fix="load with device_path=True")
        self._check_names(feeds)
        try:
            return self._tensors.run(feeds)
        except BackendError:
            raise
        except Exception as error:
            raise self._failure(error, feeds, self._tensors.run) from error

    def _check_names(self, feeds: Mapping[str, Any]) -> None:
        expected = [spec.name for spec in self.inputs]
        if set(feeds) != set(expected):
            raise BackendError(
                f"{self._subject} was given the wrong inputs", found=str(sorted(feeds)), expected=str(expected)
            )

    def _failure(
        self, error: Exception, feeds: Mapping[str, Any], run: Callable[[Mapping[str, Any]], Any]
    ) -> LensmountError:
        """The error for a run that failed; where memory ran out, with a batch that runs."""
        if not onnx_errors.is_memory(error):
            return onnx_errors.running(error, self._subject, self.device)
        batch = memory.batch_of(self.inputs, feeds)
        fits = None
        if batch is not None and self.device.startswith("cuda"):
            fits = memory.fitting_batch(lambda size: run({n: f[:size] for n, f in feeds.items()}), batch, None)
        said = onnx_errors.memory_said(error)
        return memory.shortage(self._subject, self.device, said, batch=batch, fits=fits, free=None)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Runs once; see `lensmount.contracts.Session.run`."""
        session = self._open()
        check_feeds(self.inputs, feeds, self._subject)
        try:
            if self._on_host:
                values = session.run(self._names, feeds if isinstance(feeds, dict) else dict(feeds), self._quiet)
            else:
                values = [value.numpy() for value in self._run_bound(session, feeds)]
        except Exception as error:
            raise self._failure(error, feeds, lambda smaller: self._run_bound(session, smaller)) from error
        return dict(zip(self._names, values, strict=True))

    def run_on_device(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Runs once and leaves the outputs on the session's device, for a next graph that takes them from there.

        Args:
            feeds: Every input by name, as a host array or as an `onnxruntime.OrtValue` from an earlier call.

        Returns:
            Every output by name, as an `onnxruntime.OrtValue`; `.numpy()` brings one to the host.

        Raises:
            BackendError: As for `run`; what an `OrtValue` does not fit is found by onnxruntime.
        """
        session = self._open()
        self._check_names(feeds)
        arrays = {name: value for name, value in feeds.items() if hasattr(value, "dtype")}
        check_feeds(tuple(spec for spec in self.inputs if spec.name in arrays), arrays, self._subject)
        try:
            values = self._run_bound(session, feeds)
        except Exception as error:
            raise onnx_errors.running(error, self._subject, self.device) from error
        return dict(zip(self._names, values, strict=True))

    def close(self) -> None:
        """Frees the session once all started runs have ended; a second call does nothing."""
        self._session = self._tensors = None

    def _open(self) -> Any:
        session = self._session
        if session is None:
            raise ClosedError(f"the session of {self._subject} was closed", fix="load the model again")
        return session

    def _run_bound(self, session: Any, feeds: Mapping[str, Any]) -> list[Any]:
        # A binding per call: it holds the call's arrays, so two threads must not share one.
        binding = session.io_binding()
        kind, index = split_device(self.device)
        kind = kind if kind == "cuda" else "cpu"
        for name, value in feeds.items():
            if hasattr(value, "dtype"):
                binding.bind_cpu_input(name, _contiguous(value))
            else:
                binding.bind_ortvalue_input(name, value)
        for name in self._names:
            binding.bind_output(name, kind, index)
        session.run_with_iobinding(binding, self._quiet)
        values: list[Any] = binding.get_outputs()
        return values


def _contiguous(array: Array) -> Array:
    import numpy as np

    return np.ascontiguousarray(array)


def _spec(node: Any, subject: str) -> TensorSpec:
    kind = str(node.type)
    dtype = DTYPES.get(kind[7:-1]) if kind.startswith("tensor(") else None
    if dtype is None:
        raise UnsupportedModelError(
            f"{node.name!r} of {subject} is not an array that numpy can hold",
            found=kind,
            expected="tensor(float), tensor(float16), tensor(uint8) …",
            fix="export the model with float inputs and outputs",
        )
    return TensorSpec(node.name, tuple(node.shape), dtype)
