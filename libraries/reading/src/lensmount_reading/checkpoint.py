"""Reading any checkpoint: one call, whatever the container, and nothing of the file is run.

There is one way to read `.pt` and `.pth`, with and without torch. `torch.load(weights_only=True)` is not used at all:
two readers would accept different files and report refusals differently; ours needs no torch, names every refused
global instead of the first, keeps module trees, maps the file instead of copying it, and its allow-list cannot be
widened by other code in the process.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from lensmount.errors import InputError, ModelFileError, UnsafeFileError, UnsupportedModelError
from lensmount_reading import limits
from lensmount_reading.archive import TorchArchive, with_trailing
from lensmount_reading.folders import find_checkpoint, is_index
from lensmount_reading.legacy import scan_legacy
from lensmount_reading.mapped import MappedFile
from lensmount_reading.modules import flatten
from lensmount_reading.pickles import PickleScan, scan_pickle
from lensmount_reading.safetensors_file import read_safetensors, shard_paths
from lensmount_reading.sniff import sniff
from lensmount_reading.tensors import TensorRef
from lensmount_reading.text import printable
from lensmount_reading.wrappers import without_wrappers


@dataclass(frozen=True)
class Checkpoint:
    """What a weight file holds.

    Attributes:
        path: The file; for shards the index.
        kind: `"torch"`, `"torch-legacy"`, `"torchscript"` or `"safetensors"`.
        tree: Plain containers, numbers, strings, `TensorRef`s and `Record`s as the file nests them.
        metadata: Texts stored with the data (a safetensors header's metadata; a TorchScript archive's extra files).
        globals: Every class and function that the file names.
        constants: A TorchScript archive's constant tensors; empty elsewhere.
    """

    path: Path
    kind: str
    tree: object
    metadata: Mapping[str, str] = field(default_factory=dict)
    globals: tuple[str, ...] = ()
    constants: tuple[object, ...] = ()

    @cached_property
    def tensors(self) -> Mapping[str, TensorRef]:
        """Every tensor under its dotted key, see `modules.flatten`; without parts of wrappers, see `wrappers`."""
        return without_wrappers(flatten(self.tree))


def read_checkpoint(path: str | os.PathLike[str], *, modules: Literal["refuse", "records"] = "refuse") -> Checkpoint:
    """Read a checkpoint without running anything from it.

    Reads torch files (zip and the older sequence of pickles), TorchScript archives (tensors and attributes; never
    code), safetensors, and folders or indexes of shards. What the file is, is decided by its content.
    Tensors are mapped and read when asked for.

    Args:
        path: A file; or a folder with one of the names in `folders.OFFICIAL`, or with a single model file; or an index
            of shards (`model.safetensors.index.json`).
        modules: What becomes of pickled `nn.Module` trees (official YOLO files): `"refuse"` names their classes in an
            `UnsafeFileError`; `"records"` turns each object into an inert `Record`.

    Returns:
        The checkpoint.

    Raises:
        ModelFileError: Missing, truncated or malformed.
        UnsafeFileError: It asks for code, for paths outside it or for absurd sizes; all refused names are listed.
        UnsupportedModelError: A sound file of another kind.
        AmbiguousModelError: A folder with several model files.
    """
    if modules not in ("refuse", "records"):
        raise InputError(f"modules={modules!r} is not known", expected='"refuse" or "records"')
    location = find_checkpoint(Path(path))
    if is_index(location.name):
        return _read_shards(location, modules)
    file = MappedFile(location)
    kind = sniff(file)
    if kind == "safetensors":
        tensors, metadata = read_safetensors(file)
        return Checkpoint(location, kind, dict(tensors), metadata)
    policy = "modules" if modules == "records" else "plain"
    if kind == "zip":
        return _read_archive(TorchArchive(file), policy)
    if kind == "torch-legacy":
        scan = scan_legacy(file, policy)
        check_declared_size(scan, location, file.size)
        return Checkpoint(location, kind, scan.checked(), {}, scan.globals)
    if kind == "protobuf":
        kind = "onnx" if file.data[0] == 0x08 else "unknown"
    if kind == "pickle":
        scan_bare_pickle(file, policy).checked()
    raise UnsupportedModelError(
        f"{location} is not a checkpoint that can be read",
        found=_KIND_NAMES.get(kind, f"a file that starts with {printable(file.data[:16])}"),
        expected="a torch file (zip or legacy), a TorchScript archive or safetensors",
        fix="save the weights as safetensors, or with torch.save(model.state_dict(), path)",
    )


_KIND_NAMES = {
    "onnx": "an ONNX model (it is opened by a backend, not as a checkpoint)",
    "engine": "a TensorRT engine (it is opened by a backend, not as a checkpoint)",
    "pickle": "a bare pickle, not written by torch.save",
    "tar": "a tar archive: torch's format from before 0.1.10, whose tensors cannot be told from code",
    "hdf5": "an HDF5 file",
    "gguf": "a GGUF file",
}


def _read_archive(archive: TorchArchive, policy: str) -> Checkpoint:
    scan = archive.scan(policy)
    check_declared_size(scan, archive.file.path, archive.file.size)
    constants: tuple[object, ...] = ()
    if archive.kind == "torchscript" and archive.root + "constants.pkl" in archive.entries:
        found = archive.scan(policy, "constants").checked()
        constants = tuple(found) if isinstance(found, (tuple, list)) else (found,)
    return Checkpoint(archive.file.path, archive.kind, scan.checked(), archive.metadata, scan.globals, constants)


def scan_bare_pickle(file: MappedFile, policy: str) -> PickleScan:
    """Read a file that is one pickle and nothing else; good for naming what it asks for."""
    data = file.data[: limits.MAX_PICKLE_BYTES]
    scan = scan_pickle(data, where=str(file.path), policy=policy)
    return with_trailing(scan, data, str(file.path), policy)


def check_declared_size(scan: PickleScan, path: Path, size: int) -> None:
    """Raise `UnsafeFileError` where all tensors together are absurdly larger than the file: views must not multiply."""
    if scan.declared_bytes > max(limits.MAX_VIEW_FACTOR * size, limits.MAX_VIEW_FLOOR):
        raise UnsafeFileError(
            f"{path} is refused: its tensors claim {scan.declared_bytes} bytes",
            found=f"a file of {size} bytes",
            fix="do not use this file; ask its maker for safetensors",
        )


def _read_shards(index: Path, modules: Literal["refuse", "records"]) -> Checkpoint:
    tensors: dict[str, TensorRef] = {}
    metadata: dict[str, str] = {}
    kind = "safetensors"
    places: dict[str, Path] = {}
    for path, keys in shard_paths(index).items():
        shard = read_checkpoint(path, modules=modules)
        kind = shard.kind
        metadata.update(shard.metadata)
        twice = [key for key in shard.tensors if key in places]
        if twice:
            raise ModelFileError(
                f"{index} is not sound: the tensor {printable(twice[0])} lies in two shards",
                found=f"{places[twice[0]].name} and {path.name}; {len(twice)} tensors in all",
                expected="each tensor in one shard",
                fix="download the folder again",
            )
        missing = [key for key in keys if key not in shard.tensors]
        if missing or len(shard.tensors) != len(keys):
            extra = sorted(set(shard.tensors) - set(keys))
            raise ModelFileError(
                f"{path} does not hold what {index.name} says",
                found=f"{len(shard.tensors)} tensors; missing {printable(missing[:3])}, "
                f"unexpected {printable(extra[:3])}",
                expected=f"{len(keys)} tensors",
                fix="download the folder again",
            )
        tensors.update(shard.tensors)
        places.update(dict.fromkeys(shard.tensors, path))
    return Checkpoint(index, kind, tensors, metadata)
