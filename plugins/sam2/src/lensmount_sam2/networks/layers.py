"""Layers that several parts share."""

from __future__ import annotations

from itertools import pairwise

from lensmount_networks import Layer, ops
from lensmount_networks.layers import Layers, Linear, Tensor, parameter


class Gelu(Layer):
    """GELU between the layers of a chain."""

    def forward(self, x: Tensor) -> Tensor:
        """Same shape out."""
        return ops.gelu(x)


class Perceptron(Layer):
    """Linear layers with an activation between them.

    Args:
        sizes: Features in, between and out.
        activation: `relu` or `gelu`.
        sigmoid: Ends in a sigmoid.
    """

    def __init__(self, *sizes: int, activation: str = "relu", sigmoid: bool = False) -> None:
        self.layers = Layers(Linear(inner, outer) for inner, outer in pairwise(sizes))
        self._gelu = activation == "gelu"
        self._sigmoid = sigmoid

    def forward(self, x: Tensor) -> Tensor:
        """`(…, sizes[0])` to `(…, sizes[-1])`."""
        for index, layer in enumerate(self.layers):
            if index:
                x = ops.gelu(x) if self._gelu else ops.relu(x)
            x = layer(x)
        return ops.sigmoid(x) if self._sigmoid else x


class ChannelNorm(Layer):
    """Layer norm over the channels of `(B, C, H, W)`."""

    def __init__(self, channels: int) -> None:
        self.weight, self.bias = parameter(channels), parameter(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape out."""
        last = x.permute(0, 2, 3, 1)
        return ops.layer_norm(last, self.weight.shape, self.weight, self.bias, 1e-6).permute(0, 3, 1, 2)


class Attention(Layer):
    """Multi-head attention with projections of its own.

    Args:
        width: Features of queries and of the result.
        inner: Features that attention runs in.
        heads: Number of heads.
        source_width: Features of keys and values; None for `width`.
    """

    def __init__(self, width: int, inner: int, heads: int, source_width: int | None = None) -> None:
        self.heads = heads
        self.q_proj = Linear(width, inner)
        self.k_proj = Linear(source_width or width, inner)
        self.v_proj = Linear(source_width or width, inner)
        self.out_proj = Linear(inner, width)

    def split(self, x: Tensor) -> Tensor:
        """`(B, L, inner)` to `(B, heads, L, inner / heads)`."""
        return x.reshape(x.shape[0], x.shape[1], self.heads, x.shape[2] // self.heads).transpose(1, 2)

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Split heads in, `(B, L, width)` out. A batch of 1 in keys and values serves every query."""
        return self.out_proj(ops.attention(query, key, value).transpose(1, 2).flatten(2))

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """`(B, L, width)`, `(B or 1, S, source_width)` twice, to `(B, L, width)`."""
        return self.attend(self.split(self.q_proj(query)), self.split(self.k_proj(key)), self.split(self.v_proj(value)))
