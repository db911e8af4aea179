"""Pre-norm transformer blocks, CLIP's text tower, and the base of image towers that cut images into patches.

Parameters bear the names of OpenAI's state dicts, which open_clip and Meta kept. For inference alone: no dropout and no
gradients. Two things make them faster than the reference and leave the results as they are:

* the last block computes queries and its MLP only for the token that is read (`only`), since nothing else leaves it;
* `quick_gelu`, x * sigmoid(1.702 x), runs as the fused SiLU on weights scaled by 1.702 (`fold_quick_gelu`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation = Literal["quick_gelu", "gelu"]
QUICK_GELU = 1.702


class Attention(nn.Module):
    """Multi-head self-attention with one projection for queries, keys and values.

    Args:
        width: Channels.
        heads: Heads; divides `width`.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)

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
            q, k, v = F.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        else:
            q = F.linear(only, self.in_proj_weight[:width], self.in_proj_bias[:width])
            k, v = F.linear(x, self.in_proj_weight[width:], self.in_proj_bias[width:]).chunk(2, dim=-1)
        q, k, v = (split_heads(t, self.heads) for t in (q, k, v))
        if rope is not None:
            q, k = _rotate(q, *rope), _rotate(k, *rope)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal and only is None)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out


def split_heads(x: Tensor, heads: int) -> Tensor:
    """`(B, L, W)` to `(B, heads, L, W / heads)`."""
    return x.reshape(x.shape[0], x.shape[1], heads, x.shape[2] // heads).transpose(1, 2)


def _rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cosines - second * sines, second * cosines + first * sines), dim=-1)


class Mlp(nn.Module):
    """Two layers with a GELU between.

    Args:
        width: Channels in and out.
        hidden: Channels between.
        activation: `gelu`, or `quick_gelu` on weights that `fold_quick_gelu` has scaled.
    """

    def __init__(self, width: int, hidden: int, activation: Activation) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, hidden)
        self.c_proj = nn.Linear(hidden, width)
        self.quick = activation == "quick_gelu"

    def forward(self, x: Tensor) -> Tensor:
        """`(…, W)` to `(…, W)`."""
        x = self.c_fc(x)
        x = F.silu(x) if self.quick else F.gelu(x)
        out: Tensor = self.c_proj(x)
        return out


class Block(nn.Module):
    """Attention and MLP, each behind a LayerNorm and around a residual.

    Args:
        width: Channels.
        heads: Heads.
        hidden: Channels in the MLP.
        activation: See `Mlp`.
    """

    def __init__(self, width: int, heads: int, hidden: int, activation: Activation) -> None:
        super().__init__()
        self.attn = Attention(width, heads)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = Mlp(width, hidden, activation)
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x: Tensor, *, causal: bool = False, rope: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """`(B, L, W)` to `(B, L, W)`; see `Attention.forward`."""
        x = x + self.attn(self.ln_1(x), causal=causal, rope=rope)
        out: Tensor = x + self.mlp(self.ln_2(x))
        return out

    def read(self, x: Tensor, index: Tensor, mask: Tensor | None = None) -> Tensor:
        """The block's output at one token of each row alone.

        Args:
            x: `(B, L, W)`.
            index: int64 `(B,)`: which token.
            mask: Bool `(B, 1, 1, L)`: what that token sees; None for everything.

        Returns:
            `(B, W)`.
        """
        rows = index[:, None, None].expand(-1, 1, x.shape[-1])
        normed = self.ln_1(x)
        token = x.gather(1, rows) + self.attn(normed, only=normed.gather(1, rows), mask=mask)
        out: Tensor = (token + self.mlp(self.ln_2(token)))[:, 0]
        return out


class Transformer(nn.Module):
    """A stack of blocks.

    Args:
        width: Channels.
        layers: Blocks.
        heads: Heads.
        hidden: Channels in the MLPs.
        activation: See `Mlp`.
    """

    def __init__(self, width: int, layers: int, heads: int, hidden: int, activation: Activation) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width, heads, hidden, activation) for _ in range(layers))

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """All tokens: `(B, L, W)`."""
        for block in self.resblocks:
            x = block(x, rope=rope)
        return x

    def read(self, x: Tensor, index: Tensor, *, causal: bool = False) -> Tensor:
        """One token of each row after the last block: `(B, W)`."""
        for block in self.resblocks[:-1]:
            x = block(x, causal=causal)
        mask = None
        if causal:
            positions = torch.arange(x.shape[1], device=x.device)
            mask = (positions <= index[:, None])[:, None, None]
        last = cast(Block, self.resblocks[-1])
        return last.read(x, index, mask)


class TextTower(nn.Module):
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
        super().__init__()
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.positional_embedding = nn.Parameter(torch.empty(context, width))
        self.transformer = Transformer(width, layers, heads, hidden, activation)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.empty(width, dimension))

    def forward(self, tokens: Tensor) -> Tensor:
        """int64 tokens `(B, L)`, the end token being the highest id, to embeddings `(B, D)`, not normalised."""
        x = self.token_embedding(tokens) + self.positional_embedding[: tokens.shape[1]]
        pooled = self.transformer.read(x, tokens.argmax(dim=-1), causal=True)
        out: Tensor = self.ln_final(pooled) @ self.text_projection
        return out


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


class PatchTower(nn.Module):
    """Image tower up to its last LayerNorm; a subclass says how tokens become one vector.

    Args:
        sizes: Of the tower.
        activation: See `Mlp`.
    """

    def __init__(self, sizes: PatchSizes, activation: Activation) -> None:
        super().__init__()
        width = sizes.width
        self.conv1 = nn.Conv2d(3, width, sizes.patch, sizes.patch, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width)) if sizes.class_token else None
        self.positional_embedding = nn.Parameter(torch.empty(sizes.tokens, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, sizes.layers, sizes.heads, sizes.hidden, activation)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.empty(width, sizes.dimension))

    def tokens(self, images: Tensor) -> Tensor:
        """Images `(B, 3, R, R)` to what the transformer takes, `(B, L, W)`, the class token first."""
        x = self.conv1(images).flatten(2).transpose(1, 2)
        if self.class_embedding is not None:
            x = torch.cat((self.class_embedding.expand(x.shape[0], 1, -1), x), dim=1)
        out: Tensor = self.ln_pre(x + self.positional_embedding)
        return out


def fold_quick_gelu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Scales the MLPs of a state dict for `quick_gelu` in `Mlp`: silu(1.702 x) / 1.702 = x sigmoid(1.702 x)."""
    factors = {".mlp.c_fc.weight": QUICK_GELU, ".mlp.c_fc.bias": QUICK_GELU, ".mlp.c_proj.weight": 1 / QUICK_GELU}
    return {
        name: next((tensor * factor for ending, factor in factors.items() if name.endswith(ending)), tensor)
        for name, tensor in tensors.items()
    }


def set_epsilon(module: nn.Module, epsilon: float) -> nn.Module:
    """Sets what all LayerNorms of a module add to the variance, and returns the module."""
    for part in module.modules():
        if isinstance(part, nn.LayerNorm):
            part.eps = epsilon
    return module


def load_module(build: Callable[[], nn.Module], tensors: Mapping[str, Tensor]) -> nn.Module:
    """Builds a module on the tensors of a state dict, without filling it at random first, in eval mode.

    Raises:
        RuntimeError: Names or shapes do not fit, as `load_state_dict` says.
    """
    with torch.device("meta"):
        module = build()
    module.load_state_dict(dict(tensors), assign=True)
    return module.eval().requires_grad_(False)
