"""The mask head: one low-resolution map of logits per query. Maps are kept channels-last, `(B, H, W, C)`."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from lensmount_rfdetr.layout import Layout


class MaskBlock(nn.Module):
    """Depthwise convolution, LayerNorm, product, GELU, around a residual."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.norm = nn.LayerNorm(hidden, eps=1e-6)
        self.pwconv = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """A map `(B, h, w, C)` to a map."""
        h = self.dwconv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x + F.gelu(self.pwconv(self.norm(h)))


class MaskHead(nn.Module):
    """Upsampled features against the decoder's last queries.

    The projections of queries and of features, and the biases, are one product on the queries (see `weights`): the
    map itself, which is twenty times larger, is not projected.
    """

    def __init__(self, layout: Layout, size: tuple[int, int]) -> None:
        super().__init__()
        hidden = layout.hidden
        self.size = (size[0] // layout.mask_ratio, size[1] // layout.mask_ratio)
        self.blocks = nn.ModuleList(MaskBlock(hidden) for _ in range(layout.mask_blocks))
        self.norm = nn.LayerNorm(hidden)
        self.fc1 = nn.Linear(hidden, 4 * hidden)
        self.fc2 = nn.Linear(4 * hidden, hidden)
        self.project = nn.Linear(hidden, hidden + 1)

    def forward(self, features: Tensor, queries: Tensor) -> Tensor:
        """Features `(B, h, w, C)` and queries `(B, Q, C)` to logits `(B, Q, H / ratio, W / ratio)`."""
        x = F.interpolate(features.permute(0, 3, 1, 2), size=self.size, mode="bilinear", align_corners=False)
        x = x.permute(0, 2, 3, 1)
        for block in self.blocks:
            x = block(x)
        q = self.project(queries + self.fc2(F.gelu(self.fc1(self.norm(queries)))))
        logits = q[..., :-1] @ x.flatten(1, 2).transpose(1, 2) + q[..., -1:]
        out: Tensor = logits.unflatten(2, self.size)
        return out
