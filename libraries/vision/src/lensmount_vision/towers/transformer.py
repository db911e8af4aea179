"""Pre-norm transformer blocks, CLIP's text tower, and the base of image towers that cut images into patches.

Written once for torch and for ONNX graphs (`lensmount_networks`). Parameters bear the names of OpenAI's state dicts,
which open_clip and Meta kept. For inference alone: no dropout. Two things make them faster than the reference and leave
the results as they are:

* the last block computes queries and its MLP only for the token that is read (`only`), since nothing else leaves it;
* in torch, `quick_gelu`, x * sigmoid(1.702 x), runs as the fused SiLU on weights scaled by 1.702 (`fold_quick_gelu`);
  of a graph, onnxruntime makes one node of it, so that its weights stay those of the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lensmount_networks import ops
from lensmount_networks.layers import Conv2d, Embedding, Layer, LayerNorm, Layers, Linear, Tensor, parameter, parts

Activation = Literal["quick_gelu", "gelu", "silu"]
QUICK_GELU = 1.702


class Attention(Layer):
    """Multi-head self-attention with one projection for queries, keys and values.

    Args:
        width: Channels.
        heads: Heads; divides `width`.
    """

    def __init__(self, width: int, heads: int) -> None:
        self.heads = heads
        self.in_proj_weight = parameter(3 * width, width)
        self.in_proj_bias = parameter(3 * width)
        self.out_proj = Linear(width, width)

    def forward(
        self,
        x: Tensor,
        *,
        causal: bool = False,
        rope: tuple[Tensor, Tensor] | None = None,
        only: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Attends.

        Args:
            x: `(B, L, W)`.
            causal: Each token sees itself and those before it.
            rope: Cosines and sines `(L, head width / 2)`, for queries and keys laid out in halves.
            only: `(B, n, W)` rows of `x` to compute; None for all.
            mask: Bool `(B, 1, n, L)`: what the rows of `only` may see; None for everything.

        Returns:
            `(B, L, W)`, or `(B, n, W)` with `only`.
        """
        width = x.shape[-1]
        if only is None:
            q, k, v = ops.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, -1)
        else:
            q = ops.linear(only, self.in_proj_weight[:width], self.in_proj_bias[:width])
            k, v = ops.linear(x, self.in_proj_weight[width:], self.in_proj_bias[width:]).chunk(2, -1)
        q, k, v = (split_heads(t, self.heads) for t in (q, k, v))
        if rope is not None:
            q, k = _rotate(q, *rope), _rotate(k, *rope)
        mixed = ops.attention(q, k, v, mask, causal=causal and only is None)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


