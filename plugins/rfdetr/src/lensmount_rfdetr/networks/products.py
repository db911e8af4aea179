"""Linear layers whose weights are packed for oneDNN when torch runs them in float32 on a CPU: a tenth off the network.

torch's own products go through MKL, which on other makers' processors leaves their widest instructions unused, and it
takes GELU as a separate pass. oneDNN's packed products, with the activation inside, are what `torch.compile` would call
on frozen weights; here they are called without it. The operators are torch's internals: where they are missing, or do
not give what a plain product gives, plain products are used. A graph has plain products.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Literal, cast

from lensmount_networks import Value, ops
from lensmount_networks.layers import Linear, Tensor

if TYPE_CHECKING:
    import torch

Activation = Literal["none", "gelu", "relu"]
_ROWS = 512  # tokens that packing expects; any number runs


class Product(Linear):
    """A linear layer with an activation behind it.

    Packing happens at the first run in float32 on a CPU, once the network lies where it stays; weights must not change
    after that.
    """

    def __init__(self, inputs: int, outputs: int, activation: Activation = "none") -> None:
        super().__init__(inputs, outputs)
        self.activation: Activation = activation
        self._packed: Any = None

    def forward(self, x: Tensor) -> Tensor:
        """Over the last axis."""
        # Whether packing works is found out by running operators, which must not be recorded: that is asked last.
        if isinstance(x, Value) or not _plain_cpu(x) or _recorded() or not _packs():
            return plain(x, self.weight, self.bias, self.activation)
        if self._packed is None:
            self._packed = _pack(self.weight.detach())
        return _run(x, self._packed, cast("torch.Tensor", self.bias), self.activation)


def plain(x: Tensor, weight: Tensor, bias: Tensor, activation: Activation) -> Tensor:
    """The same by plain products."""
    out = ops.linear(x, weight, bias)
    if activation == "none":
        return out
    return ops.gelu(out) if activation == "gelu" else ops.relu(out)


def _plain_cpu(x: torch.Tensor) -> bool:
    import torch

    return x.is_cpu and x.dtype == torch.float32


def _recorded() -> bool:
    """Whether the operators are recorded: for a compiler, or gradients."""
    import torch

    return torch.compiler.is_compiling() or torch.is_grad_enabled()


def _pack(weight: torch.Tensor) -> Any:
    import torch

    return torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)


def _run(x: torch.Tensor, packed: Any, bias: torch.Tensor, activation: Activation) -> torch.Tensor:
    import torch

    out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, activation, [], "none")
    return out


@cache
def _packs() -> bool:
    """Whether packed products work here, found by running some."""
    import torch

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
