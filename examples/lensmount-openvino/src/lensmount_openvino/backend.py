"""Opens graphs on OpenVINO: what it is told, and what is read back.

OpenVINO chooses much by itself: on processors with the instructions it computes float32 graphs in bfloat16, and on
GPUs in float16. Here the precision is fixed, and read back from the compiled graph, node by node.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

from lensmount.backend import session_threads, split_device
from lensmount.contracts import OpenRequest
from lensmount.errors import (
    BackendError,
    DeviceError,
    MissingDependencyError,
    ModelFileError,
    OptionError,
    UnsupportedModelError,
)
from lensmount_openvino import errors
from lensmount_openvino.probing import INSTALL
from lensmount_openvino.session import OpenVinoSession, describe
from lensmount_reading import GraphFile, inspect_graph

DEVICES = {"cpu": "CPU", "xpu": "GPU", "npu": "NPU"}
"""OpenVINO's word for a kind of device."""

HINTS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
"""OpenVINO's word for a precision."""

CAPABILITIES = {"fp32": "FP32", "fp16": "FP16", "bf16": "BF16"}
"""What a device lists where it computes in a precision."""


def open_session(request: OpenRequest) -> OpenVinoSession:
    """Opens a graph.

    Raises:
        MissingDependencyError: OpenVINO is not installed or cannot be imported.
        ModelFileError: The file is missing, corrupt, or no ONNX graph; `UnsafeFileError` for data outside its folder;
            `UnsupportedModelError` for an operator that OpenVINO lacks, and for types that it would narrow.
        DeviceError: OpenVINO does not report the device, or put the graph elsewhere.
        DeviceMemoryError: The device is out of memory.
        OptionError: `threads`, `LENSMOUNT_THREADS` or `providers` is not valid.
        BackendError: OpenVINO cannot compile the graph, or would compute in another precision.
    """
    path = request.path
    if path is None:
        raise ModelFileError(
            f"package {request.package.name!r} has no graph to open", expected="an artifact of role 'graph'"
        )
    subject = f"graph {path.name!r}"
    if request.options.providers is not None:
        raise OptionError("providers= names onnxruntime's; this is OpenVINO", found=repr(request.options.providers))
    threads = session_threads(request)
    kind, index = split_device(request.device)
    ov = _import()
    if not path.is_file():
        raise ModelFileError(f"{subject} is not there", found=str(path), expected="a file")
    graph = inspect_graph(path, request.package)
    inputs, outputs = describe(graph.facts.inputs, subject), describe(graph.facts.outputs, subject)
    core = ov.Core()
    target = choose_device(kind, index, core.available_devices)
    model = _read(path, graph, subject)
    _refuse_double(model, subject)
    precision = "fp32" if graph.precision == "int8" else graph.precision
    if CAPABILITIES.get(precision) not in core.get_property(target, "OPTIMIZATION_CAPABILITIES"):
        precision = "fp32"  # more exact than asked for, and the session says so
    try:
        compiled = core.compile_model(model, target, _settings(kind, precision, threads))
    except Exception as error:
        raise errors.opening(error, subject, request.device) from error
    _check_device(compiled, target, subject)
    _check_precision(compiled, precision, subject)
    return OpenVinoSession(
        compiled,
        subject,
        inputs=inputs,
        outputs=outputs,
        metadata=graph.facts.metadata,
        device=f"{kind}:{index}" if kind == "xpu" else kind,
        precision="int8" if graph.precision == "int8" else precision,
        provider=f"OpenVINO {_version(ov)} {target}",
    )


TELEMETRY = "LENSMOUNT_OPENVINO_TELEMETRY"
"""Variable of the environment that lets OpenVINO send."""


@contextlib.contextmanager
def _without_telemetry() -> Generator[None, None, None]:
    """Hides OpenVINO's telemetry package while OpenVINO is imported, which then takes its own stand-in.

    The import itself sends an event and writes an identifier into the home folder; no variable of the environment
    turns that off. A process that imported either before has decided for itself.
    """
    name = "openvino_telemetry"
    if "openvino" in sys.modules or name in sys.modules or os.environ.get(TELEMETRY) == "1":
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # importing it fails as if it were not installed
    try:
        yield
    finally:
        sys.modules.pop(name, None)


def _import() -> Any:
    try:
        with _without_telemetry():
            import openvino
    except ModuleNotFoundError as error:
        raise MissingDependencyError("the openvino backend needs openvino", found=str(error), fix=INSTALL) from error
    except ImportError as error:
        raise MissingDependencyError(
            "openvino is installed but cannot be imported",
            found=str(error),
            fix="pip install --force-reinstall openvino",
        ) from error
    return openvino


def _version(ov: Any) -> str:
    return str(ov.__version__).partition("-")[0]  # without the build's number


