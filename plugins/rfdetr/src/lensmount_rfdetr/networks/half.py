"""A network that computes in half precision behind float32 inputs and outputs."""

from __future__ import annotations

from dataclasses import replace

from lensmount_networks import Layer, Network, ops
from lensmount_networks.layers import Tensor


class HalfInside(Layer):
    """Casts what goes into a network to float16, and what comes out back."""

    def __init__(self, network: Layer) -> None:
        self.network = network

    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
        """As the network's."""
        return tuple(ops.cast(made, "float32") for made in self.network(ops.cast(pictures, "float16")))


def half_inside(network: Network) -> Network:
    """The network with its weights in float16; numbers beyond that type's range become infinite, as in torch."""
    import numpy as np

    with np.errstate(over="ignore"):
        tensors = {f"network.{name}": array.astype(np.float16) for name, array in network.tensors.items()}
    return replace(network, layer=lambda: HalfInside(network.layer()), tensors=tensors)
