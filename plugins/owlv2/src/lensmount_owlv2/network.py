"""OWLv2's two towers in torch, on the transformer blocks that CLIP and others share.

Own modules rather than transformers' classes: see the decisions in CONTRIBUTING.md. Structure and constants are those
of the paper's code (scenic, `owl_vit`) as transformers' weights hold them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lensmount_vision.towers.transformer import Activation, Transformer

#: Added to a box's bias before the logarithm, as in the reference.
_TINY = 1e-4


class Head(nn.Module):
    """Three layers with GELUs between: boxes, objectness.

    Args:
        width: Channels in.
        outputs: Channels out.
    """

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.dense0 = nn.Linear(width, width)
        self.dense1 = nn.Linear(width, width)
        self.dense2 = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """`(…, W)` to `(…, outputs)`."""
        x = nn.functional.gelu(self.dense0(x))
        x = nn.functional.gelu(self.dense1(x))
        out: Tensor = self.dense2(x)
        return out


class ClassHead(nn.Module):
    """Embedding of each patch's object, and how its logits are shifted and scaled.

    Args:
        width: Channels in.
        dimension: Length of an embedding.
    """

    def __init__(self, width: int, dimension: int) -> None:
        super().__init__()
        self.dense0 = nn.Linear(width, dimension)
        self.logit_shift = nn.Linear(width, 1)
        self.logit_scale = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`(B, P, W)` to embeddings `(B, P, D)`, shifts `(B, P)` and scales `(B, P)`, the latter above 0."""
        scale = nn.functional.elu(self.logit_scale(x)[..., 0]) + 1
        return self.dense0(x), self.logit_shift(x)[..., 0], scale


class ImageTower(nn.Module):
    """ViT with one proposal per patch.

    Args:
        side: Patches on a side.
        patch: Pixels on a patch's side.
        width: Channels.
        layers: Blocks.
        heads: Attention heads.
        hidden: Channels in the MLPs.
        dimension: Length of a class embedding.
        activation: Of the MLPs.
    """

    def __init__(
        self,
        *,
        side: int,
        patch: int,
        width: int,
        layers: int,
        heads: int,
        hidden: int,
        dimension: int,
        activation: Activation,
    ) -> None:
        super().__init__()
        self.patch_embedding = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.position_embedding = nn.Parameter(torch.empty(side * side + 1, width))
        self.pre_layernorm = nn.LayerNorm(width)
        self.transformer = Transformer(width, layers, heads, hidden, activation)
        self.post_layernorm = nn.LayerNorm(width)
        self.layer_norm = nn.LayerNorm(width)
        self.class_head = ClassHead(width, dimension)
        self.box_head = Head(width, 4)
        self.objectness_head = Head(width, 1)
        self.box_bias = nn.Parameter(torch.empty(side * side, 4))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Proposals of pictures.

        Args:
            images: float `(B, 3, S, S)`.

        Returns:
            Objectness logits `(B, P)`; boxes `(B, P, 4)` centre x, y, width, height as shares of the square's side;
            class embeddings `(B, P, D)`, not normalised; logit shifts `(B, P)`; logit scales `(B, P)`.
        """
        x = self.patch_embedding(images).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(x.shape[0], 1, -1)
        x = torch.cat((first, x), dim=1) + self.position_embedding
        x = self.post_layernorm(self.transformer(self.pre_layernorm(x)))
        x = self.layer_norm(x[:, 1:] * x[:, :1])
        boxes = torch.sigmoid(self.box_head(x) + self.box_bias)
        return self.objectness_head(x)[..., 0], boxes, *self.class_head(x)


def box_bias(side: int) -> Tensor:
    """Logits of the boxes that a head of zeros gives: one patch in size, at its patch's lower right corner.

    Args:
        side: Patches on a side.

    Returns:
        float32 `(side * side, 4)`.
    """
    steps = torch.arange(1, side + 1, dtype=torch.float32) / side
    rows, columns = torch.meshgrid(steps, steps, indexing="ij")
    corners = torch.stack((columns, rows), dim=-1).reshape(-1, 2)
    sizes = torch.full_like(corners, 1.0 / side)
    values = torch.cat((corners, sizes), dim=-1)
    return torch.log(values + _TINY) - torch.log1p(-values + _TINY)
