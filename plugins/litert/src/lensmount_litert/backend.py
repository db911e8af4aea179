"""The litert backend: graphs of format `tflite` on LiteRT, on the CPU.

LiteRT runs what XNNPACK knows on XNNPACK and the rest in its own kernels. A file is never mapped: it is read once, and
the bytes that were checked are the bytes that run.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from lensmount.backend import cpu_count, session_threads, split_device, wheels
from lensmount.errors import (
    DeviceError,
    DeviceMemoryError,
    LensmountError,
    MissingDependencyError,
    ModelFileError,
    OptionError,
    UnsupportedModelError,
)
from lensmount.specs import BackendStatus
from lensmount_reading import read_tflite

if TYPE_CHECKING:
    from lensmount.contracts import Environment, OpenRequest
    from lensmount_litert.session import LitertSession

RUNTIME = "ai-edge-litert"
INSTALL = 'pip install "lensmount[litert]"'


def probe(environment: Environment) -> BackendStatus:
    """Whether LiteRT is installed; reads metadata only."""
    version = environment.version(RUNTIME)
    if version is None:
        fix = wheels.obstacle(environment, RUNTIME) or INSTALL
        return BackendStatus(usable=False, reason=f"{RUNTIME} is not installed", fix=fix)
    return BackendStatus(usable=True, version=version, devices=("cpu",), precisions=(("cpu", ("fp32", "int8")),))


def open_session(request: OpenRequest) -> LitertSession:
    """Opens a graph.

    Raises:
        MissingDependencyError: LiteRT is not installed or cannot be imported.
        ModelFileError: The file is missing, damaged, or no TFLite graph; `UnsupportedModelError` for an operator that
            LiteRT lacks.
        DeviceError: Another device than the CPU.
        DeviceMemoryError: There is not enough memory.
        OptionError: `threads`, `LENSMOUNT_THREADS` or `contexts` is not valid, or `device_path` is asked for.
    """
    path = request.path
    if path is None:
        raise ModelFileError(
            f"package {request.package.name!r} has no graph to open", expected="an artifact of role 'graph'"
        )
    threads = session_threads(request) or cpu_count()
    if split_device(request.device)[0] != "cpu":
        raise DeviceError(f"LiteRT does not run on {request.device!r} here", found=request.device, expected="cpu")
    if request.options.device_path:
        raise OptionError("the litert backend takes no tensors", found="device_path=True", fix="leave it out")
    interpreter_of = _import()
    try:
        content = path.read_bytes() if path.is_file() else b""
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}") from error
    if not content:
        raise ModelFileError(f"graph {path.name!r} is not there, or empty", found=str(path), expected="a TFLite file")
    model = read_tflite(path, content=content)
    _require_known(model.operators, path.name)
    from lensmount_litert.session import LitertSession

    subject = f"graph {path.name!r}"
    make = partial(_interpreter, interpreter_of, content, threads, subject)
    return LitertSession(
        make,
        make(),
        model,
        subject,
        contexts=request.options.contexts,
        provider=f"LiteRT {_version()}",
    )


def _import() -> Any:
    from lensmount_litert.quiet import without_notes

    try:
        with without_notes():
            from ai_edge_litert.interpreter import Interpreter
    except ModuleNotFoundError as error:
        raise MissingDependencyError("the litert backend needs LiteRT", found=str(error), fix=INSTALL) from error
    except ImportError as error:
        raise MissingDependencyError(
            "LiteRT is installed but cannot be imported",
            found=str(error),
            fix=f"pip install --force-reinstall {RUNTIME}",
        ) from error
    return Interpreter


def _version() -> str:
    from importlib import metadata

    return metadata.version(RUNTIME)


def _require_known(operators: Any, name: str) -> None:
    custom = sorted({one.kind.partition(":")[2] for one in operators if one.kind.startswith("CUSTOM:")})
    if custom:
        flex = any(kind.startswith("Flex") for kind in custom)
        raise UnsupportedModelError(
            f"graph {name!r} asks for operators that LiteRT does not bring",
            found=", ".join(custom[:5]),
            expected="TFLite's builtin operators; libraries of custom operators are not loaded",
            fix="export it again without TensorFlow's own operators (select TF ops)" if flex else None,
        )


def _interpreter(interpreter_of: Any, content: bytes, threads: int, subject: str) -> Any:
    from lensmount_litert.quiet import without_notes

    try:
        with without_notes():
            made = interpreter_of(model_content=content, num_threads=threads)
            made.allocate_tensors()
    except Exception as error:
        raise _opening(error, subject) from error
    return made


def _opening(error: Exception, subject: str) -> LensmountError:
    from lensmount_litert.session import brief

    said = brief(error)
    if isinstance(error, MemoryError):
        return DeviceMemoryError(f"there is not enough memory to open {subject}", found=said)
    if "op for builtin" in said or "Unsupported data type" in said or "version" in said:
        return UnsupportedModelError(
            f"{subject} asks for what the installed LiteRT lacks",
            found=said,
            fix=f"pip install --upgrade {RUNTIME}, or export it again",
        )
    return ModelFileError(
        f"{subject} cannot be opened by LiteRT", found=said, fix="fetch or export the file again, and look at its maker"
    )
