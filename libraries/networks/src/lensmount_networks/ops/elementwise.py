"""Functions of single elements, and softmax."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lensmount_networks.values import Value, broadcast

Tensor = Any


def _one(x: Value, operator: str, fold: Any = None, **attributes: Any) -> Value:
    return x.graph.add(operator, [x], fold=fold, **attributes)


def cast(x: Tensor, dtype: str) -> Tensor:
    """The values in another dtype, by the name that numpy and torch share: `float32`, `int64`, `bool`."""
    if isinstance(x, Value):
        return x.to(dtype)
    import torch

    return x.to(getattr(torch, dtype))


def relu(x: Tensor) -> Tensor:
    """max(x, 0)."""
    if isinstance(x, Value):
        return _one(x, "Relu")
    return x.relu()


def leaky_relu(x: Tensor, slope: float = 0.01) -> Tensor:
    """X where it is positive, else slope * x."""
    if isinstance(x, Value):
        return _one(x, "LeakyRelu", alpha=float(slope))
    import torch

    return torch.nn.functional.leaky_relu(x, slope)


def elu(x: Tensor) -> Tensor:
    """X where it is positive, else exp(x) - 1."""
    if isinstance(x, Value):
        return _one(x, "Elu")
    import torch

    return torch.nn.functional.elu(x)


def silu(x: Tensor) -> Tensor:
    """X * sigmoid(x). `quick_gelu` is this on scaled weights, or `x * sigmoid(1.702 * x)`."""
    if isinstance(x, Value):
        return x * _one(x, "Sigmoid")
    import torch

    return torch.nn.functional.silu(x)


def gelu(x: Tensor) -> Tensor:
    """X times the normal distribution's share below x, exact (no tanh)."""
    if isinstance(x, Value):  # as torch's exporter writes it: onnxruntime, OpenVINO and TensorRT fuse this form
        return x * (_one(x / math.sqrt(2.0), "Erf") + 1.0) * 0.5
    import torch

    return torch.nn.functional.gelu(x)


def hardswish(x: Tensor) -> Tensor:
    """X * min(max(x + 3, 0), 6) / 6."""
    if isinstance(x, Value):
        return _one(x, "HardSwish")
    import torch

    return torch.nn.functional.hardswish(x)


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x))."""
    if isinstance(x, Value):
        return _one(x, "Softplus")
    import torch

    return torch.nn.functional.softplus(x)


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x))."""
    return _one(x, "Sigmoid") if isinstance(x, Value) else x.sigmoid()


def tanh(x: Tensor) -> Tensor:
    """Hyperbolic tangent."""
    return _one(x, "Tanh", np.tanh) if isinstance(x, Value) else x.tanh()


def erf(x: Tensor) -> Tensor:
    """Error function."""
    return _one(x, "Erf") if isinstance(x, Value) else x.erf()


def exp(x: Tensor) -> Tensor:
    """E to the power of x."""
    return _one(x, "Exp", np.exp) if isinstance(x, Value) else x.exp()


def log(x: Tensor) -> Tensor:
    """Natural logarithm."""
    return _one(x, "Log", np.log) if isinstance(x, Value) else x.log()


def sqrt(x: Tensor) -> Tensor:
    """Square root."""
    return _one(x, "Sqrt", np.sqrt) if isinstance(x, Value) else x.sqrt()


def sin(x: Tensor) -> Tensor:
    """Sine of radians."""
    return _one(x, "Sin", np.sin) if isinstance(x, Value) else x.sin()


def cos(x: Tensor) -> Tensor:
    """Cosine of radians."""
    return _one(x, "Cos", np.cos) if isinstance(x, Value) else x.cos()


def abs(x: Tensor) -> Tensor:  # torch's name
    """Without the sign."""
    return _one(x, "Abs", np.abs) if isinstance(x, Value) else x.abs()


def floor(x: Tensor) -> Tensor:
    """The next whole number below."""
    return _one(x, "Floor", np.floor) if isinstance(x, Value) else x.floor()


def ceil(x: Tensor) -> Tensor:
    """The next whole number above."""
    return _one(x, "Ceil", np.ceil) if isinstance(x, Value) else x.ceil()


def clamp(x: Tensor, low: float | None = None, high: float | None = None) -> Tensor:
    """Not below `low`, not above `high`; None for no bound."""
    if isinstance(x, Value):
        bounds = [None if bound is None else x.graph.scalar(bound, x.dtype) for bound in (low, high)]
        return x.graph.add("Clip", [x, *(bounds if high is not None else bounds[:1])])
    return x.clamp(low, high)


def maximum(first: Tensor, second: Tensor) -> Tensor:
    """The larger of two, element by element."""
    if isinstance(first, Value):
        return first.graph.add("Max", [first, second], broadcast(first.shape, second.shape), fold=np.maximum)
    return first.maximum(second)


def minimum(first: Tensor, second: Tensor) -> Tensor:
    """The smaller of two, element by element."""
    if isinstance(first, Value):
        return first.graph.add("Min", [first, second], broadcast(first.shape, second.shape), fold=np.minimum)
    return first.minimum(second)


def where(condition: Tensor, first: Tensor | float, second: Tensor | float) -> Tensor:
    """`first` where the condition (bool) holds, else `second`; one of both may be a number, or both (then float32)."""
    if isinstance(condition, Value):
        given = next((value for value in (first, second) if isinstance(value, Value)), None)
        dtype = "float32" if given is None else given.dtype
        pair = [v if isinstance(v, Value) else condition.graph.scalar(v, dtype) for v in (first, second)]
        shape = broadcast(condition.shape, broadcast(pair[0].shape, pair[1].shape))
        return condition.graph.add("Where", [condition, *pair], shape, dtype, np.where)
    import torch

    return torch.where(condition, first, second)


def softmax(x: Tensor, dim: int = -1) -> Tensor:
    """Shares that add up to 1 along an axis."""
    if isinstance(x, Value):
        return _one(x, "Softmax", axis=dim)
    return x.softmax(dim)
