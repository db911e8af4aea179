"""DINOv2 with windowed attention (RF-DETR, arXiv 2511.09554): pictures to features of several stages."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lensmount_rfdetr.layout import Layout
from lensmount_rfdetr.networks.products import Product


class Attention(nn.Module):
    """Self-attention over tokens `(B, N, C)`, with one product for queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Product(width, 3 * width)
        self.out = Product(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens `(B, N, C)` to tokens."""
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).view(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return out


class Block(nn.Module):
    """A transformer block; layer scales are folded into the products before them (see `weights`)."""

    def __init__(self, width: int, heads: int, mlp: int, windows: int) -> None:
        super().__init__()
        self.windows = windows  # windows that attend to one another as one; 1 keeps each to itself
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.fc1 = Product(width, mlp, "gelu")
        self.fc2 = Product(mlp, width)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens `(B * windows², N, C)` to tokens."""
        h = self.norm1(x)
        if self.windows > 1:
            h = h.reshape(-1, self.windows * h.shape[1], h.shape[2])
        x = x + self.attention(h).reshape(x.shape)
        out: Tensor = x + self.fc2(self.fc1(self.norm2(x)))
        return out


class Backbone(nn.Module):
    """Features of the stages that the projector uses, side by side.

    Position encodings are constants for the one input size that the network is built for, already in the order of the
    windows; the start token of every window has its own in it.

    Args:
        layout: The network's sizes.
        size: Input `(height, width)` in pixels.
    """

    def __init__(self, layout: Layout, size: tuple[int, int]) -> None:
        super().__init__()
        self.windows = layout.windows
        self.patch = layout.patch
        self.rows, self.columns = size[0] // layout.patch, size[1] // layout.patch
        self.patches = nn.Linear(3 * layout.patch**2, layout.width)
        self.start = nn.Parameter(torch.empty(1, 1, layout.width))
        count = layout.windows**2
        self.positions = nn.Parameter(torch.empty(1, count, self.rows * self.columns // count, layout.width))
        self.stages = layout.stages
        # Blocks whose *index* equals a used stage's number attend globally: so were the networks trained.
        self.blocks = nn.ModuleList(
            Block(layout.width, layout.heads, layout.mlp, count if index in layout.stages else 1)
            for index in range(layout.stages[-1])
        )
        self.norm = nn.LayerNorm(layout.width, eps=1e-6)

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """Pictures `(B, 3, H, W)` to features `(B, rows, columns, width)`, one for each stage that is used."""
        n, rows, columns, patch = self.windows, self.rows // self.windows, self.columns // self.windows, self.patch
        # Patches do not overlap: their convolution is a product, taken in the order of the windows.
        x = pictures.reshape(-1, 3, n, rows, patch, n, columns, patch).permute(0, 2, 5, 3, 6, 1, 4, 7)
        x = self.patches(x.reshape(-1, n * n, rows * columns, 3 * patch * patch)) + self.positions
        width = x.shape[3]
        x = x.reshape(-1, rows * columns, width)
        x = torch.cat((self.start.expand(x.shape[0], -1, -1), x), 1)
        features = []
        for index, block in enumerate(self.blocks, 1):
            x = block(x)
            if index in self.stages:
                found = self.norm(x)[:, 1:].reshape(-1, n, n, rows, columns, width).permute(0, 1, 3, 2, 4, 5)
                features.append(found.reshape(-1, self.rows, self.columns, width))
        return features
