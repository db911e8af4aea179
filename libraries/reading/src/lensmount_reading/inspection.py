"""Finding out what a file is and holds, without running or trusting it."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path

from lensmount.errors import ModelFileError, UnsupportedModelError
from lensmount_reading import limits
from lensmount_reading.archive import TorchArchive
from lensmount_reading.checkpoint import check_declared_size, read_checkpoint, scan_bare_pickle
from lensmount_reading.facts import FileFacts, GraphValue, TensorFact
from lensmount_reading.folders import find_checkpoint, is_index
from lensmount_reading.legacy import scan_legacy
from lensmount_reading.mapped import MappedFile
from lensmount_reading.modules import flatten
from lensmount_reading.onnx_file import onnx_facts
from lensmount_reading.pickles import PickleScan
from lensmount_reading.sniff import sniff
from lensmount_reading.tensors import TensorRef
from lensmount_reading.tflite_file import read_tflite
from lensmount_reading.wrappers import without_wrappers


def inspect_file(path: str | os.PathLike[str]) -> FileFacts:
    """Find out what a file is and holds.

    A file that asks for dangerous things is described all the same, with `refused_globals` and `error`; only
    reading it for use raises. The extension is not looked at.

    Args:
        path: A file, or what else `read_checkpoint` takes.

    Raises:
        ModelFileError: There is nothing to look at: the file is missing, empty, unreadable or no regular file.
        AmbiguousModelError: A folder with several model files.
    """
    path = find_checkpoint(Path(path))
    if is_index(path.name):
        return _tensors_only(FileFacts(path, "safetensors", path.stat().st_size))
    file = MappedFile(path)
    kind = sniff(file)
    facts = FileFacts(path, kind, file.size)
    if kind == "zip":
        return _archive(facts, file)
    if kind == "safetensors":
        return _tensors_only(facts)
    if kind == "torch-legacy":
        return _pickled(facts, scan_legacy(file, "modules"))
    if kind == "pickle":
        bare = UnsupportedModelError(f"{path} is a bare pickle", expected="a file that torch.save wrote")
        facts = _pickled(facts, scan_bare_pickle(file, "modules"))
        return dataclasses.replace(facts, error=facts.error or bare)
    if kind == "protobuf":
        return _onnx(file)
    if kind == "tflite":
        return _tflite(facts)
    if kind == "engine":
        return dataclasses.replace(facts, metadata=_engine_metadata(file))
    return dataclasses.replace(facts, error=_unknown(file))


def require_usable(facts: FileFacts) -> FileFacts:
    """Return the facts, or raise the `ModelFileError` that they hold."""
    if facts.error is not None:
        raise facts.error
    return facts


def _unknown(file: MappedFile) -> UnsupportedModelError:
    begins = bytes(file.data[:16])
    fixes = {
        b"<": "download it again: this looks like a web page, which is often saved in a model's place",
        b"version https://": "this is a pointer of Git LFS: `git lfs pull` brings the file",
    }
    return UnsupportedModelError(
        f"{file.path} is no kind of model file known here",
        found=f"{file.size:,} bytes that begin with {begins!r}",
        expected="an ONNX or TFLite graph, safetensors, what torch.save or torch.jit.save wrote, or a TensorRT engine",
        fix=next((fix for start, fix in fixes.items() if begins.startswith(start)), None),
    )


def _tensors_only(facts: FileFacts) -> FileFacts:
    try:
        checkpoint = read_checkpoint(facts.path, modules="records")
    except ModelFileError as error:
        return dataclasses.replace(facts, error=error)
    tensors = checkpoint.tensors
    size, kind = facts.size, checkpoint.kind
    if is_index(facts.path.name):
        size += sum(tensor.nbytes for tensor in tensors.values())
    return dataclasses.replace(facts, kind=kind, size=size, tensors=_facts_of(tensors), metadata=checkpoint.metadata)


def _archive(facts: FileFacts, file: MappedFile) -> FileFacts:
    try:
        archive = TorchArchive(file)
        facts = dataclasses.replace(facts, kind=archive.kind, metadata=archive.metadata)
        facts = _pickled(facts, archive.scan("modules"))
    except ModelFileError as error:
        return dataclasses.replace(facts, error=error)
    # Pickles that reading ignores are named too: another program might load them.
    for name in archive.extra_pickles():
        try:
            scan = archive.scan_extra(name)
        except ModelFileError:
            continue  # too large, or compressed in a way that is never read
        facts = dataclasses.replace(
            facts,
            globals=_merged(facts.globals, scan.globals),
            refused_globals=_merged(facts.refused_globals, scan.refused),
        )
    return facts


def _pickled(facts: FileFacts, scan: PickleScan) -> FileFacts:
    tensors: Mapping[str, TensorFact] = {}
    error = scan.problem
    if error is None:
        try:
            check_declared_size(scan, facts.path, facts.size)
            tensors = _facts_of(without_wrappers(flatten(scan.tree)))
        except ModelFileError as problem:
            error = problem
    return dataclasses.replace(facts, tensors=tensors, globals=scan.globals, refused_globals=scan.refused, error=error)


def _onnx(file: MappedFile) -> FileFacts:
    try:
        found = onnx_facts(file)
    except ModelFileError as error:
        # Many files could begin like this; only one that claims a format version was meant to be ONNX.
        kind = "onnx" if file.data[0] == 0x08 else "unknown"
        return FileFacts(file.path, kind, file.size, error=error)
    return FileFacts(
        file.path,
        "onnx",
        file.size,
        inputs=found.inputs,
        outputs=found.outputs,
        tensors=found.initializers,
        metadata=found.metadata,
        onnx=found,
    )


def _tflite(facts: FileFacts) -> FileFacts:
    try:
        model = read_tflite(facts.path)
    except ModelFileError as error:
        return dataclasses.replace(facts, error=error)
    inputs, outputs = (
        tuple(
            GraphValue(tensor.name, tensor.dtype, tuple(None if size < 0 else size for size in tensor.shape))
            for tensor in (model.tensors[number] for number in numbers)
        )
        for numbers in (model.inputs, model.outputs)
    )
    constants = {
        f"{tensor.index}:{tensor.name}": TensorFact(tensor.shape, tensor.dtype)
        for tensor in model.tensors
        if model.is_constant(tensor.index)
    }
    return dataclasses.replace(
        facts, inputs=inputs, outputs=outputs, tensors=constants, metadata=model.metadata, tflite=model
    )


def _engine_metadata(file: MappedFile) -> dict[str, str]:
    """The JSON that ultralytics writes before a TensorRT engine, as texts."""
    length = int.from_bytes(file.data[:4], "little")
    if not 2 <= length <= limits.MAX_TEXT_ENTRY or length + 4 > file.size or file.data[4:5] != b"{":
        return {}
    try:
        found = json.loads(str(file.data[4 : 4 + length], "utf-8"))
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in found.items()}


def _facts_of(tensors: Mapping[str, TensorRef]) -> dict[str, TensorFact]:
    return {key: TensorFact(tensor.shape, tensor.dtype) for key, tensor in tensors.items()}


def _merged(*groups: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for group in groups for name in group))
