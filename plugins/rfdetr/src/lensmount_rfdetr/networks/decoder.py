"""The decoder: queries that look at the feature maps through deformable attention (LW-DETR, arXiv 2406.03459)."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lensmount_rfdetr.layout import Layout
from lensmount_rfdetr.networks.products import Product


class MLP(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, over the last axis."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        out: Tensor = self.layers[-1](x)
        return out


def refine(boxes: Tensor, deltas: Tensor) -> Tensor:
    """Moves boxes cxcywh by deltas in units of their own size, in float32 whatever the network computes in."""
    boxes, deltas = boxes.float(), deltas.float()
    return torch.cat((deltas[..., :2] * boxes[..., 2:] + boxes[..., :2], deltas[..., 2:].exp() * boxes[..., 2:]), -1)


class SelfAttention(nn.Module):
    """Attention among queries; positions enter queries and keys, not values."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qk = nn.Linear(hidden, 2 * hidden)
        self.v = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """Queries and their positions `(B, Q, C)` to queries."""
        batch, count, hidden = x.shape
        head = hidden // self.heads
        q, k = self.qk(x + positions).view(batch, count, 2, self.heads, head).permute(2, 0, 3, 1, 4)
        v = self.v(x).view(batch, count, self.heads, head).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, count, hidden))
        return out


class DeformableAttention(nn.Module):
    """Each head of each query samples a few points around its box (Deformable DETR, arXiv 2010.04159).

    Offsets and weights are one product; the offsets' unit, half a box over the number of points, is folded into it
    together with the factor 2 that grid coordinates need (see `weights`).
    """

    def __init__(self, layout: Layout, shapes: tuple[tuple[int, int], ...]) -> None:
        super().__init__()
        self.heads, self.points, self.shapes = layout.cross_heads, layout.points, shapes
        self.samples = layout.cross_heads * len(shapes) * layout.points
        self.sampling = nn.Linear(layout.hidden, 3 * self.samples)
        self.value = nn.Linear(layout.hidden, layout.hidden)
        self.out = nn.Linear(layout.hidden, layout.hidden)

    def forward(self, queries: Tensor, boxes: Tensor, memory: Tensor) -> Tensor:
        """Queries `(B, Q, C)`, boxes `(B, Q, 4)` cxcywh and maps `(B, cells, C)` to queries."""
        batch, count, hidden = queries.shape
        levels, points = len(self.shapes), self.points
        raw = self.sampling(queries)
        offsets = raw[..., : 2 * self.samples].view(batch, count, self.heads, levels * points, 2)
        weights = raw[..., 2 * self.samples :].view(batch, count, self.heads, levels * points).softmax(-1)
        around = boxes[:, :, None, None, :]
        # In float32 whatever the network computes in: half precision places points a hundredth of a cell off, and
        # torch's sampling of bfloat16 on a CPU gives what is no number for points outside the map.
        grid = 2 * around[..., :2] - 1 + offsets.float() * around[..., 2:]
        grid = grid.transpose(1, 2).reshape(batch * self.heads, count, levels, points, 2)
        values = self.value(memory).float().transpose(1, 2).reshape(batch * self.heads, hidden // self.heads, -1)
        sampled, start = [], 0
        for level, (rows, columns) in enumerate(self.shapes):
            part = values[..., start : start + rows * columns].unflatten(2, (rows, columns))
            sampled.append(F.grid_sample(part, grid[:, :, level], mode="bilinear", align_corners=False))
            start += rows * columns
        weights = weights.transpose(1, 2).reshape(batch * self.heads, 1, count, levels * points)
        mixed = ((sampled[0] if levels == 1 else torch.cat(sampled, 3)) * weights.float()).sum(-1)
        out: Tensor = self.out(mixed.reshape(batch, hidden, count).transpose(1, 2).to(queries.dtype))
        return out


class Layer(nn.Module):
    """Self-attention, deformable attention, feed-forward; each followed by its norm."""

    def __init__(self, layout: Layout, shapes: tuple[tuple[int, int], ...]) -> None:
        super().__init__()
        hidden = layout.hidden
        self.self_attn = SelfAttention(hidden, layout.self_heads)
        self.norm1 = nn.LayerNorm(hidden)
        self.cross_attn = DeformableAttention(layout, shapes)
        self.norm2 = nn.LayerNorm(hidden)
        self.linear1 = Product(hidden, layout.feedforward, "relu")
        self.linear2 = Product(layout.feedforward, hidden)
        self.norm3 = nn.LayerNorm(hidden)

    def forward(self, x: Tensor, positions: Tensor, boxes: Tensor, memory: Tensor) -> Tensor:
        """Queries and positions `(B, Q, C)`, boxes `(B, Q, 4)`, maps `(B, cells, C)` to queries."""
        x = self.norm1(x + self.self_attn(x, positions))
        x = self.norm2(x + self.cross_attn(x + positions, boxes, memory))
        out: Tensor = self.norm3(x + self.linear2(self.linear1(x)))
        return out


class Decoder(nn.Module):
    """All layers, around boxes that stay where the first stage put them."""

    frequencies: Tensor

    def __init__(self, layout: Layout, shapes: tuple[tuple[int, int], ...]) -> None:
        super().__init__()
        self.features = layout.hidden // 2
        self.ref_point_head = MLP(2 * layout.hidden, layout.hidden, layout.hidden)
        self.layers = nn.ModuleList(Layer(layout, shapes) for _ in range(layout.layers))
        self.norm = nn.LayerNorm(layout.hidden)

    def forward(self, queries: Tensor, boxes: Tensor, memory: Tensor) -> Tensor:
        """Queries `(B, Q, C)` around boxes `(B, Q, 4)` cxcywh to their final features `(B, Q, C)`."""
        positions = self.ref_point_head(self._sines(boxes).to(queries.dtype))
        for layer in self.layers:
            queries = layer(queries, positions, boxes, memory)
        out: Tensor = self.norm(queries)
        return out

    def _sines(self, boxes: Tensor) -> Tensor:
        """Sine encoding of y, x, w, h, each with sines and cosines in turn."""
        steps = torch.arange(0, self.features, 2, device=boxes.device, dtype=torch.float32) / self.features
        ordered = torch.cat((boxes[..., 1:2], boxes[..., :1], boxes[..., 2:]), -1)
        angles = ordered.unsqueeze(-1) * (2 * math.pi / 10000**steps)
        return torch.stack((angles.sin(), angles.cos()), -1).flatten(2)
