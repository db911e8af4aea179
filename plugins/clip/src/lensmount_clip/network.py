"""CLIP's image towers: Vision Transformer and modified ResNet (Radford et al. 2021, arXiv:2103.00020).

Parameters bear the names of OpenAI's state dicts, with each BatchNorm folded into its convolution.
"""

from __future__ import annotations

from collections.abc import Sequence

from lensmount_networks import ops
from lensmount_networks.layers import Conv2d, Layer, Linear, Sequential, Tensor, parameter
from lensmount_vision.towers.transformer import PatchTower, split_heads


class VisionTransformer(PatchTower):
    """Patches through a transformer, read at the class token."""

    def forward(self, images: Tensor) -> Tensor:
        """Pictures `(B, 3, R, R)` to embeddings `(B, D)`, not normalised."""
        x = self.tokens(images)
        return self.ln_post(self.transformer.read(x)) @ self.proj


class Bottleneck(Layer):
    """Residual block that shrinks by averaging before its last convolution, not by striding.

    Args:
        channels: Channels in.
        planes: Channels between; four times as many go out.
        stride: 1 or 2.
    """

    def __init__(self, channels: int, planes: int, stride: int) -> None:
        self.conv1 = Conv2d(channels, planes, 1)
        self.conv2 = Conv2d(planes, planes, 3, padding=1)
        self.conv3 = Conv2d(planes, planes * 4, 1)
        self.stride = stride
        self.downsample = Sequential(Conv2d(channels, planes * 4, 1)) if stride > 1 or channels != planes * 4 else None

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` to `(B, 4P, H/stride, W/stride)`."""
        y = ops.relu(self.conv2(ops.relu(self.conv1(x))))
        if self.stride > 1:
            y = ops.avg_pool2d(y, self.stride)
        y = self.conv3(y)
        if self.downsample is not None:
            x = self.downsample(ops.avg_pool2d(x, self.stride) if self.stride > 1 else x)
        return ops.relu(x + y)


class AttentionPool(Layer):
    """Attention of the mean over all positions: the ResNet's last layer.

    Args:
        positions: Positions of the feature map, plus one for the mean.
        width: Channels.
        heads: Heads.
        dimension: Length of the embedding.
    """

    def __init__(self, positions: int, width: int, heads: int, dimension: int) -> None:
        self.heads = heads
        self.positional_embedding = parameter(positions, width)
        self.q_proj = Linear(width, width)
        self.k_proj = Linear(width, width)
        self.v_proj = Linear(width, width)
        self.c_proj = Linear(width, dimension)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` to `(B, D)`."""
        x = x.flatten(2).transpose(1, 2)
        x = ops.concat((x.mean(1, keepdim=True), x), 1) + self.positional_embedding
        q, k, v = (split_heads(t, self.heads) for t in (self.q_proj(x[:, :1]), self.k_proj(x), self.v_proj(x)))
        return self.c_proj(ops.attention(q, k, v).transpose(1, 2).flatten(2))[:, 0]


class ModifiedResNet(Layer):
    """ResNet with a stem of three convolutions, averaging instead of strides, and attention pooling.

    Args:
        resolution: Pixels of a side of the square input.
        blocks: Blocks in each of the four stages.
        width: Channels of the stem.
        heads: Heads of the pooling.
        dimension: Length of the embedding.
    """

    def __init__(self, *, resolution: int, blocks: Sequence[int], width: int, heads: int, dimension: int) -> None:
        self.conv1 = Conv2d(3, width // 2, 3, stride=2, padding=1)
        self.conv2 = Conv2d(width // 2, width // 2, 3, padding=1)
        self.conv3 = Conv2d(width // 2, width, 3, padding=1)
        channels = width
        for number, count in enumerate(blocks):
            planes = width << number
            strides = [2 if number else 1] + [1] * (count - 1)
            stage = []
            for stride in strides:
                stage.append(Bottleneck(channels, planes, stride))
                channels = planes * 4
            setattr(self, f"layer{number + 1}", Sequential(*stage))
        self.attnpool = AttentionPool((resolution // 32) ** 2 + 1, channels, heads, dimension)

    def forward(self, images: Tensor) -> Tensor:
        """Pictures `(B, 3, R, R)` to embeddings `(B, D)`, not normalised."""
        x = ops.relu(self.conv3(ops.relu(self.conv2(ops.relu(self.conv1(images))))))
        x = ops.avg_pool2d(x, 2)
        for number in range(1, 5):
            x = getattr(self, f"layer{number}")(x)
        return self.attnpool(x)
