"""Cache keys that cover everything: type, shape, dtype and content of each part."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import struct
import sys
from typing import Any

import numpy as np

from lensmount.backend.tensors import is_tensor
from lensmount.errors import InputError

_DIGEST_BYTES = 20


def make_key(*parts: Any) -> str:
    """Makes a cache key from everything that changes the cached value.

    Parts of different types never collide (`1`, `1.0`, `True` and `"1"` are four keys), nor do lists with other
    boundaries (`("ab", "c")` and `("a", "bc")`), nor arrays with the same bytes in another shape or dtype.

    Args:
        parts: None, booleans, numbers, strings, bytes, paths, numpy arrays and scalars, torch tensors,
            dataclasses (without fields of `compare=False`, such as the path of an `Image`), tuples, lists, dicts and
            sets of such. Dicts and sets count the same in any order.

    Returns:
        40 hex digits (BLAKE2b, 160 bits).

    Raises:
        InputError: A part is of another type.
    """
    return _digest(parts).hex()


def _digest(value: Any) -> bytes:
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    _feed(digest, value)
    return digest.digest()


def _feed(digest: Any, value: Any) -> None:
    """Adds one value as tag, length and content."""
    if isinstance(value, str):  # first, because keys of texts are made by the hundred
        _add(digest, b"str", value.encode("utf-8", "surrogatepass"))
    elif value is None or isinstance(value, bool):
        _add(digest, b"const", repr(value).encode())
    elif isinstance(value, np.ndarray):
        _feed_array(digest, b"array", value)
    elif isinstance(value, np.generic):  # before float, which np.float64 also is
        _feed_array(digest, b"scalar", np.asarray(value))
    elif isinstance(value, int):
        _add(digest, b"int", str(int(value)).encode())
    elif isinstance(value, float):
        _add(digest, b"float", struct.pack("<d", value))
    elif isinstance(value, (bytes, bytearray, memoryview)):
        _add(digest, b"bytes", bytes(value))
    elif isinstance(value, os.PathLike):
        _add(digest, b"path", os.fsencode(value))
    elif isinstance(value, (tuple, list)):
        _add(digest, b"tuple" if isinstance(value, tuple) else b"list", str(len(value)).encode())
        for item in value:
            _feed(digest, item)
    elif isinstance(value, dict):
        _add(digest, b"dict", b"".join(sorted(_digest(key) + _digest(item) for key, item in value.items())))
    elif isinstance(value, (set, frozenset)):
        _add(digest, b"set", b"".join(sorted(map(_digest, value))))
    elif is_tensor(value):
        host = value.detach().cpu().contiguous()
        _add(digest, b"tensor", f"{host.dtype} {tuple(host.shape)}".encode())
        # Bytes, because numpy has no bfloat16.
        _feed_array(digest, b"data", host.reshape(-1).view(sys.modules["torch"].uint8).numpy())
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        _feed_dataclass(digest, value)
    else:
        raise InputError(
            "a part of a cache key has a type without a canonical form",
            found=f"{type(value).__module__}.{type(value).__qualname__}",
            expected="None, bool, number, str, bytes, path, array, tensor, Image, dataclass, tuple, list, dict or set",
        )


def _feed_array(digest: Any, tag: bytes, array: np.ndarray[Any, Any]) -> None:
    if array.dtype.hasobject:
        raise InputError("an array of objects has no canonical form", found=f"dtype {array.dtype}")
    _add(digest, tag, f"{array.dtype.descr if array.dtype.fields else array.dtype.str} {array.shape}".encode())
    contiguous = np.ascontiguousarray(array).reshape(-1)
    _add(digest, b"content", contiguous.view(np.uint8) if contiguous.size else b"")


def _feed_dataclass(digest: Any, value: Any) -> None:
    kind = type(value)
    names = [field.name for field in dataclasses.fields(value) if field.compare]
    _add(digest, b"dataclass", f"{kind.__module__}.{kind.__qualname__} {names}".encode())
    for name in names:
        _feed(digest, getattr(value, name))


def _add(digest: Any, tag: bytes, content: Any) -> None:
    length = content.nbytes if isinstance(content, np.ndarray) else len(content)
    digest.update(b"%c%b%b" % (len(tag), tag, length.to_bytes(8, "little")))
    digest.update(content)
