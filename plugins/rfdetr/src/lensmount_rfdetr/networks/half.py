"""A network that computes in half precision behind float32 inputs and outputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class HalfInside(nn.Module):
    """Casts a network to float16, in place, and its outputs back to float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.half()

    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
        """As the network's."""
        return tuple(output.to(torch.float32) for output in self.network(pictures.to(torch.float16)))
