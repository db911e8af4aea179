"""PE-Core's image tower (Bolya et al. 2025, arXiv:2504.13181): ViT, 2-D rotary positions, attention pooling.

Parameters bear the names of Meta's state dicts, but queries and keys are laid out in halves; see `rope_rows`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lensmount_networks import ops
from lensmount_networks.layers import Layer, LayerNorm, Linear, Tensor, buffer, parameter
from lensmount_vision.towers.transformer import Mlp, PatchSizes, PatchTower, split_heads

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BASE = 10_000.0


class AttentionPool(Layer):
    """One learned query over all tokens, and an MLP behind it.

    Args:
        width: Channels.
        heads: Heads.
        hidden: Channels in the MLP.
    """

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        self.heads = heads
        # The learned query behind its projection: it depends on weights alone (`vision_tensors`).
        self.query = parameter(heads, 1, width // heads)
        self.key_value = Linear(width, 2 * width)
        self.out_proj = Linear(width, width)
        self.layernorm = LayerNorm(width)
        self.mlp = Mlp(width, hidden, "gelu")

    def forward(self, x: Tensor) -> Tensor:
        """`(B, L, W)` to `(B, W)`."""
        k, v = (split_heads(t, self.heads) for t in self.key_value(x).chunk(2, -1))
        query = self.query[None].expand(x.shape[0], -1, -1, -1)
        pooled = self.out_proj(ops.attention(query, k, v).transpose(1, 2).flatten(2))
        return (pooled + self.mlp(self.layernorm(pooled)))[:, 0]


class VisionTower(PatchTower):
    """Patches, rotary transformer, attention pooling.

    Args:
        sizes: Of the tower.
        pool_heads: Heads of the pooling.
        pool_hidden: Channels in the pooling's MLP.
        projection_bias: Whether the last projection has a bias; Meta's have none.
    """

    def __init__(self, sizes: PatchSizes, *, pool_heads: int, pool_hidden: int, projection_bias: bool) -> None:
        super().__init__(sizes, "gelu")
        self.attn_pool = AttentionPool(sizes.width, pool_heads, pool_hidden)
        self.proj_bias = parameter(sizes.dimension) if projection_bias else None
        half = sizes.width // sizes.heads // 2
        self.rope_cos, self.rope_sin = buffer(sizes.tokens, half), buffer(sizes.tokens, half)

    def features(self, images: Tensor) -> Tensor:
        """Pictures `(B, 3, R, R)` to normalised tokens `(B, L, W)`, the class token first where there is one."""
        x = self.transformer(self.tokens(images), rope=(self.rope_cos, self.rope_sin))
        return self.ln_post(x)

    def forward(self, images: Tensor) -> Tensor:
        """Pictures `(B, 3, R, R)` to embeddings `(B, D)`, not normalised."""
        out = self.attn_pool(self.features(images)) @ self.proj
        return out if self.proj_bias is None else out + self.proj_bias


def rope_table(grid: int, head: int, class_token: bool) -> tuple[NDArray[Any], NDArray[Any]]:
    """Cosines and sines `(L, head / 2)` for a square grid: the first half of each turns with x, the second with y.

    With a class token, places count from 1, and the token itself is not turned.
    """
    bands = np.float32(_BASE) ** -(np.arange(head // 4, dtype=np.float32) / np.float32(head // 4))
    places = np.arange(grid, dtype=np.float32) + np.float32(class_token)
    y, x = np.meshgrid(places, places, indexing="ij")
    angles = np.concatenate((x.reshape(-1, 1) * bands, y.reshape(-1, 1) * bands), axis=1)
    if class_token:
        angles = np.concatenate((np.zeros((1, head // 2), np.float32), angles))
    return np.cos(angles), np.sin(angles)


def rope_rows(projection: NDArray[Any], heads: int) -> NDArray[Any]:
    """Reorders a joint projection so that what turns together lies half a head apart instead of side by side.

    Queries and keys are reordered alike, so their products are the same; values stay. Halves turn with two
    multiplications on contiguous memory where neighbours need a gather.
    """
    width = projection.shape[0] // 3
    head = width // heads
    order = np.concatenate((np.arange(0, head, 2), np.arange(1, head, 2)))
    rows = (np.arange(heads)[:, None] * head + order).reshape(-1)
    return np.concatenate((projection[:width][rows], projection[width : 2 * width][rows], projection[2 * width :]))
