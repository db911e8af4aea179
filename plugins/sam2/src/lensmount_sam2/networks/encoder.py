"""The image encoder: Hiera, and a neck that gives the three maps which masks are decoded from."""

from __future__ import annotations

from lensmount_networks import Layer, ops
from lensmount_networks.layers import Conv2d, LayerNorm, Layers, Linear, Tensor, buffer, parameter
from lensmount_sam2.geometry import Trunk
from lensmount_sam2.networks.layers import Perceptron

WIDTH = 256
HIGH_RESOLUTION = (32, 64)
"""Channels of the maps at 4 and 8 pixels per cell."""


def _pool(x: Tensor) -> Tensor:
    """`(B, H, W, C)` to half the size by maxima."""
    return ops.max_pool2d(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)


class WindowAttention(Layer):
    """Attention inside `(N, h, w, C)` windows; `pool` halves the map by its queries."""

    def __init__(self, width: int, out: int, heads: int, pool: bool) -> None:
        self._heads = heads
        self._pool = pool
        self.qkv = Linear(width, 3 * out)
        self.proj = Linear(out, out)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, h, w, C)` to `(N, h', w', out)`."""
        count, height, width, _ = x.shape
        query, key, value = self.qkv(x).chunk(3, dim=3)
        if self._pool:
            query, height, width = _pool(query), height // 2, width // 2
        out = value.shape[3]
        split = [
            part.reshape(count, part.shape[1] * part.shape[2], self._heads, out // self._heads).transpose(1, 2)
            for part in (query, key, value)
        ]
        mixed = ops.attention(*split)
        return self.proj(mixed.transpose(1, 2).reshape(count, height, width, out))


class Block(Layer):
    """One transformer block on `(B, H, W, C)`.

    Args:
        width: Channels in.
        out: Channels out.
        heads: Attention heads.
        window: Side of the windows; 0 attends over the whole map.
        pool: Halve the map.
    """

    def __init__(self, width: int, out: int, heads: int, window: int, pool: bool) -> None:
        self._window = window
        self._pool = pool
        self.norm1 = LayerNorm(width, 1e-6)
        self.attn = WindowAttention(width, out, heads, pool)
        self.norm2 = LayerNorm(out, 1e-6)
        self.mlp = Perceptron(out, 4 * out, out, activation="gelu")
        self.proj = Linear(width, out) if width != out else None

    def forward(self, x: Tensor) -> Tensor:
        """`(B, H, W, width)` to `(B, H', W', out)`."""
        normed = self.norm1(x)
        if self.proj is not None:
            x = self.proj(normed)
        if self._pool:
            x = _pool(x)
        x = x + self._attend(normed)
        return x + self.mlp(self.norm2(x))

    def _attend(self, x: Tensor) -> Tensor:
        side = self._window
        if not side:
            return self.attn(x)
        batch, height, width, channels = x.shape
        down, right = -height % side, -width % side
        if down or right:
            x = ops.pad(x, (0, 0, 0, right, 0, down))
        rows, columns = (height + down) // side, (width + right) // side
        x = x.reshape(batch, rows, side, columns, side, channels).transpose(2, 3)
        x = self.attn(x.reshape(batch * (rows * columns), side, side, channels))
        if self._pool:
            side, height, width = side // 2, height // 2, width // 2
        x = x.reshape(batch, rows, columns, side, side, x.shape[3]).transpose(2, 3)
        x = x.reshape(batch, rows * side, columns * side, x.shape[5])
        return x[:, :height, :width] if down or right else x


class ImageEncoder(Layer):
    """Picture to the maps that the decoder takes.

    The two maps of high resolution are 1x1 convolutions of 1x1 convolutions in the paper's network; each pair is one
    here (`checkpoint` multiplies them), and no map of 256 channels is made at 4 pixels per cell.

    Args:
        trunk: Sizes.
        image_size: Side of the square input in pixels, a multiple of 32.
    """

    def __init__(self, trunk: Trunk, image_size: int) -> None:
        self.image_size = image_size
        widths = trunk.widths
        self.patch_embed = Conv2d(3, trunk.width, 7, 4, 3)
        # The encoding of places: a small map stretched over the picture, plus one window's repeated. `checkpoint`
        # works it out for the input size.
        self.positions = buffer(1, image_size // 4, image_size // 4, trunk.width)
        blocks: list[Block] = []
        self._ends: list[int] = []
        for stage, count in enumerate(trunk.blocks):
            for index in range(count):
                first = stage > 0 and index == 0
                number = len(blocks)
                window = 0 if number in trunk.global_blocks else trunk.windows[stage - 1 if first else stage]
                blocks.append(Block(widths[stage - first], widths[stage], trunk.heads << stage, window, pool=first))
            self._ends.append(len(blocks) - 1)
        self.blocks = Layers(blocks)
        outs = (*HIGH_RESOLUTION, WIDTH, WIDTH)
        self.levels = Layers(Linear(width, out) for width, out in zip(widths, outs, strict=True))
        self.no_mem_embed = parameter(1, 1, WIDTH)

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
        coarse = coarse + ops.resize(coarsest, scale=2)
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
        return ops.contiguous(marked), ops.contiguous(fine), ops.contiguous(middle)
