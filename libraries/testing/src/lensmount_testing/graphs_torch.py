"""The kit's networks as torch modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from lensmount.contracts.session import TorchNetwork
from lensmount_testing.graphs import Graph

Weights = dict[str, torch.Tensor]
_PREFIX = "kit_"  # a module has attributes of its own, such as `half`


def _scale(weights: Weights, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
    scaled = torch.relu(images * weights["two"] - weights["one"])
    return scaled, scaled.mean(dim=(2, 3))


_FORWARDS: dict[str, Callable[..., Any]] = {
    "scale": _scale,
    "static": _scale,
    "convolution": lambda w, images: F.conv2d(images, w["kernel"], stride=2, padding=1).sigmoid(),
    "float16": lambda w, values: values * w["half"] + w["one"],
    "uint8": lambda w, pixels: pixels.permute(0, 3, 1, 2).to(w["two"].dtype) * w["two"],
    "int64": lambda w, tokens: tokens * w["three"] - w["seven"],
    "pair": lambda w, left, right: (left - right, right @ w["matrix"]),
    "identity": lambda w, values: values,
    "weights": lambda w, values: (w["constant"], values @ w["turned"]),
    "mismatch": lambda w, left, right: left + right,
}


class Module(torch.nn.Module):
    """One of the kit's networks."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self._forward = _FORWARDS[graph.name]
        for name, array in graph.tensors.items():
            # A network comes in float32; the backend casts it.
            tensor = torch.from_numpy(array.copy())
            self.register_buffer(_PREFIX + name, tensor.float() if tensor.is_floating_point() else tensor)

    def forward(self, *inputs: torch.Tensor) -> Any:
        """Runs it."""
        weights = {name.removeprefix(_PREFIX): tensor for name, tensor in self.named_buffers()}
        return self._forward(weights, *inputs)


def network(graph: Graph) -> TorchNetwork:
    """The graph as an architecture would hand it to a backend."""
    return TorchNetwork(
        module=Module(graph).eval(), inputs=graph.inputs, outputs=graph.outputs, metadata=dict(graph.metadata)
    )
