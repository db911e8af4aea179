"""Counts what brings tensors to the host, and refuses what would wait for a device without saying so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

WAITING = (
    Tensor.item, Tensor.tolist, Tensor.__bool__, Tensor.__int__, Tensor.__float__, Tensor.__index__, Tensor.nonzero,
    Tensor.masked_select, Tensor.unique, torch.nonzero, torch.masked_select, torch.unique,
)  # fmt: skip
"""What makes the host wait for a device's values, besides a copy."""


class _Watch(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = [0]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in WAITING, f"{func.__name__} waits for the device"
        if func is Tensor.__getitem__:
            keys = args[1] if isinstance(args[1], tuple) else (args[1],)
            assert not any(isinstance(key, Tensor) and key.dtype == torch.bool for key in keys), "a mask as an index"
        self.count[0] += func is Tensor.cpu
        return func(*args, **(kwargs or {}))


@contextmanager
def downloads() -> Iterator[list[int]]:
    """A list of one number: the downloads in the block, that is calls of `Tensor.cpu` in this thread."""
    with _Watch() as watch:
        yield watch.count
