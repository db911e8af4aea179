"""Nested arrays and plain values to bytes and back: data only, nothing is ever executed by reading.

Layout: magic, length of the JSON head (8 bytes, little endian), JSON head, the arrays' bytes in order, BLAKE2b of all
that came before. The head describes the structure; arrays are named by dtype, shape and position.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import struct
import sys
from typing import Any

import numpy as np

from lensmount.backend.tensors import is_tensor
from lensmount.errors import InputError

MAGIC = b"LMCACHE1"
_DIGEST_BYTES = 16
_KINDS = "biufc"
_DTYPE = re.compile(rf"[<>|][{_KINDS}](1|2|4|8|16|32)")  # numpy itself reads much more into a string


def dumps(value: Any) -> list[bytes | memoryview]:
    """Serialises a value into chunks to be written one after another.

    Args:
        value: None, booleans, numbers, strings, bytes, numeric numpy arrays and scalars, torch tensors, and tuples,
            lists and string-keyed dicts of such.

    Raises:
        InputError: It holds something else.
    """
    arrays: list[np.ndarray[Any, Any]] = []
    head = json.dumps(_describe(value, arrays), separators=(",", ":")).encode()
    chunks: list[bytes | memoryview] = [MAGIC, struct.pack("<Q", len(head)), head]
    chunks += [array.reshape(-1).view(np.uint8).data for array in arrays if array.size]
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for chunk in chunks:
        digest.update(chunk)
    return [*chunks, digest.digest()]


def loads(data: bytes) -> Any:
    """Undoes `dumps`. Arrays are read-only views of `data`; tensors are copies on the CPU.

    The hash finds damage; it does not tell who wrote. Data that were made to mislead give some value of these types, or
    a `ValueError`, and run nothing.

    Raises:
        ValueError: The data are cut short, altered or of another layout, or hold a tensor where torch is not installed.
    """
    try:
        return _build(data)
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError, ImportError) as error:
        raise ValueError(f"not a cache entry, or one that cannot be read here: {error}") from error


def _build(data: bytes) -> Any:
    body, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    if not body.startswith(MAGIC) or hashlib.blake2b(body, digest_size=_DIGEST_BYTES).digest() != digest:
        raise ValueError("it is cut or altered")
    start = len(MAGIC) + 8
    if len(body) < start:
        raise ValueError("it has no head")
    (length,) = struct.unpack_from("<Q", body, len(MAGIC))
    if length > len(body) - start:
        raise ValueError("its head is cut")
    head = json.loads(body[start : start + length])
    return _Reader(memoryview(body), start + length).build(head)


def _describe(value: Any, arrays: list[np.ndarray[Any, Any]]) -> Any:
    """A JSON form: `[tag, …]` for every value."""
    if value is None or isinstance(value, (bool, str)):
        return ["v", value]
    if isinstance(value, np.ndarray | np.generic):
        return ["a" if isinstance(value, np.ndarray) else "n", *_add_array(np.asarray(value), arrays)]
    if isinstance(value, int):
        return ["v", int(value)]
    if isinstance(value, float):
        return ["v", value] if math.isfinite(value) else ["f", repr(value)]
    if isinstance(value, bytes):
        return ["b", base64.b64encode(value).decode()]
    if isinstance(value, (tuple, list)) and type(value) in (tuple, list):
        return ["t" if isinstance(value, tuple) else "l", [_describe(item, arrays) for item in value]]
    if type(value) is dict and all(isinstance(key, str) for key in value):
        return ["d", [[key, _describe(item, arrays)] for key, item in value.items()]]
    if is_tensor(value):
        host = value.detach().cpu().contiguous()
        dtype = str(host.dtype).removeprefix("torch.")
        raw = host.reshape(-1).view(sys.modules["torch"].uint8).numpy()
        return ["T", dtype, list(host.shape), *_add_array(raw, arrays)]
    raise InputError(
        "this value cannot be kept outside memory",
        found=f"{type(value).__module__}.{type(value).__qualname__}",
        expected="arrays, tensors, numbers, strings, and tuples, lists and string-keyed dicts of such",
        fix="keep it in a memory cache, or cache its arrays",
    )


def _add_array(array: np.ndarray[Any, Any], arrays: list[np.ndarray[Any, Any]]) -> list[Any]:
    if array.dtype.kind not in _KINDS:
        raise InputError(
            "an array of this dtype cannot be kept outside memory", found=str(array.dtype), expected="numbers"
        )
    arrays.append(np.ascontiguousarray(array))
    return [array.dtype.str, list(array.shape)]


class _Reader:
    """Builds values from a head, taking the arrays' bytes in order."""

    def __init__(self, body: memoryview, position: int) -> None:
        self._body = body
        self._position = position

    def build(self, node: Any) -> Any:
        tag, *rest = node
        if tag == "v":
            return rest[0]
        if tag == "f":
            return float(rest[0])
        if tag == "b":
            return base64.b64decode(rest[0])
        if tag in ("t", "l"):
            items = [self.build(item) for item in rest[0]]
            return tuple(items) if tag == "t" else items
        if tag == "d":
            return {key: self.build(item) for key, item in rest[0]}
        if tag in ("a", "n"):
            array = self._array(*rest)
            return array if tag == "a" else array[()]
        if tag == "T":
            return self._tensor(*rest)
        raise ValueError(f"unknown tag {tag!r}")

    def _array(self, dtype: str, shape: list[int]) -> np.ndarray[Any, Any]:
        if not _DTYPE.fullmatch(dtype):
            raise ValueError(f"unexpected dtype {dtype!r}")
        kind = np.dtype(dtype)
        if any(type(size) is not int or size < 0 for size in shape):
            raise ValueError(f"unexpected shape {shape!r}")
        count = math.prod(shape)
        array = np.frombuffer(self._body, kind, count, self._position) if count else np.empty(0, kind)
        self._position += count * kind.itemsize
        return array.reshape(shape)

    def _tensor(self, dtype: str, shape: list[int], raw_dtype: str, raw_shape: list[int]) -> Any:
        import torch

        raw = torch.from_numpy(self._array(raw_dtype, raw_shape).copy())
        kind = getattr(torch, dtype)
        if not isinstance(kind, torch.dtype):
            raise ValueError(f"unexpected dtype {dtype!r}")
        return raw.view(kind).reshape(shape)
