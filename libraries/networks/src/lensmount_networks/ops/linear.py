"""Linear layers and normalisations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lensmount_networks.values import Value, require_fit

Tensor = Any


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`(…, I)` to `(…, O)`, with weights `(O, I)` and bias `(O,)`."""
    if not isinstance(x, Value):
        import torch

        return torch.nn.functional.linear(x, weight, bias)
    # Gemm takes the weights as files hold them; MatMul wants them turned, and so a second copy of them all. The bias
    # stays outside: onnxruntime adds it together with what follows (GELU), and its Gemm is slower with one on few rows.
    require_fit("inputs of a linear layer", x.shape[-1], weight.shape[1])
    rows = x if x.ndim == 2 else x.reshape(-1, x.shape[-1])
    made = x.graph.add("Gemm", [rows, weight], (rows.shape[0], weight.shape[0]), transB=1)
    made = made if x.ndim == 2 else made.reshape(*x.shape[:-1], weight.shape[0])
    return made if bias is None else made + bias


def layer_norm(
    x: Tensor, shape: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Normalises over the last `len(shape)` axes."""
    if isinstance(x, Value):
        scale = x.graph.constant(np.ones(tuple(shape), x.dtype)) if weight is None else weight
        return x.graph.add("LayerNormalization", [x, scale, bias], axis=-len(shape), epsilon=float(eps))
    import torch

    return torch.nn.functional.layer_norm(x, tuple(shape), weight, bias, eps)


def group_norm(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """Normalises each group of channels of `(B, C, …)` over its places."""
    if isinstance(x, Value):
        ones = [x.graph.constant(make(groups, x.dtype)) for make in (np.ones, np.zeros)]
        joined = x.reshape(x.shape[0], groups, -1)
        even = x.graph.add("InstanceNormalization", [joined, *ones], epsilon=float(eps)).reshape(*x.shape)
        axes = [1] * (x.ndim - 2)
        return even * weight.reshape(-1, *axes) + bias.reshape(-1, *axes)
    import torch

    return torch.nn.functional.group_norm(x, groups, weight, bias, eps)


def batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float = 1e-5,
    *,
    training: bool = False,
    momentum: float = 0.1,
) -> Tensor:
    """Normalises each channel of `(B, C, …)` by running statistics; `training` takes the batch's and updates those."""
    if isinstance(x, Value):
        require_fit("channels of a normalisation", x.shape[1], weight.shape[0])
        return x.graph.add("BatchNormalization", [x, weight, bias, mean, variance], epsilon=float(eps))
    import torch

    return torch.nn.functional.batch_norm(x, mean, variance, weight, bias, training, momentum, eps)
