"""How `facts.inspect_file` finds out; apart from it so that the facts themselves stay light to import."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from lensmount.errors import ModelFileError, UnsupportedModelError
from lensmount.reading import limits
from lensmount.reading.archive import TorchArchive
from lensmount.reading.checkpoint import declared_size_problem, find_checkpoint, read_checkpoint
from lensmount.reading.facts import FileFacts, TensorFact
from lensmount.reading.legacy import scan_legacy
from lensmount.reading.mapped import MappedFile
from lensmount.reading.modules import flatten
from lensmount.reading.onnx_file import onnx_facts
from lensmount.reading.pickles import PickleScan, scan_pickle
from lensmount.reading.sniff import sniff
from lensmount.reading.tensors import TensorRef


def inspect(path: Path) -> FileFacts:
    """Do what `facts.inspect_file` promises."""
    path = find_checkpoint(path)
    if path.name.endswith(".index.json"):
        checkpoint = read_checkpoint(path)
        size = sum(tensor.nbytes for tensor in checkpoint.tensors.values())
        return FileFacts(path, "safetensors", size, tensors=_facts_of(checkpoint.tensors), metadata=checkpoint.metadata)
    file = MappedFile(path)
    kind = sniff(file)
    if kind == "zip":
        return _archive(file)
    if kind == "safetensors":
        checkpoint = read_checkpoint(path)
        return FileFacts(path, kind, file.size, tensors=_facts_of(checkpoint.tensors), metadata=checkpoint.metadata)
    if kind == "torch-legacy":
        return _pickled(FileFacts(path, kind, file.size), scan_legacy(file, "modules"))
    if kind == "pickle":
        where = str(path)
        scan = scan_pickle(file.data[: limits.MAX_PICKLE_BYTES], where=where, policy="modules")
        facts = _pickled(FileFacts(path, kind, file.size), scan)
        return facts if facts.problem else dataclasses.replace(facts, problem=f"{where} is a bare pickle")
    if kind == "protobuf":
        return _onnx(file)
    if kind == "engine":
        return FileFacts(path, kind, file.size, metadata=_engine_metadata(file))
    return FileFacts(path, kind, file.size, problem=f"{path} is of a kind that lensmount does not read")


def _archive(file: MappedFile) -> FileFacts:
    try:
        archive = TorchArchive(file)
    except UnsupportedModelError as error:
        return FileFacts(file.path, "zip", file.size, problem=str(error))
    facts = FileFacts(file.path, archive.kind, file.size, metadata=archive.metadata)
    facts = _pickled(facts, archive.scan("modules"))
    extra = [archive.scan_extra(name) for name in archive.extra_pickles()]
    return dataclasses.replace(
        facts,
        globals=_merged(facts.globals, *(scan.globals for scan in extra)),
        refused_globals=_merged(facts.refused_globals, *(scan.refused for scan in extra)),
    )


def _pickled(facts: FileFacts, scan: PickleScan) -> FileFacts:
    problem = None if scan.problem is None else str(scan.problem)
    tensors: Mapping[str, TensorFact] = {}
    if problem is None:
        try:
            tensors = _facts_of(flatten(scan.tree))
            problem = declared_size_problem(scan, facts.size)
        except ModelFileError as error:
            problem = str(error)
    return dataclasses.replace(
        facts, tensors=tensors, globals=scan.globals, refused_globals=scan.refused, problem=problem
    )


def _onnx(file: MappedFile) -> FileFacts:
    try:
        found = onnx_facts(file)
    except ModelFileError as error:
        # Many files could begin like this; only one that claims a format version was meant to be ONNX.
        kind = "onnx" if file.data[0] == 0x08 else "unknown"
        return FileFacts(file.path, kind, file.size, problem=str(error))
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
