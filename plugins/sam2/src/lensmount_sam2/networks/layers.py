"""Layers that several parts share."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Perceptron(nn.Module):
    """Linear layers with an activation between them.

    Args:
        sizes: Features in, between and out.
        activation: `relu` or `gelu`.
        sigmoid: Ends in a sigmoid.
    """

    def __init__(self, *sizes: int, activation: str = "relu", sigmoid: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(inner, outer) for inner, outer in pairwise(sizes))
        self._gelu = activation == "gelu"
        self._sigmoid = sigmoid

    def forward(self, x: Tensor) -> Tensor:
        """`(…, sizes[0])` to `(…, sizes[-1])`."""
        for index, layer in enumerate(self.layers):
            if index:
                x = F.gelu(x) if self._gelu else F.relu(x)
            x = layer(x)
        return x.sigmoid() if self._sigmoid else x


class ChannelNorm(nn.Module):
    """Layer norm over the channels of `(B, C, H, W)`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape out."""
        last = x.permute(0, 2, 3, 1)
        return F.layer_norm(last, self.weight.shape, self.weight, self.bias, 1e-6).permute(0, 3, 1, 2)


class Attention(nn.Module):
    """Multi-head attention with projections of its own.

    Args:
        width: Features of queries and of the result.
        inner: Features that attention runs in.
        heads: Number of heads.
        source_width: Features of keys and values; None for `width`.
    """

    def __init__(self, width: int, inner: int, heads: int, source_width: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, inner)
        self.k_proj = nn.Linear(source_width or width, inner)
        self.v_proj = nn.Linear(source_width or width, inner)
        self.out_proj = nn.Linear(inner, width)

    def split(self, x: Tensor) -> Tensor:
        """`(B, L, inner)` to `(B, heads, L, inner / heads)`."""
        return x.reshape(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Split heads in, `(B, L, width)` out. A batch of 1 in keys and values serves every query."""
        key = key.expand(query.shape[0], *key.shape[1:])
        value = value.expand(query.shape[0], *value.shape[1:])
        mixed = F.scaled_dot_product_attention(query, key, value)
        return cast("Tensor", self.out_proj(mixed.transpose(1, 2).flatten(2)))

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """`(B, L, width)`, `(B or 1, S, source_width)` twice, to `(B, L, width)`."""
        return self.attend(self.split(self.q_proj(query)), self.split(self.k_proj(key)), self.split(self.v_proj(value)))
