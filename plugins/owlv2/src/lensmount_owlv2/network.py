"""OWLv2's image tower, on the transformer blocks that CLIP and others share, for torch and for ONNX.

Own networks rather than transformers' classes: see the decisions in CONTRIBUTING.md. Structure and constants are those
of the paper's code (scenic, `owl_vit`) as transformers' weights hold them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lensmount_networks import ops
from lensmount_networks.layers import Conv2d, Layer, LayerNorm, Linear, Tensor, constant, parameter
from lensmount_vision.towers.transformer import Activation, Transformer

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Added to a box's bias before the logarithm, as in the reference.
_TINY = 1e-4


class Head(Layer):
    """Three layers with GELUs between: boxes, objectness.

    Args:
        width: Channels in.
        outputs: Channels out.
    """

    def __init__(self, width: int, outputs: int) -> None:
        self.dense0 = Linear(width, width)
        self.dense1 = Linear(width, width)
        self.dense2 = Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """`(…, W)` to `(…, outputs)`."""
        x = ops.gelu(self.dense0(x))
        x = ops.gelu(self.dense1(x))
        return self.dense2(x)


class ClassHead(Layer):
    """Embedding of each patch's object, and how its logits are shifted and scaled.

    Args:
        width: Channels in.
        dimension: Length of an embedding.
    """

    def __init__(self, width: int, dimension: int) -> None:
        self.dense0 = Linear(width, dimension)
        self.logit_shift = Linear(width, 1)
        self.logit_scale = Linear(width, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`(B, P, W)` to embeddings `(B, P, D)`, shifts `(B, P)` and scales `(B, P)`, the latter above 0."""
        scale = ops.elu(self.logit_scale(x)[..., 0]) + 1
        return self.dense0(x), self.logit_shift(x)[..., 0], scale


class ImageTower(Layer):
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
        self.patch_embedding = Conv2d(3, width, patch, stride=patch, bias=False)
        self.class_embedding = parameter(width)
        self.position_embedding = parameter(side * side + 1, width)
        self.pre_layernorm = LayerNorm(width)
        self.transformer = Transformer(width, layers, heads, hidden, activation)
        self.post_layernorm = LayerNorm(width)
        self.layer_norm = LayerNorm(width)
        self.class_head = ClassHead(width, dimension)
        self.box_head = Head(width, 4)
        self.objectness_head = Head(width, 1)
        self.box_bias = constant(box_bias(side))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Proposals of pictures.

        Args:
            images: float `(B, 3, S, S)`.

        Returns:
            Objectness logits `(B, P)`; boxes `(B, P, 4)` centre x, y, width, height as shares of the square's side;
            class embeddings `(B, P, D)`, not normalised; logit shifts `(B, P)`; logit scales `(B, P)`.
        """
        x = self.patch_embedding(images).flatten(2).transpose(1, 2)
        first = self.class_embedding.reshape(1, 1, -1).expand(x.shape[0], -1, -1)
        x = ops.concat((first, x), 1) + self.position_embedding
        x = self.post_layernorm(self.transformer(self.pre_layernorm(x)))
        x = self.layer_norm(x[:, 1:] * x[:, :1])
        boxes = ops.sigmoid(self.box_head(x) + self.box_bias)
        return self.objectness_head(x)[..., 0], boxes, *self.class_head(x)


def box_bias(side: int) -> NDArray[Any]:
    """Logits of the boxes that a head of zeros gives: one patch in size, at its patch's lower right corner.

    Args:
        side: Patches on a side.

    Returns:
        float32 `(side * side, 4)`.
    """
    steps = np.arange(1, side + 1, dtype=np.float32) / np.float32(side)
    rows, columns = np.meshgrid(steps, steps, indexing="ij")
    corners = np.stack((columns, rows), axis=-1).reshape(-1, 2)
    values = np.concatenate((corners, np.full_like(corners, 1.0 / side)), axis=-1)
    made: NDArray[Any] = np.log(values + np.float32(_TINY)) - np.log1p(-values + np.float32(_TINY))
    return made
