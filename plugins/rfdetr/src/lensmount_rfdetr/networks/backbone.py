"""DINOv2 with windowed attention (RF-DETR, arXiv 2511.09554): pictures to features of several stages.

Parts and parameters bear the names of the authors' checkpoints.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lensmount_networks import Layer, ops
from lensmount_networks.layers import Conv2d, LayerNorm, Layers, Tensor, constant, parameter
from lensmount_rfdetr.layout import Layout
from lensmount_rfdetr.networks.products import Product

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Projections(Layer):
    """What makes queries, keys and values of tokens."""

    def __init__(self, width: int) -> None:
        self.query = Product(width, width)
        self.key = Product(width, width)
        self.value = Product(width, width)


class Output(Layer):
    """What follows attention."""

    def __init__(self, width: int) -> None:
        self.dense = Product(width, width)


class Attention(Layer):
    """Self-attention over tokens `(B, N, C)`."""

    def __init__(self, width: int, heads: int) -> None:
        self.heads = heads
        self.attention = Projections(width)
        self.output = Output(width)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens `(B, N, C)` to tokens."""
        batch, tokens, width = x.shape
        made = (self.attention.query(x), self.attention.key(x), self.attention.value(x))
        q, k, v = (t.reshape(batch, tokens, self.heads, width // self.heads).transpose(1, 2) for t in made)
        mixed = ops.attention(q, k, v).transpose(1, 2).reshape(batch, tokens, width)
        return self.output.dense(mixed)


class Mlp(Layer):
    """Two products with a GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        self.fc1 = Product(width, hidden, "gelu")
        self.fc2 = Product(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, over the last axis."""
        return self.fc2(self.fc1(x))


class Scale(Layer):
    """A factor for each channel. Only training has it: else it is in the product before it (see `weights`)."""

    def __init__(self, width: int) -> None:
        self.lambda1 = parameter(width)

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, over the last axis."""
        return x * self.lambda1


class Block(Layer):
    """A transformer block.

    Args:
        layout: The network's sizes.
        windows: Windows that attend to one another as one; 1 keeps each to itself.
        training: Whether layer scales are apart.
    """

    def __init__(self, layout: Layout, windows: int, training: bool) -> None:
        width = layout.width
        self.windows = windows
        self.norm1 = LayerNorm(width, 1e-6)
        self.attention = Attention(width, layout.heads)
        self.layer_scale1 = Scale(width) if training else None
        self.norm2 = LayerNorm(width, 1e-6)
        self.mlp = Mlp(width, layout.mlp)
        self.layer_scale2 = Scale(width) if training else None

    def forward(self, x: Tensor, joined: Any) -> Tensor:
        """Tokens `(B * windows², N, C)` to tokens; `joined` is the batch when windows attend as one."""
        h = self.norm1(x)
        if self.windows > 1:
            h = h.reshape(joined, self.windows * x.shape[1], x.shape[2])
        h = self.attention(h).reshape(x.shape)
        x = x + (h if self.layer_scale1 is None else self.layer_scale1(h))
        h = self.mlp(self.norm2(x))
        return x + (h if self.layer_scale2 is None else self.layer_scale2(h))


class Patches(Layer):
    """Pictures to tokens."""

    def __init__(self, layout: Layout) -> None:
        self.projection = Conv2d(3, layout.width, layout.patch)


class Embeddings(Layer):
    """Pictures to tokens in the order of the windows, each window behind a start token.

    Args:
        layout: The network's sizes.
        cells: Rows and columns of patches.
    """

    def __init__(self, layout: Layout, cells: tuple[int, int]) -> None:
        self.cls_token = parameter(1, 1, layout.width)
        self.position_embeddings = parameter(1, layout.grid**2 + 1, layout.width)
        self.patch_embeddings = Patches(layout)
        self.windows, self.patch, self.grid, self.cells = layout.windows, layout.patch, layout.grid, cells
        other = cells != (layout.grid, layout.grid)
        self.to_rows = constant(resampling(layout.grid, cells[0])) if other else None
        self.to_columns = constant(resampling(layout.grid, cells[1])) if other else None

    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures `(B, 3, H, W)` to tokens `(B * windows², 1 + cells of a window, width)`."""
        n, patch, batch = self.windows, self.patch, pictures.shape[0]
        rows, columns = self.cells[0] // n, self.cells[1] // n
        # Patches do not overlap: their convolution is a product, taken in the order of the windows.
        x = pictures.reshape(batch, 3, n, rows, patch, n, columns, patch).permute(0, 2, 5, 3, 6, 1, 4, 7)
        kernel = self.patch_embeddings.projection
        x = x.reshape(batch, n * n, rows * columns, 3 * patch * patch)
        x = ops.linear(x, kernel.weight.flatten(1), kernel.bias) + self.positions()
        x = x.reshape(batch * (n * n), rows * columns, x.shape[3])
        start = self.cls_token + self.position_embeddings[:, :1]
        return ops.concat((start.expand(x.shape[0], -1, -1), x), 1)

    def positions(self) -> Tensor:
        """Position encodings `(1, windows², cells of a window, width)`, resampled to the input."""
        n, (rows, columns), grid = self.windows, self.cells, self.grid
        table = self.position_embeddings[:, 1:]
        width = table.shape[2]
        if self.to_rows is not None and self.to_columns is not None:
            table = self.to_rows.to(table.dtype) @ table.reshape(grid, grid * width)
            table = table.reshape(rows, grid, width).transpose(0, 1).reshape(grid, rows * width)
            table = (self.to_columns.to(table.dtype) @ table).reshape(columns, rows, width).transpose(0, 1)
        table = table.reshape(n, rows // n, n, columns // n, width).transpose(1, 2)
        return table.reshape(1, n * n, rows // n * (columns // n), width)


def resampling(count: int, wanted: int) -> NDArray[np.float32]:
    """Bicubic resampling with antialiasing along one axis, as torch's `interpolate(antialias=True)`, as a matrix.

    Args:
        count: Places there are.
        wanted: Places of the result.

    Returns:
        `(wanted, count)`.
    """
    step = count / wanted
    spread = max(step, 1.0)
    centres = step * (np.arange(wanted)[:, None] + 0.5)
    first = np.maximum((centres - 2 * spread + 0.5).astype(np.int64), 0)
    last = np.minimum((centres + 2 * spread + 0.5).astype(np.int64), count)
    places = np.arange(count)[None]
    x = np.abs(places - centres + 0.5) / spread
    a = -0.5
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    weights = np.where(x < 1, near, np.where(x < 2, far, 0.0)) * ((places >= first) & (places < last))
    made: NDArray[np.float32] = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    return made


class Blocks(Layer):
    """All blocks up to the last stage that is used."""

    def __init__(self, layout: Layout, training: bool) -> None:
        # Blocks whose *index* equals a used stage's number attend globally: so were the networks trained.
        self.layer = Layers(
            Block(layout, layout.windows**2 if index in layout.stages else 1, training)
            for index in range(layout.stages[-1])
        )


class Backbone(Layer):
    """Features of the stages that the projector uses, side by side.

    Args:
        layout: The network's sizes.
        size: Input `(height, width)` in pixels, multiples of `layout.divisor`.
        training: Whether layer scales are apart.
    """

    def __init__(self, layout: Layout, size: tuple[int, int], training: bool) -> None:
        self.windows, self.stages = layout.windows, layout.stages
        self.cells = (size[0] // layout.patch, size[1] // layout.patch)
        self.embeddings = Embeddings(layout, self.cells)
        self.encoder = Blocks(layout, training)
        self.layernorm = LayerNorm(layout.width, 1e-6)

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """Pictures `(B, 3, H, W)` to features `(B, rows, columns, width)`, one for each stage that is used."""
        n, (rows, columns), batch = self.windows, self.cells, pictures.shape[0]
        x = self.embeddings(pictures)
        features = []
        for index, block in enumerate(self.encoder.layer, 1):
            x = block(x, batch)
            if index in self.stages:
                found = self.layernorm(x)[:, 1:].reshape(batch, n, n, rows // n, columns // n, x.shape[2])
                features.append(found.permute(0, 1, 3, 2, 4, 5).reshape(batch, rows, columns, x.shape[2]))
        return features
