"""Linear layers whose weights are packed for oneDNN when they run in float32 on a CPU: a tenth off the whole network.

torch's own products go through MKL, which on other makers' processors leaves their widest instructions unused, and it
takes GELU as a separate pass. oneDNN's packed products, with the activation inside, are what `torch.compile` would call
on frozen weights; here they are called without it. The operators are torch's internals: where they are missing, or do
not give what a plain product gives, plain products are used.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Activation = Literal["none", "gelu", "relu"]
_ROWS = 512  # tokens that packing expects; any number runs


class Product(nn.Linear):
    """A linear layer with an activation behind it.

    Packing happens at the first run in float32 on a CPU, once the network lies where it stays; weights must not change
    after that.
    """

    def __init__(self, inputs: int, outputs: int, activation: Activation = "none") -> None:
        super().__init__(inputs, outputs)
        self.activation = activation
        self._packed: Any = None

    def forward(self, x: Tensor) -> Tensor:
        """Over the last axis."""
        # Whether packing works is found out by running operators, which must not be recorded: that is asked last.
        if x.is_cpu and x.dtype == torch.float32 and not _recorded() and _packs():
            if self._packed is None:
                self._packed = _pack(self.weight.detach())
            return _run(x, self._packed, self.bias, self.activation)
        return plain(x, self.weight, self.bias, self.activation)


def plain(x: Tensor, weight: Tensor, bias: Tensor, activation: Activation) -> Tensor:
    """The same by torch's own products."""
    out = F.linear(x, weight, bias)
    if activation == "none":
        return out
    return F.gelu(out) if activation == "gelu" else F.relu(out)


def _recorded() -> bool:
    """Whether the operators are recorded: for a compiler, a graph, or gradients."""
    return torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export() or torch.is_grad_enabled()


def _pack(weight: Tensor) -> Any:
    return torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)


def _run(x: Tensor, packed: Any, bias: Tensor, activation: Activation) -> Tensor:
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, activation, [], "none")
    return out


@cache
def _packs() -> bool:
    """Whether packed products work here, found by running some."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]  # torch has no annotation
        return False
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(*shape, generator=generator) for shape in ((2, 40, 64), (96, 64), (96,)))
    activations: tuple[Activation, ...] = ("none", "gelu", "relu")
    try:
        packed = _pack(weight)
        return all(
            torch.allclose(_run(x, packed, bias, name), plain(x, weight, bias, name), atol=1e-4) for name in activations
        )
    except (RuntimeError, AttributeError, TypeError):
        return False
