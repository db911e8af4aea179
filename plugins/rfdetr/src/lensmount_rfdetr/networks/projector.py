"""The projector: features of the backbone to feature levels. Maps are kept channels-last, `(B, H, W, C)`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from lensmount_networks import Layer, ops
from lensmount_networks.layers import Conv2d, ConvTranspose2d, LayerNorm, Layers, Sequential, Tensor
from lensmount_rfdetr.layout import Layout


class ConvNorm(Layer):
    """A convolution without bias, LayerNorm over channels, activation.

    Args:
        inputs: Channels of a map.
        outputs: Channels of the result.
        eps: Of the norm.
        kernel: Side of the kernel.
        stride: Of the convolution.
        relu: ReLU instead of SiLU.
    """

    def __init__(
        self, inputs: int, outputs: int, eps: float, kernel: int = 3, stride: int = 1, relu: bool = False
    ) -> None:
        self.conv = Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.bn = LayerNorm(outputs, eps)  # the authors' name for it
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """A map `(B, h, w, inputs)` to a map."""
        # Channels first: as fast on a CPU as channels last, at half the rounding error.
        x = self.bn(self.conv(ops.contiguous(x.permute(0, 3, 1, 2))).permute(0, 2, 3, 1))
        return ops.relu(x) if self.relu else ops.silu(x)

    def mix(self, maps: Sequence[Tensor]) -> Tensor:
        """The same, with a kernel of one pixel, of maps side by side: one product per map, added up.

        The maps are not copied together, and shorter sums round less.
        """
        weight, ends = self.conv.weight.flatten(1), list(accumulate(part.shape[-1] for part in maps))
        total = ops.linear(maps[0], weight[:, : ends[0]])
        for part, start, end in zip(maps[1:], ends, ends[1:], strict=False):
            total = total + ops.linear(part, weight[:, start:end])
        return ops.silu(self.bn(total))


class Bottleneck(Layer):
    """Two convolutions."""

    def __init__(self, width: int, eps: float) -> None:
        self.cv1 = ConvNorm(width, width, eps)
        self.cv2 = ConvNorm(width, width, eps)

    def forward(self, x: Tensor) -> Tensor:
        """A map `(B, h, w, width)` to a map."""
        return self.cv2(self.cv1(x))


class C2f(Layer):
    """Bottlenecks one behind the other, of whose results all are used."""

    def __init__(self, layout: Layout, width: int) -> None:
        self.branch, eps = layout.hidden // 2, layout.projector_eps
        self.cv1 = ConvNorm(width * len(layout.stages), 2 * self.branch, eps, 1)
        self.cv2 = ConvNorm((2 + layout.bottlenecks) * self.branch, layout.hidden, eps, 1)
        self.m = Layers(Bottleneck(self.branch, eps) for _ in range(layout.bottlenecks))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Features at one scale, side by side, to a map `(B, h, w, hidden)`."""
        x = self.cv1.mix(features)
        parts = [x]
        x = x[..., self.branch :]
        for bottleneck in self.m:
            x = bottleneck(x)
            parts.append(x)
        return self.cv2.mix(parts)


class Upsample(ConvTranspose2d):
    """Twice the side, half the channels."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width // 2, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        """A map `(B, h, w, width)` to a map."""
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Projector(Layer):
    """Feature levels, each a C2f block and a LayerNorm on features at the level's scale."""

    def __init__(self, layout: Layout) -> None:
        width, eps, taps = layout.width, layout.projector_eps, len(layout.stages)
        self.stages_sampling = Layers(
            Layers(
                Sequential(Upsample(width) if scale == 2.0 else ConvNorm(width, width, eps, 3, 2, relu=True))
                for _ in range(0 if scale == 1.0 else taps)
            )
            for scale in layout.levels
        )
        self.stages = Layers(
            Layers([C2f(layout, width // 2 if scale == 2.0 else width), LayerNorm(layout.hidden, 1e-6)])
            for scale in layout.levels
        )

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Features of each used stage `(B, rows, columns, width)` to maps `(B, h, w, hidden)`."""
        maps = []
        for sampling, (block, norm) in zip(self.stages_sampling, self.stages, strict=True):
            parts = [part(x) for part, x in zip(sampling, features, strict=True)] if len(sampling) else features
            maps.append(norm(block(parts)))
        return maps
