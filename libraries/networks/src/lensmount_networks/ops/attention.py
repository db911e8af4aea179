"""Attention."""

from __future__ import annotations

import math
from typing import Any

from lensmount_networks.ops.elementwise import softmax, where
from lensmount_networks.ops.places import arange
from lensmount_networks.values import Value, broadcast

Tensor = Any


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """Scaled dot-product attention.

    Args:
        query: `(…, N, D)`.
        key: `(…, L, D)`; a batch of 1 serves all queries.
        value: `(…, L, V)`; as `key`.
        mask: Bool, true for what may be seen, or float, added to the products; spreads to `(…, N, L)`.
        causal: Each of N = L places sees itself and those before it.
        scale: Factor of the products; None for 1 / sqrt(D).

    Returns:
        `(…, N, V)`.
    """
    if not isinstance(query, Value):
        import torch

        if key.shape[0] != query.shape[0]:  # in a graph the products spread by themselves
            key, value = (part.expand(query.shape[0], *part.shape[1:]) for part in (key, value))
        return torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=causal, scale=scale
        )
    # onnxruntime makes one node of the product, the turned keys and the factor behind it.
    size = query.shape[-1]
    products = (query @ key.mT) * (1 / math.sqrt(size) if scale is None else scale)
    if causal:
        places = arange(query.shape[-2], like=query, dtype="int64")
        mask = places <= places[:, None]
    if mask is not None:
        added = mask
        if mask.dtype == "bool":
            added = where(mask, query.graph.scalar(0.0, query.dtype), query.graph.scalar(-math.inf, query.dtype))
        products = products + added
        products.shape = broadcast(products.shape, added.shape)
    return softmax(products) @ value
