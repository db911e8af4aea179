"""Opens graphs on a server: the file on this machine says what the graph is, the server has the same and runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmount.backend import session_threads, split_device
from lensmount.contracts import OpenRequest, TensorSpec
from lensmount.errors import BackendError, DeviceError, ModelFileError, OptionError
from lensmount_reading import GraphFile, inspect_graph
from lensmount_triton import server as triton
from lensmount_triton.config import DEVICE, TYPES, UPLOAD, Server, batches, server, sizes_of
from lensmount_triton.digest import KEY, digest
from lensmount_triton.session import TritonSession

if TYPE_CHECKING:
    from lensmount_reading import GraphValue

MAX_BATCH = 8


def open_session(request: OpenRequest) -> TritonSession:
    """Opens a graph on the server that `LENSMOUNT_TRITON_URL` names.

    Raises:
        MissingDependencyError: tritonclient is not installed.
        ModelFileError: The graph's file is missing, corrupt, or no ONNX graph; `UnsupportedModelError` for one that the
            server cannot load.
        DeviceError: Another device than `remote` was asked for.
        OptionError: `threads`, `providers` or a variable of the environment is not valid.
        OfflineError: Offline, and the server is on another machine.
        BackendError: The server does not answer, does not have the model, or has another one under its sha256.
    """
    path = request.path
    if path is None:
        raise ModelFileError(
            f"package {request.package.name!r} has no graph to open", expected="an artifact of role 'graph'"
        )
    subject = f"graph {path.name!r}"
    if request.options.providers is not None:
        raise OptionError("providers= names onnxruntime's; this is Triton", found=repr(request.options.providers))
    session_threads(request)
    split_device(request.device)
    if request.device != DEVICE:
        raise DeviceError("the triton backend runs on its server alone", found=repr(request.device), expected=DEVICE)
    if not path.is_file():
        raise ModelFileError(f"{subject} is not there", found=str(path), expected="a file")
    graph = inspect_graph(path, request.package)
    inputs, outputs = specs(graph.facts.inputs, subject), specs(graph.facts.outputs, subject)
    place = server()
    clients = triton.connect(place)
    try:
        provider = triton.version(clients)
        name, config = _model(clients, place, path, graph, inputs, outputs, subject)
        _compare(config, inputs, outputs, subject, place)
    except BaseException:
        clients.close()
        raise
    most = int(config.get("max_batch_size") or 0)
    return TritonSession(
        clients,
        name,
        subject,
        inputs=inputs,
        outputs=outputs,
        metadata=graph.facts.metadata,
        precision=graph.precision,
        provider=provider,
        max_batch=most or None,
    )


def specs(values: Sequence[GraphValue], subject: str) -> tuple[TensorSpec, ...]:
    """Inputs or outputs as the file names them.

    Raises:
        ModelFileError: A type that is no array, or one that Triton does not take.
    """
    for value in values:
        if value.dtype not in TYPES or not value.ranked:
            raise ModelFileError(
                f"{value.name!r} of {subject} is not an array that Triton takes",
                found=value.dtype if value.ranked else "any number of dimensions",
                expected=", ".join(TYPES),
            )
    return tuple(TensorSpec(value.name, value.shape, value.dtype) for value in values)


def described(name: str, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], sha256: str) -> dict[str, Any]:
    """A model's configuration as Triton's JSON has it."""
    most = MAX_BATCH if batches(inputs, outputs) else 0

    def value(spec: TensorSpec) -> dict[str, Any]:
        sizes = sizes_of(spec, most)
        dims: dict[str, Any] = {"dims": sizes} if sizes else {"dims": [1], "reshape": {"shape": []}}
        return {"name": spec.name, "data_type": f"TYPE_{TYPES[spec.dtype]}", **dims}

    return {
        "name": name,
        "platform": "onnxruntime_onnx",
        "max_batch_size": most,
        "input": [value(spec) for spec in inputs],
        "output": [value(spec) for spec in outputs],
        **({"dynamic_batching": {}} if most else {}),
        "parameters": {KEY: {"string_value": sha256}},
    }


def _model(
    clients: triton.Clients,
    place: Server,
    path: Path,
    graph: GraphFile,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    subject: str,
) -> tuple[str, Mapping[str, Any]]:
    """Name and configuration of the server's model, loaded onto it where that is allowed."""
    sha256 = digest(path, graph.data)
    found = triton.find(clients, sha256)
    if found is not None:
        return found
    if not place.upload or graph.data:
        raise BackendError(
            f"the Triton server {place} does not have {subject}",
            found=f"no model whose {KEY} is {sha256[:16]}…",
            expected="the model as lensmount export writes it",
            fix="lensmount export MODEL --to triton DIR, where DIR is the server's model repository"
            + ("" if graph.data else f"; or {UPLOAD}=1, where the server takes models from clients"),
        )
    name = f"lensmount-{sha256[:16]}"
    triton.upload(clients, path, described(name, inputs, outputs, sha256), subject)
    config = triton.configuration(clients, name)
    if config is None:
        raise BackendError(f"the Triton server {place} loaded {subject} and does not show it", found=f"no model {name}")
    return name, config


def _compare(
    config: Mapping[str, Any],
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    subject: str,
    place: Server,
) -> None:
    """Refuses a server's model that does not take and give what the graph's file says."""
    most = int(config.get("max_batch_size") or 0)
    for word, specs_ in (("input", inputs), ("output", outputs)):
        there = {str(value.get("name")): value for value in config.get(word) or ()}
        for spec in specs_:
            value = there.get(spec.name, {})
            dims = [int(size) for size in (value.get("reshape") or {}).get("shape", value.get("dims", ()))]
            wanted = sizes_of(spec, most)
            same = value.get("data_type") == f"TYPE_{TYPES[spec.dtype]}" and len(dims) == len(wanted)
            if not same or any(a != b for a, b in zip(dims, wanted, strict=True) if -1 not in (a, b)):
                raise BackendError(
                    f"the Triton server {place} has another {subject}",
                    found=f"{word} {spec.name!r}: {value.get('data_type', 'none')} {dims}",
                    expected=f"TYPE_{TYPES[spec.dtype]} {wanted}",
                    fix="lensmount export MODEL --to triton DIR",
                )
