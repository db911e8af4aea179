"""The image encoder: Hiera, and a neck that gives the three maps which masks are decoded from."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lensmount_sam2.geometry import Trunk
from lensmount_sam2.networks.layers import Perceptron

WIDTH = 256
HIGH_RESOLUTION = (32, 64)
"""Channels of the maps at 4 and 8 pixels per cell."""


def _pool(x: Tensor) -> Tensor:
    """`(B, H, W, C)` to half the size by maxima."""
    return F.max_pool2d(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)


class WindowAttention(nn.Module):
    """Attention inside `(N, h, w, C)` windows; `pool` halves the map by its queries."""

    def __init__(self, width: int, out: int, heads: int, pool: bool) -> None:
        super().__init__()
        self._heads = heads
        self._pool = pool
        self.qkv = nn.Linear(width, 3 * out)
        self.proj = nn.Linear(out, out)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, h, w, C)` to `(N, h', w', out)`."""
        count, height, width, _ = x.shape
        query, key, value = self.qkv(x).chunk(3, dim=3)
        if self._pool:
            query, height, width = _pool(query), height // 2, width // 2
        split = [part.reshape(count, -1, self._heads, part.shape[3] // self._heads) for part in (query, key, value)]
        mixed = F.scaled_dot_product_attention(*(part.transpose(1, 2) for part in split))
        result: Tensor = self.proj(mixed.transpose(1, 2).reshape(count, height, width, -1))
        return result


class Block(nn.Module):
    """One transformer block on `(B, H, W, C)`.

    Args:
        width: Channels in.
        out: Channels out.
        heads: Attention heads.
        window: Side of the windows; 0 attends over the whole map.
        pool: Halve the map.
    """

    def __init__(self, width: int, out: int, heads: int, window: int, pool: bool) -> None:
        super().__init__()
        self._window = window
        self._pool = pool
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = WindowAttention(width, out, heads, pool)
        self.norm2 = nn.LayerNorm(out, eps=1e-6)
        self.mlp = Perceptron(out, 4 * out, out, activation="gelu")
        self.proj = nn.Linear(width, out) if width != out else None

    def forward(self, x: Tensor) -> Tensor:
        """`(B, H, W, width)` to `(B, H', W', out)`."""
        normed = self.norm1(x)
        if self.proj is not None:
            x = self.proj(normed)
        if self._pool:
            x = _pool(x)
        x = x + self._attend(normed)
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]  # modules are untyped when called

    def _attend(self, x: Tensor) -> Tensor:
        side = self._window
        if not side:
            return self.attn(x)  # type: ignore[no-any-return]
        batch, height, width, channels = x.shape
        down, right = -height % side, -width % side
        if down or right:
            x = F.pad(x, (0, 0, 0, right, 0, down))
        rows, columns = (height + down) // side, (width + right) // side
        x = x.reshape(batch, rows, side, columns, side, channels).transpose(2, 3)
        x = self.attn(x.reshape(-1, side, side, channels))
        if self._pool:
            side, height, width = side // 2, height // 2, width // 2
        x = x.reshape(batch, rows, columns, side, side, -1).transpose(2, 3)
        x = x.reshape(batch, rows * side, columns * side, -1)
        return x[:, :height, :width] if down or right else x


class ImageEncoder(nn.Module):
    """Picture to the maps that the decoder takes.

    The two maps of high resolution are 1x1 convolutions of 1x1 convolutions in the paper's network; each pair is one
    here (`checkpoint` multiplies them), and no map of 256 channels is made at 4 pixels per cell.

    Args:
        trunk: Sizes.
        image_size: Side of the square input in pixels, a multiple of 32.
    """

    positions: Tensor

    def __init__(self, trunk: Trunk, image_size: int) -> None:
        super().__init__()
        self.image_size = image_size
        widths = trunk.widths
        self.patch_embed = nn.Conv2d(3, trunk.width, 7, 4, 3)
        # The encoding of places: a small map stretched over the picture, plus one window's repeated. `checkpoint`
        # works it out for the input size.
        self.register_buffer("positions", torch.zeros(1, image_size // 4, image_size // 4, trunk.width))
        self.blocks = nn.ModuleList()
        self._ends: list[int] = []
        for stage, count in enumerate(trunk.blocks):
            for index in range(count):
                first = stage > 0 and index == 0
                number = len(self.blocks)
                window = 0 if number in trunk.global_blocks else trunk.windows[stage - 1 if first else stage]
                self.blocks.append(
                    Block(widths[stage - first], widths[stage], trunk.heads << stage, window, pool=first)
                )
            self._ends.append(len(self.blocks) - 1)
        outs = (*HIGH_RESOLUTION, WIDTH, WIDTH)
        self.levels = nn.ModuleList(nn.Linear(width, out) for width, out in zip(widths, outs, strict=True))
        self.no_mem_embed = nn.Parameter(torch.zeros(1, 1, WIDTH))

    def maps(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Maps without the mark of an image that has no past; see `forward`."""
        x = self.patch_embed(images).permute(0, 2, 3, 1) + self.positions
        found: list[Tensor] = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self._ends:
                level = self.levels[len(found)]
                found.append(level(x).permute(0, 3, 1, 2))
        fine, middle, coarse, coarsest = found
        coarse = coarse + F.interpolate(coarsest, scale_factor=2.0, mode="nearest")
        return coarse, fine, middle

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encodes pictures.

        Args:
            images: `(B, 3, S, S)`, normalised.

        Returns:
            Embedding `(B, 256, S/16, S/16)`, and maps `(B, 32, S/4, S/4)` and `(B, 64, S/8, S/8)`.
        """
        coarse, fine, middle = self.maps(images)
        marked = coarse + self.no_mem_embed.reshape(1, WIDTH, 1, 1)
        return marked.contiguous(), fine.contiguous(), middle.contiguous()
