"""Arrays of torch tensors, and cached values that hold tensors, without importing torch."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


def is_tensor(value: Any) -> bool:
    """Whether a value is a `torch.Tensor` (or a subclass)."""
    return any(kind.__name__ == "Tensor" and kind.__module__ == "torch" for kind in type(value).__mro__)


def host_array(value: Any) -> NDArray[Any]:
    """A host array of an array (itself) or of a tensor on any device; bfloat16 becomes float32."""
    if is_tensor(value):
        value = value.detach().cpu()
        value = (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
    array: NDArray[Any] = value
    return array


class OnHost(NamedTuple):
    """A tensor that was moved to host memory, and the device it came from."""

    tensor: Any
    device: str


def to_host(value: Any) -> Any:
    """A copy of a nested value whose device tensors lie in host memory, marked for `to_device`."""

    def move(leaf: Any) -> Any:
        if is_tensor(leaf) and leaf.device.type != "cpu":
            return OnHost(leaf.detach().to("cpu"), str(leaf.device))
        return leaf

    return _map(value, move)


def to_device(value: Any) -> Any:
    """Undoes `to_host`."""
    return _map(value, lambda leaf: leaf.tensor.to(leaf.device) if isinstance(leaf, OnHost) else leaf)


def on_device(value: Any) -> bool:
    """Whether a nested value holds a tensor outside host memory."""
    found = False

    def look(leaf: Any) -> Any:
        nonlocal found
        found = found or (is_tensor(leaf) and leaf.device.type != "cpu")
        return leaf

    _map(value, look)
    return found


def _map(value: Any, function: Callable[[Any], Any]) -> Any:
    """Rebuilds containers with `function` applied to their leaves."""
    if isinstance(value, OnHost):
        return function(value)
    if isinstance(value, tuple):
        items = [_map(item, function) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    if isinstance(value, list):
        return [_map(item, function) for item in value]
    if isinstance(value, dict):
        return {key: _map(item, function) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        # Not dataclasses.replace: validation in __post_init__ may be strict about what a moved tensor is.
        changed = {field.name: _map(getattr(value, field.name), function) for field in dataclasses.fields(value)}
        if all(changed[name] is getattr(value, name) for name in changed):
            return value
        copy = object.__new__(type(value))
        for name, item in changed.items():
            object.__setattr__(copy, name, item)
        return copy
    return function(value)


def measure(value: Any) -> int:
    """Bytes that keeping a value keeps alive.

    Arrays and tensors count with the whole memory that they are views of, once, however often it occurs; containers and
    dataclasses with what they hold.
    """
    return _measure(value, set())


def _measure(value: Any, seen: set[object]) -> int:
    if is_tensor(value):
        storage = value.untyped_storage()
        return _once(("storage", str(value.device), storage.data_ptr()), int(storage.nbytes()), seen)
    if isinstance(value, np.ndarray):
        owner = value
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        return _once(id(owner), max(owner.nbytes, value.nbytes) + 128, seen)
    if id(value) in seen:
        return 0
    own = sys.getsizeof(value, 64)
    if isinstance(value, (str, bytes, bytearray, int, float)) or value is None:
        return own
    seen.add(id(value))
    if isinstance(value, dict):
        return own + sum(_measure(key, seen) + _measure(item, seen) for key, item in value.items())
    if isinstance(value, (tuple, list, set, frozenset)):
        return own + sum(_measure(item, seen) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return own + sum(_measure(getattr(value, field.name), seen) for field in dataclasses.fields(value))
    return own


def _once(identity: object, size: int, seen: set[object]) -> int:
    if identity in seen:
        return 0
    seen.add(identity)
    return size