def split_heads(x: Tensor, heads: int) -> Tensor:
    """`(B, L, W)` to `(B, heads, L, W / heads)`."""
    return x.reshape(x.shape[0], x.shape[1], heads, x.shape[2] // heads).transpose(1, 2)


def _rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return ops.concat((first * cosines - second * sines, second * cosines + first * sines), -1)


class Mlp(Layer):
    """Two layers with a GELU between.

    Args:
        width: Channels in and out.
        hidden: Channels between.
        activation: `gelu`, `quick_gelu`, or `silu` on weights that `fold_quick_gelu` has scaled.
    """

    def __init__(self, width: int, hidden: int, activation: Activation) -> None:
        self.c_fc = Linear(width, hidden)
        self.c_proj = Linear(hidden, width)
        self.activation: Activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """`(…, W)` to `(…, W)`."""
        x = self.c_fc(x)
        if self.activation == "quick_gelu":
            return self.c_proj(x * ops.sigmoid(x * QUICK_GELU))
        return self.c_proj(ops.silu(x) if self.activation == "silu" else ops.gelu(x))


class Block(Layer):
    """Attention and MLP, each behind a LayerNorm and around a residual.

    Args:
        width: Channels.
        heads: Heads.
        hidden: Channels in the MLP.
        activation: See `Mlp`.
    """

    def __init__(self, width: int, heads: int, hidden: int, activation: Activation) -> None:
        self.attn = Attention(width, heads)
        self.ln_1 = LayerNorm(width)
        self.mlp = Mlp(width, hidden, activation)
        self.ln_2 = LayerNorm(width)

    def forward(self, x: Tensor, *, causal: bool = False, rope: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """`(B, L, W)` to `(B, L, W)`; see `Attention.forward`."""
        x = x + self.attn(self.ln_1(x), causal=causal, rope=rope)
        return x + self.mlp(self.ln_2(x))

    def read(self, x: Tensor, index: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """The block's output at one token of each row alone.

        Args:
            x: `(B, L, W)`.
            index: int64 `(B,)`: which token; None for the first.
            mask: Bool `(B, 1, 1, L)`: what that token sees; None for everything.

        Returns:
            `(B, W)`.
        """
        normed = self.ln_1(x)
        if index is None:
            own, row = x[:, :1], normed[:, :1]
        else:
            rows = index[:, None, None].expand(-1, 1, x.shape[-1])
            own, row = ops.gather(x, 1, rows), ops.gather(normed, 1, rows)
        token = own + self.attn(normed, only=row, mask=mask)
        return (token + self.mlp(self.ln_2(token)))[:, 0]


class Transformer(Layer):
    """A stack of blocks.

    Args:
        width: Channels.
        layers: Blocks.
        heads: Heads.
        hidden: Channels in the MLPs.
        activation: See `Mlp`.
    """

    def __init__(self, width: int, layers: int, heads: int, hidden: int, activation: Activation) -> None:
        self.resblocks = Layers(Block(width, heads, hidden, activation) for _ in range(layers))

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """All tokens: `(B, L, W)`."""
        for block in self.resblocks:
            x = block(x, rope=rope)
        return x

    def read(self, x: Tensor, index: Tensor | None = None, *, causal: bool = False) -> Tensor:
        """One token of each row after the last block, `(B, W)`: the first, or that of `index`, int64 `(B,)`."""
        for block in self.resblocks[:-1]:
            x = block(x, causal=causal)
        mask = None
        if causal and index is not None:
            mask = (ops.arange(x.shape[1], like=index) <= index[:, None])[:, None, None]
        return self.resblocks[-1].read(x, index, mask)


class TextTower(Layer):
    """CLIP's text encoder: a causal transformer, read at the end token.

    Exact on texts trimmed to the longest of the batch: nothing behind the end token reaches it.

    Args:
        vocabulary: Rows of the token table.
        context: Most tokens.
        width: Channels.
        layers: Blocks.
        heads: Heads.
        hidden: Channels in the MLPs.
        dimension: Length of the embedding.
        activation: See `Mlp`.
    """

    def __init__(
        self,
        *,
        vocabulary: int,
        context: int,
        width: int,
        layers: int,
        heads: int,
        hidden: int,
        dimension: int,
        activation: Activation,
    ) -> None:
        self.token_embedding = Embedding(vocabulary, width)
        self.positional_embedding = parameter(context, width)
        self.transformer = Transformer(width, layers, heads, hidden, activation)
        self.ln_final = LayerNorm(width)
        self.text_projection = parameter(width, dimension)

    def forward(self, tokens: Tensor) -> Tensor:
        """int64 tokens `(B, L)`, the end token being the highest id, to embeddings `(B, D)`, not normalised."""
        x = self.token_embedding(tokens) + self.positional_embedding[: tokens.shape[1]]
        pooled = self.transformer.read(x, tokens.argmax(-1), causal=True)
        return self.ln_final(pooled) @ self.text_projection


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchSizes:
    """Sizes of an image tower that cuts images into patches.

    Attributes:
        resolution: Side of the square input in pixels.
        patch: Side of a patch in pixels.
        width: Channels.
        layers: Blocks.
        heads: Heads.
        hidden: Channels in the MLPs.
        dimension: Length of the embedding.
        class_token: Whether a class token goes before the patches.
    """

    resolution: int
    patch: int
    width: int
    layers: int
    heads: int
    hidden: int
    dimension: int
    class_token: bool = True

    @property
    def tokens(self) -> int:
        """Patches, and the class token where there is one."""
        return (self.resolution // self.patch) ** 2 + self.class_token


class PatchTower(Layer):
    """Image tower up to its last LayerNorm; a subclass says how tokens become one vector.

    Args:
        sizes: Of the tower.
        activation: See `Mlp`.
    """

    def __init__(self, sizes: PatchSizes, activation: Activation) -> None:
        width = sizes.width
        self.conv1 = Conv2d(3, width, sizes.patch, sizes.patch, bias=False)
        self.class_embedding = parameter(width) if sizes.class_token else None
        self.positional_embedding = parameter(sizes.tokens, width)
        self.ln_pre = LayerNorm(width)
        self.transformer = Transformer(width, sizes.layers, sizes.heads, sizes.hidden, activation)
        self.ln_post = LayerNorm(width)
        self.proj = parameter(width, sizes.dimension)

    def tokens(self, images: Tensor) -> Tensor:
        """Images `(B, 3, R, R)` to what the transformer takes, `(B, L, W)`, the class token first."""
        x = self.conv1(images).flatten(2).transpose(1, 2)
        if self.class_embedding is not None:
            first = self.class_embedding.reshape(1, 1, -1).expand(x.shape[0], -1, -1)
            x = ops.concat((first, x), 1)
        return self.ln_pre(x + self.positional_embedding)


def set_epsilon(network: Layer, epsilon: float) -> Layer:
    """Sets what all LayerNorms of a network add to the variance, and returns the network."""
    for _, part in parts(network):
        if isinstance(part, LayerNorm):
            part.eps = epsilon
    return network


def fold_quick_gelu(network: Layer, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Makes the MLPs of a network compute `silu` on scaled weights: silu(1.702 x) / 1.702 = x sigmoid(1.702 x).

    Args:
        network: Its MLPs with `quick_gelu` are changed.
        tensors: The network's arrays.

    Returns:
        The arrays, those of the changed MLPs scaled.
    """
    made = dict(tensors)
    for name, part in parts(network):
        if isinstance(part, Mlp) and part.activation == "quick_gelu":
            part.activation = "silu"
            for own, factor in (
                ("c_fc.weight", QUICK_GELU),
                ("c_fc.bias", QUICK_GELU),
                ("c_proj.weight", 1 / QUICK_GELU),
            ):
                made[name + own] = made[name + own] * made[name + own].dtype.type(factor)
    return made
