"""Attention blocks of v10, 11, 12 and 26.

Self-attention over the cells of a feature map (Wang et al., "YOLOv10", 2024), and area attention, which attends within
equal stretches of the map (Tian et al., "YOLOv12: Attention-Centric Real-Time Object Detectors", 2025).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lensmount_networks import Layer, ops
from lensmount_networks.layers import Layers, Tensor, parameter
from lensmount_reading import printable
from lensmount_yolo.networks.base import Block, halves


def _count(settings: Mapping[str, Any], name: str) -> int:
    value = settings.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 4096:
        raise ValueError(f"{name} should be a number of at least 1, not {printable(value)}")
    return value


class Attention(Block):
    """Multi-head self-attention with a depthwise convolution of the values as positional encoding."""

    qkv: Layer
    proj: Layer
    pe: Layer

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Numbers of heads and of channels per head; keys are narrower than values."""
        self.heads = _count(settings, "num_heads")
        self.key = _count(settings, "key_dim")
        self.value = _count(settings, "head_dim")

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape of `x`."""
        batch, _, height, width = x.shape
        channels = self.heads * self.value
        packed = self.qkv(x).reshape(batch, self.heads, 2 * self.key + self.value, height * width)
        query, key, value = packed.split([self.key, self.key, self.value], 2)
        weights = ops.softmax((query.transpose(2, 3) @ key) * self.key**-0.5, 3)
        mixed = (value @ weights.transpose(2, 3)).reshape(batch, channels, height, width)
        return self.proj(mixed + self.pe(value.reshape(batch, channels, height, width)))


class PSABlock(Block):
    """Attention, then two 1x1 convolutions, each with a residual."""

    attn: Layer
    ffn: Layer

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Without `add` there are no residuals."""
        self.add = bool(settings.get("add", True))

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape of `x`."""
        x = x + self.attn(x) if self.add else self.attn(x)
        out = self.ffn(x)
        return x + out if self.add else out


class PSA(Block):
    """Partial self-attention: half the channels pass through attention and two convolutions."""

    cv1: Layer
    cv2: Layer
    attn: Layer
    ffn: Layer

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape of `x`."""
        kept, seen = halves(self.cv1(x))
        seen = seen + self.attn(seen)
        seen = seen + self.ffn(seen)
        return self.cv2(ops.concat((kept, seen), 1))


class C2PSA(Block):
    """Half the channels pass through a chain of `PSABlock`s."""

    cv1: Layer
    cv2: Layer
    m: Layer

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape of `x`."""
        kept, seen = halves(self.cv1(x))
        return self.cv2(ops.concat((kept, self.m(seen)), 1))


class AAttn(Block):
    """Area attention: the cells, row by row, are cut into `area` equal stretches that attend within themselves.

    Files of the authors' own code have one convolution for queries and keys (`qk`) and one for values (`v`); others
    have one for all three (`qkv`), with the three of each head side by side.
    """

    optional = ("qkv",)
    qkv: Layer | None
    qk: Layer
    v: Layer
    proj: Layer
    pe: Layer

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Numbers of stretches, of heads and of channels per head."""
        self.area = _count(settings, "area")
        self.heads = _count(settings, "num_heads")
        self.width = _count(settings, "head_dim")

    def _projected(self, x: Tensor) -> list[Tensor]:
        """Queries, keys and values, each `(B * area, heads, width, cells / area)`."""
        batch, cells = x.shape[0], x.shape[2] * x.shape[3]

        def tokens(packed: Tensor, groups: int, width: int) -> Tensor:
            stretches = packed.flatten(2).transpose(1, 2)
            return stretches.reshape(batch * self.area, cells // self.area, groups, width).permute(0, 2, 3, 1)

        if self.qkv is not None:
            return list(tokens(self.qkv(x), self.heads, 3 * self.width).split([self.width] * 3, 2))
        both = tokens(self.qk(x), 2 * self.heads, self.width).split([self.heads] * 2, 1)
        return [*both, tokens(self.v(x), self.heads, self.width)]

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape of `x`; its number of cells must be a multiple of `area`."""
        batch, _, rows, columns = x.shape
        channels = self.heads * self.width
        query, key, value = self._projected(x)
        weights = ops.softmax((query.transpose(2, 3) @ key) * self.width**-0.5, 3)
        mixed = (value @ weights.transpose(2, 3)).permute(0, 3, 1, 2)

        def as_map(tokens: Tensor) -> Tensor:
            return tokens.reshape(batch, rows, columns, channels).permute(0, 3, 1, 2)

        return self.proj(as_map(mixed) + self.pe(as_map(value.permute(0, 3, 1, 2))))


class ABlock(Block):
    """Area attention, then two 1x1 convolutions, each with a residual."""

    attn: Layer
    mlp: Layer

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape of `x`."""
        x = x + self.attn(x)
        return x + self.mlp(x)


class A2C2f(Block):
    """Aggregation of stages of area attention, as in `C2f`; with a learned residual where the file has one."""

    cv1: Layer
    cv2: Layer
    m: Layers
    gamma: Tensor | None

    def configure(self, settings: Mapping[str, Any]) -> None:
        """`gamma` is the number of learned gains, or None."""
        absent = settings.get("gamma") is None
        self.gamma = None if absent else parameter(_count(settings, "gamma"))

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the size of `x`."""
        kept = [self.cv1(x)]
        for stage in self.m:
            kept.append(stage(kept[-1]))
        out = self.cv2(ops.concat(kept, 1))
        return out if self.gamma is None else x + self.gamma.reshape(1, -1, 1, 1) * out
