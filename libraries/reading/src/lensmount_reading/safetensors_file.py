"""safetensors files and indexes of shards, read without the library: a length, a JSON header, the data.

Format: https://huggingface.co/docs/safetensors; the same strictness as its Rust reader: the tensors cover the data
without holes or overlaps, and the header has at most 100 MB.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import NoReturn

from lensmount.errors import ModelFileError, UnsafeFileError, UnsupportedModelError
from lensmount_reading import limits
from lensmount_reading.dtypes import BY_SAFETENSORS
from lensmount_reading.mapped import MappedFile
from lensmount_reading.tensors import Storage, TensorRef
from lensmount_reading.text import listing, printable


def looks_like_safetensors(file: MappedFile) -> bool:
    """Whether the file starts with a plausible length followed by a JSON object."""
    length = int.from_bytes(file.data[:8], "little")
    return file.size > 8 and 2 <= length <= limits.MAX_JSON_HEADER and file.data[8:9] == b"{"


def read_safetensors(file: MappedFile) -> tuple[dict[str, TensorRef], dict[str, str]]:
    """Read the header of a safetensors file.

    Returns:
        Tensors by key, in the order of the header, and the metadata.

    Raises:
        ModelFileError: Truncated or malformed.
        UnsafeFileError: Tensors that overlap, leave holes or lie outside the file; an absurd header.
        UnsupportedModelError: An element type narrower than a byte, or unknown.
    """
    return _Header(file).read()


class _Header:
    def __init__(self, file: MappedFile) -> None:
        self.file = file

    def read(self) -> tuple[dict[str, TensorRef], dict[str, str]]:
        data = self.file.data
        length = int.from_bytes(data[:8], "little")
        if length > limits.MAX_JSON_HEADER:
            self._unsafe(f"its header claims {length} bytes")
        if self.file.size < 8 + length or length < 2:
            raise ModelFileError(f"{self.file.path} ends inside its header", fix="download it again")
        header = load_json(data[8 : 8 + length], str(self.file.path))
        metadata = header.pop("__metadata__", {})
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise ModelFileError(f"{self.file.path} has metadata that are not strings")
        tensors: dict[str, TensorRef] = {}
        spans: list[tuple[int, int, str]] = []
        for key, facts in header.items():
            start, stop, tensors[key] = self._tensor(key, facts, 8 + length)
            spans.append((start, stop, key))
        free = 0
        for start, stop, key in sorted(spans):
            if start != free:
                self._unsafe(f"the data of {printable(key)} overlaps another tensor's or leaves a hole")
            free = stop
        if free != self.file.size - 8 - length:
            self._unsafe(f"its tensors need {free} bytes and it has {self.file.size - 8 - length}")
        return tensors, metadata

    def _tensor(self, key: str, facts: object, base: int) -> tuple[int, int, TensorRef]:
        if not isinstance(facts, dict) or not {"dtype", "shape", "data_offsets"} <= set(facts):
            raise ModelFileError(f"{self.file.path}: the entry {printable(key)} is malformed", found=printable(facts))
        row = BY_SAFETENSORS.get(facts["dtype"]) if isinstance(facts["dtype"], str) else None
        if row is None:
            raise UnsupportedModelError(
                f"{self.file.path}: {printable(key)} has an element type that is not supported",
                found=printable(facts["dtype"]),
                expected=", ".join(BY_SAFETENSORS),
            )
        shape, offsets = facts["shape"], facts["data_offsets"]
        for numbers in (shape, offsets):
            if not isinstance(numbers, list) or not all(type(n) is int and 0 <= n < 1 << 62 for n in numbers):
                self._unsafe(f"sizes or offsets of {printable(key)} are not non-negative integers")
        if len(offsets) != 2 or len(shape) > limits.MAX_DIMENSIONS:
            self._unsafe(f"{printable(key)} has {len(shape)} dimensions and {len(offsets)} offsets")
        start, stop = offsets
        count = math.prod(shape)
        if stop - start != count * row.itemsize or base + stop > self.file.size:
            self._unsafe(
                f"{printable(key)} of {count} elements of {row.name} lies at bytes {start} to {stop} "
                f"of {self.file.size - base}"
            )
        storage = Storage(key, row.name, count, self.file.data, base + start)
        return start, stop, TensorRef(storage, row.name, 0, tuple(shape), packed_strides(shape))

    def _unsafe(self, problem: str) -> NoReturn:
        raise UnsafeFileError(
            f"{self.file.path} is refused: {problem}",
            expected="tensors side by side that fill the file",
            fix="download it again; if it stays so, do not use it",
        )


def packed_strides(shape: list[int]) -> tuple[int, ...]:
    """Strides, in elements, of a C-contiguous tensor."""
    strides, step = [], 1
    for length in reversed(shape):
        strides.append(step)
        step *= max(length, 1)
    return tuple(reversed(strides))


def load_json(data: bytes, where: str) -> dict[str, object]:
    """Parse a JSON object: no duplicate keys, no infinities, bounded in size and in what it can make.

    Raises:
        ModelFileError: Not a JSON object in UTF-8.
        UnsafeFileError: More items than the limit, or a key twice.
    """
    if sum(data.count(mark) for mark in (b"[", b"{", b",")) > limits.MAX_JSON_ITEMS:
        raise UnsafeFileError(f"{where} is refused: its header has more than {limits.MAX_JSON_ITEMS} items")

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        made = dict(pairs)
        if len(made) != len(pairs):
            raise UnsafeFileError(f"{where} is refused: its header has the same key twice")
        return made

    def no_constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is not JSON")

    try:
        found = json.loads(str(data, "utf-8"), object_pairs_hook=unique, parse_constant=no_constant)
    except (ValueError, RecursionError) as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(
            f"{where} has a malformed JSON header: {printable(error)}", fix="download it again"
        ) from None
    if not isinstance(found, dict):
        raise ModelFileError(f"{where} has a JSON header that is no object")
    return found


def shard_names(index: str | os.PathLike[str]) -> dict[str, list[str]]:
    """Read an index of shards (`model.safetensors.index.json`).

    Args:
        index: The index file; the shards lie in the same folder, and are not looked at.

    Returns:
        Name of a shard -> keys that it must hold, in the order of the index.

    Raises:
        ModelFileError: Malformed.
        UnsafeFileError: A shard name that is not a plain file name, a key twice.
    """
    path = Path(index)
    file = MappedFile(path)
    if file.size > limits.MAX_JSON_HEADER:
        raise UnsafeFileError(f"{path} is refused: an index of {file.size} bytes")
    weight_map = load_json(file.data[:], str(path)).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise ModelFileError(f"{path} is no index of shards", expected='"weight_map": {key: file name}')
    shards: dict[str, list[str]] = {}
    for key, name in weight_map.items():
        shards.setdefault(name, []).append(key)
    if not shards or any(name.endswith(".json") for name in shards):
        raise ModelFileError(
            f"{path} names no shards",
            found=printable(list(shards)[:3]),
            expected="files of tensors",
            fix="download the folder again",
        )
    if len(shards) > limits.MAX_SHARDS:
        raise UnsafeFileError(f"{path} is refused: it names {len(shards)} files")
    for name in shards:
        if name != Path(name).name or name in ("", ".", "..") or any(mark in name for mark in "/\\:\0"):
            raise UnsafeFileError(
                f"{path} is refused: the shard {printable(name)} is a path, not a file name in the same folder"
            )
    return shards


def shard_paths(index: str | os.PathLike[str]) -> dict[Path, list[str]]:
    """The shards that an index names, which all are there; see `shard_names`.

    Raises:
        ModelFileError: Malformed, or a shard is missing; all that are missing are named.
        UnsafeFileError: As for `shard_names`.
    """
    folder = Path(index).parent
    found = {folder / name: keys for name, keys in shard_names(index).items()}
    missing = [printable(path.name) for path in found if not path.is_file()]
    if missing:
        raise ModelFileError(
            f"shards of {index} are missing",
            found=f"{len(found) - len(missing)} of {len(found)} files; missing {listing(missing, 20)}",
            fix="bring the whole folder",
        )
    return found
