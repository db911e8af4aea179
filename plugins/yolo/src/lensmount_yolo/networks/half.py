"""Half precision inside, float32 outside."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .assemble import Network


class HalfInside(nn.Module):
    """Runs a network in float16 between float32 inputs and outputs; heads decode in float32 anyway.

    Args:
        network: `module`, or something that ends in it.
        module: The network itself; changed in place.
    """

    def __init__(self, network: nn.Module, module: Network) -> None:
        super().__init__()
        module.half()
        module.register_forward_pre_hook(_to_half)
        module.register_forward_hook(_to_float)
        self.network = network

    def forward(self, images: Tensor) -> Any:
        """Maps float32 `(B, 3, H, W)` to the network's outputs in float32."""
        return self.network(images)


def _to_half(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(value.half() for value in inputs)


def _to_float(module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> Any:
    if isinstance(output, torch.Tensor):
        return output.float()
    return tuple(value.float() for value in output)