def choose_device(kind: str, index: int, available: list[str]) -> str:
    """OpenVINO's name of a device.

    Args:
        kind: `cpu`, `xpu`, `npu`.
        index: Its number.
        available: What OpenVINO reports: `["CPU", "GPU.0", "GPU.1"]`; the only device of a kind has no number.

    Raises:
        DeviceError: Not among them.
    """
    name = DEVICES.get(kind)
    names = [f"{name}.{index}", *([name] if index == 0 else [])] if name else []
    for known in names:
        if known in available:
            return known
    raise DeviceError(
        f"OpenVINO does not report the device {kind if index == 0 else f'{kind}:{index}'!r}",
        found=", ".join(available) or "no devices",
        expected=" or ".join(names) or "cpu, xpu:0 (an Intel GPU), npu",
        fix="device='cpu'; for a GPU or NPU, install Intel's driver for it",
    )


def _settings(kind: str, precision: str, threads: int | None) -> dict[str, Any]:
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": HINTS[precision], "PERFORMANCE_HINT": "LATENCY"}
    if kind == "cpu":
        # "Accuracy" also keeps OpenVINO from quantising activations where weights are compressed. Pinned threads
        # cannot leave a core that another program takes.
        settings |= {"EXECUTION_MODE_HINT": "ACCURACY", "ENABLE_CPU_PINNING": False}
        settings |= {} if threads is None else {"INFERENCE_NUM_THREADS": threads}
    return settings


def _read(path: Path, graph: GraphFile, subject: str) -> Any:
    # ONNX's own reader: `Core.read_model` hands what that one refuses to those of other formats.
    from openvino.frontend import FrontEndManager

    with _beside_its_data(path, graph.data) as place:
        try:
            reader: Any = FrontEndManager().load_by_framework("onnx")
            # False: no data file is mapped. One that somebody shortens later would end the process.
            return reader.convert(reader.load(str(place), False))
        except Exception as error:
            raise errors.reading(error, subject) from error


@contextlib.contextmanager
def _beside_its_data(path: Path, data: tuple[tuple[str, Path], ...]) -> Generator[Path, None, None]:
    """A place where graph and data files lie in one folder: OpenVINO follows no link that leaves the graph's.

    Links into a store that the core has checked are gathered in a folder of their own: as hard links, else as copies.
    """
    home = path.parent.resolve()
    if all(real.is_relative_to(home) for _, real in data):
        yield path
        return
    # On Windows files that are mapped cannot be removed: the system's cleaning of temporary files will.
    with tempfile.TemporaryDirectory(prefix="lensmount-openvino-", ignore_cleanup_errors=True) as folder:
        for name, real in (("graph.onnx", path.resolve()), *data):
            target = Path(folder, "package", name)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(real, target)
            except OSError:
                shutil.copyfile(real, target)
        yield Path(folder, "package", "graph.onnx")


def _refuse_double(model: Any, subject: str) -> None:
    """OpenVINO computes float64 in float32, on every device and without a word."""
    for node in model.get_ordered_ops():
        if node.get_type_name() in ("Parameter", "Constant", "Convert", "Result"):
            continue
        if any(output.get_element_type().get_type_name() == "f64" for output in node.outputs()):
            raise UnsupportedModelError(
                f"{subject} computes in float64, which OpenVINO would narrow to float32",
                found=f"{node.get_type_name()} {node.get_friendly_name()!r}",
                expected="float32, float16 or integers",
                fix="export it in float32; or load it with backend='onnx'",
            )


def _check_device(compiled: Any, target: str, subject: str) -> None:
    effective = [str(name) for name in compiled.get_property("EXECUTION_DEVICES")]
    if effective != [target] and effective != [f"{target}.0"]:
        raise DeviceError(f"OpenVINO put {subject} elsewhere", found=", ".join(effective), expected=target)


def _check_precision(compiled: Any, precision: str, subject: str) -> None:
    """Compares the hint in force, and the type that each node runs in, with what was asked for."""
    wanted = HINTS[precision]
    hint = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    narrower = {"f32": {"f16", "bf16"}, "f16": {"bf16"}, "bf16": {"f16"}}[wanted]
    layers: list[str] = []
    for node in compiled.get_runtime_model().get_ordered_ops():
        facts = node.get_rt_info()
        layer, ran = (facts[key].astype(str) if key in facts else "" for key in ("layerType", "runtimePrecision"))
        if ran.lower() in narrower and layer not in ("Input", "Output", "Const", "Convert", "Reorder"):
            layers.append(f"{layer} {node.get_friendly_name()!r} in {ran}")
    if hint != wanted or layers:
        raise BackendError(
            f"OpenVINO would not compute {subject} in {precision}",
            found="; ".join([f"precision hint {hint}", *layers[:3]]),
            expected=f"precision hint {wanted}, and nothing narrower",
            fix="load it with backend='onnx'",
        )
