"""The decoder: queries that look at the feature maps through deformable attention (LW-DETR, arXiv 2406.03459)."""

from __future__ import annotations

import math
from itertools import pairwise

from lensmount_networks import Layer, ops
from lensmount_networks.layers import LayerNorm, Layers, Linear, Tensor, parameter
from lensmount_rfdetr.layout import Layout
from lensmount_rfdetr.networks.products import Product


class MLP(Layer):
    """Linear layers with ReLU between them."""

    def __init__(self, *widths: int) -> None:
        self.layers = Layers(Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, over the last axis."""
        for layer in self.layers[:-1]:
            x = ops.relu(layer(x))
        return self.layers[-1](x)


def refine(boxes: Tensor, deltas: Tensor) -> Tensor:
    """Moves boxes cxcywh by deltas in units of their own size, in float32 whatever the network computes in."""
    boxes, deltas = ops.cast(boxes, "float32"), ops.cast(deltas, "float32")
    moved = deltas[..., :2] * boxes[..., 2:] + boxes[..., :2]
    return ops.concat((moved, ops.exp(deltas[..., 2:]) * boxes[..., 2:]), -1)


class SelfAttention(Layer):
    """Attention among queries; positions enter queries and keys, not values."""

    def __init__(self, hidden: int, heads: int) -> None:
        self.heads = heads
        self.in_proj_weight = parameter(3 * hidden, hidden)
        self.in_proj_bias = parameter(3 * hidden)
        self.out_proj = Linear(hidden, hidden)

    def forward(self, x: Tensor, positions: Tensor, groups: int = 1) -> Tensor:
        """Queries and their positions `(B, Q, C)` to queries; each of `groups` equal groups sees itself alone."""
        shape, hidden = x.shape, x.shape[2]
        batch, count, head = shape[0] * groups, shape[1] // groups, hidden // self.heads
        weight, bias = self.in_proj_weight, self.in_proj_bias
        both = ops.linear(x + positions, weight[: 2 * hidden], bias[: 2 * hidden])
        q, k = both.reshape(batch, count, 2, self.heads, head).permute(2, 0, 3, 1, 4).chunk(2)
        v = ops.linear(x, weight[2 * hidden :], bias[2 * hidden :])
        v = v.reshape(batch, count, self.heads, head).transpose(1, 2)
        return self.out_proj(ops.attention(q[0], k[0], v).transpose(1, 2).reshape(shape))


class DeformableAttention(Layer):
    """Each head of each query samples a few points around its box (Deformable DETR, arXiv 2010.04159).

    Args:
        layout: The network's sizes.
        shapes: Rows and columns of each map.
    """

    def __init__(self, layout: Layout, shapes: tuple[tuple[int, int], ...]) -> None:
        self.heads, self.points, self.shapes = layout.cross_heads, layout.points, shapes
        samples = layout.cross_heads * len(shapes) * layout.points
        self.sampling_offsets = Linear(layout.hidden, 2 * samples)
        self.attention_weights = Linear(layout.hidden, samples)
        self.value_proj = Linear(layout.hidden, layout.hidden)
        self.output_proj = Linear(layout.hidden, layout.hidden)

    def forward(self, queries: Tensor, boxes: Tensor, memory: Tensor) -> Tensor:
        """Queries `(B, Q, C)`, boxes `(B, Q, 4)` cxcywh and maps `(B, cells, C)` to queries."""
        batch, count, hidden = queries.shape
        points, samples = self.points, len(self.shapes) * self.points
        offsets = self.sampling_offsets(queries).reshape(batch, count, self.heads, samples, 2)
        weights = ops.softmax(self.attention_weights(queries).reshape(batch, count, self.heads, samples))
        around = boxes[:, :, None, None, :]
        # In float32 whatever the network computes in: half precision places points a hundredth of a cell off, and
        # torch's sampling of bfloat16 on a CPU gives what is no number for points outside the map. Offsets are in
        # halves of a box over the number of points; grid coordinates run from -1 to 1.
        grid = (2 * around[..., :2] - 1) + ops.cast(offsets, "float32") * (around[..., 2:] / points)
        grid = grid.transpose(1, 2).reshape(batch * self.heads, count, samples, 2)
        values = ops.cast(self.value_proj(memory), "float32").transpose(1, 2)
        values = values.reshape(batch * self.heads, hidden // self.heads, memory.shape[1])
        sampled, start = [], 0
        for level, (rows, columns) in enumerate(self.shapes):
            part = values[..., start : start + rows * columns]
            part = part.reshape(batch * self.heads, hidden // self.heads, rows, columns)
            sampled.append(ops.grid_sample(part, grid[:, :, level * points : (level + 1) * points]))
            start += rows * columns
        weights = ops.cast(weights.transpose(1, 2), "float32").reshape(batch * self.heads, 1, count, samples)
        mixed = ((sampled[0] if len(sampled) == 1 else ops.concat(sampled, 3)) * weights).sum(-1)
        return self.output_proj(mixed.reshape(batch, hidden, count).transpose(1, 2).to(queries.dtype))


class DecoderLayer(Layer):
    """Self-attention, deformable attention, feed-forward; each followed by its norm."""

    def __init__(self, layout: Layout, shapes: tuple[tuple[int, int], ...]) -> None:
        hidden = layout.hidden
        self.self_attn = SelfAttention(hidden, layout.self_heads)
        self.norm1 = LayerNorm(hidden)
        self.cross_attn = DeformableAttention(layout, shapes)
        self.norm2 = LayerNorm(hidden)
        self.linear1 = Product(hidden, layout.feedforward, "relu")
        self.linear2 = Product(layout.feedforward, hidden)
        self.norm3 = LayerNorm(hidden)

    def forward(self, x: Tensor, positions: Tensor, boxes: Tensor, memory: Tensor, groups: int = 1) -> Tensor:
        """Queries and positions `(B, Q, C)`, boxes `(B, Q, 4)`, maps `(B, cells, C)` to queries."""
        x = self.norm1(x + self.self_attn(x, positions, groups))
        x = self.norm2(x + self.cross_attn(x + positions, boxes, memory))
        return self.norm3(x + self.linear2(self.linear1(x)))


class Decoder(Layer):
    """All layers, around boxes that stay where the first stage put them."""

    def __init__(self, layout: Layout, shapes: tuple[tuple[int, int], ...]) -> None:
        self.features = layout.hidden // 2
        self.ref_point_head = MLP(2 * layout.hidden, layout.hidden, layout.hidden)
        self.layers = Layers(DecoderLayer(layout, shapes) for _ in range(layout.layers))
        self.norm = LayerNorm(layout.hidden)

    def forward(self, queries: Tensor, boxes: Tensor, memory: Tensor, groups: int = 1) -> list[Tensor]:
        """Queries `(B, Q, C)` around boxes `(B, Q, 4)` cxcywh to their features `(B, Q, C)` after each layer."""
        positions = self.ref_point_head(self._sines(boxes).to(queries.dtype))
        found = []
        for layer in self.layers:
            queries = layer(queries, positions, boxes, memory, groups)
            found.append(queries)
        return found

    def _sines(self, boxes: Tensor) -> Tensor:
        """Sine encoding of y, x, w, h, each with sines and cosines in turn."""
        steps = ops.arange(self.features // 2, like=boxes) * 2 / self.features
        ordered = ops.concat((boxes[..., 1:2], boxes[..., :1], boxes[..., 2:]), -1)
        angles = ordered[..., None] * (2 * math.pi / 10000**steps)
        return ops.stack((ops.sin(angles), ops.cos(angles)), -1).flatten(2)
