"""A `torch.nn.Module` from a layer: its class is the layer's and torch's, its tensors are registered."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch

from lensmount_networks.layers import Declared, Layer, check


def torch_module(layer: Layer, tensors: Mapping[str, Any]) -> torch.nn.Module:
    """A layer as a module that computes the same, in eval mode and without gradients asked for.

    Parameters and buffers bear the layer's names; `to`, `half`, `train`, `requires_grad_`, `compile`, `state_dict` and
    hooks are torch's own.

    Args:
        layer: What to make a module of.
        tensors: numpy arrays or torch tensors by full name; memory is shared where torch can.

    Raises:
        ValueError: The tensors do not fit.
    """
    return _module(layer, check(layer, tensors), "").eval().requires_grad_(False)


def _module(layer: Layer, tensors: Mapping[str, Any], prefix: str) -> torch.nn.Module:
    own: Any = type(layer)
    kind = _class(own)
    module: torch.nn.Module = kind.__new__(kind)
    torch.nn.Module.__init__(module)
    for name, value in vars(layer).items():
        if isinstance(value, Layer):
            module.add_module(name, _module(value, tensors, f"{prefix}{name}."))
        elif not isinstance(value, Declared):
            setattr(module, name, value)
        elif value.trained:
            module.register_parameter(name, torch.nn.Parameter(_tensor(tensors[prefix + name]), requires_grad=False))
        else:
            module.register_buffer(name, _tensor(tensors[prefix + name]), persistent=value.array is None)
    return module


@cache
def _class(kind: Any) -> Any:
    return type(kind.__name__, (kind, torch.nn.Module), {"__call__": torch.nn.Module.__call__, "__doc__": kind.__doc__})


def _tensor(array: Any) -> torch.Tensor:
    if isinstance(array, torch.Tensor):
        return array
    if not array.flags.writeable or any(stride < 0 for stride in array.strides):
        array = array.copy()  # torch warns of memory that it may not write
    return torch.from_numpy(array)
