"""The mask head: one low-resolution map of logits per query. Maps are kept channels-last, `(B, H, W, C)`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lensmount_networks import Layer, ops
from lensmount_networks.layers import Conv2d, LayerNorm, Layers, Linear, Tensor, parameter
from lensmount_rfdetr.layout import Layout


class MaskBlock(Layer):
    """Depthwise convolution, LayerNorm, product, GELU, around a residual."""

    def __init__(self, hidden: int) -> None:
        self.dwconv = Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.norm = LayerNorm(hidden, 1e-6)
        self.pwconv1 = Linear(hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """A map `(B, h, w, C)` to a map."""
        h = self.dwconv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x + ops.gelu(self.pwconv1(self.norm(h)))


class QueryBlock(Layer):
    """LayerNorm and two products with a GELU between them, around a residual."""

    def __init__(self, hidden: int) -> None:
        self.norm_in = LayerNorm(hidden)
        self.layers = Layers([Linear(hidden, 4 * hidden), Layers([]), Linear(4 * hidden, hidden)])

    def forward(self, x: Tensor) -> Tensor:
        """Over the last axis."""
        return x + self.layers[2](ops.gelu(self.layers[0](self.norm_in(x))))


class MaskHead(Layer):
    """Upsampled features against the decoder's queries.

    Args:
        layout: The network's sizes.
        size: Input `(height, width)` in pixels.
    """

    def __init__(self, layout: Layout, size: tuple[int, int]) -> None:
        hidden = layout.hidden
        self.size = (size[0] // layout.mask_ratio, size[1] // layout.mask_ratio)
        self.blocks = Layers(MaskBlock(hidden) for _ in range(layout.mask_blocks))
        self.spatial_features_proj = Conv2d(hidden, hidden, 1)
        self.query_features_block = QueryBlock(hidden)
        self.query_features_proj = Linear(hidden, hidden)
        self.bias = parameter(1)

    def forward(self, features: Tensor, queries: Tensor) -> Tensor:
        """Features `(B, h, w, C)` and queries `(B, Q, C)` to logits `(B, Q, H / ratio, W / ratio)`."""
        x = self._resized(features)
        for block in self.blocks:
            x = block(x)
        q = self.query_features_proj(self.query_features_block(queries))
        # The projection of the features is taken on the queries: the map is twenty times larger.
        spatial = self.spatial_features_proj
        offsets = (q * spatial.bias).sum(-1, keepdim=True) + self.bias
        logits = q @ spatial.weight.flatten(1) @ x.flatten(1, 2).transpose(1, 2) + offsets
        return logits.reshape(q.shape[0], q.shape[1], *self.size)

    def sparse(self, features: Tensor, queries: Sequence[Tensor], *, blocks: bool) -> list[dict[str, Any]]:
        """For training: what masks are made of, after each block; see `detector.RFDETR.train_forward`."""
        x = self._resized(features)
        found = []
        for block, own in zip(self.blocks if blocks else [None], queries, strict=True):
            x = x if block is None else block(x)
            found.append(
                {
                    "spatial_features": self.spatial_features_proj(x.permute(0, 3, 1, 2)),
                    "query_features": self.query_features_proj(self.query_features_block(own)),
                    "bias": self.bias,
                }
            )
        return found

    def _resized(self, features: Tensor) -> Tensor:
        return ops.resize(features.permute(0, 3, 1, 2), self.size, mode="bilinear").permute(0, 2, 3, 1)
