"""The whole network: pictures to boxes, class logits and, for segmentation, mask logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lensmount_rfdetr.layout import Layout
from lensmount_rfdetr.networks.backbone import Backbone
from lensmount_rfdetr.networks.decoder import MLP, Decoder, refine
from lensmount_rfdetr.networks.masks import MaskHead
from lensmount_rfdetr.networks.projector import Stage

_LOW, _HIGH = 0.01, 0.99  # first-stage boxes outside are left out


class RFDETR(nn.Module):
    """RF-DETR for inference, at one input size.

    Args:
        layout: The network's sizes.
        size: Input `(height, width)` in pixels, multiples of `layout.divisor`.
    """

    cells: Tensor
    sizes: Tensor
    valid: Tensor | None

    def __init__(self, layout: Layout, size: tuple[int, int]) -> None:
        super().__init__()
        rows, columns = size[0] // layout.patch, size[1] // layout.patch
        # Halved by a convolution with stride 2, which rounds up.
        shapes = tuple((-int(-rows * scale // 1), -int(-columns * scale // 1)) for scale in layout.levels)
        hidden = layout.hidden
        self.backbone = Backbone(layout, size)
        self.projector = nn.ModuleList(Stage(layout, scale) for scale in layout.levels)
        self.enc_output = nn.Linear(hidden, hidden)
        self.enc_norm = nn.LayerNorm(hidden)
        self.enc_class = nn.Linear(hidden, layout.columns)
        self.enc_box = MLP(hidden, hidden, hidden, 4)
        self.query_feat = nn.Parameter(torch.empty(layout.queries, hidden))
        self.query_box = nn.Parameter(torch.empty(layout.queries, 4))
        self.decoder = Decoder(layout, shapes)
        self.class_embed = nn.Linear(hidden, layout.columns)
        self.box_embed = MLP(hidden, hidden, hidden, 4)
        self.masks = MaskHead(layout, size) if layout.mask_blocks else None
        self.queries = layout.queries
        self.first = min(layout.queries, sum(h * w for h, w in shapes))
        self._anchors(shapes)

    def _anchors(self, shapes: tuple[tuple[int, int], ...]) -> None:
        """First-stage boxes, one per cell, as whole numbers: casting the network leaves those alone."""
        with torch.device("cpu"):
            cells, sizes, sides = [], [], []
            for level, (rows, columns) in enumerate(shapes):
                y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
                cells.append(torch.stack((x, y), -1).reshape(-1, 2))
                sizes.append(torch.tensor([[columns, rows]]).expand(rows * columns, 2))
                sides.append(torch.full((rows * columns, 1), 2**level))
            self.register_buffer("cells", torch.cat(cells), persistent=False)
            self.register_buffer("sizes", torch.cat((torch.cat(sizes), torch.cat(sides)), 1), persistent=False)
            boxes = self._boxes()
            valid = ((boxes > _LOW) & (boxes < _HIGH)).all(-1, keepdim=True)
            self.register_buffer("valid", None if bool(valid.all()) else valid, persistent=False)

    def _boxes(self) -> Tensor:
        centres = (self.cells.float() + 0.5) / self.sizes[:, :2].float()
        return torch.cat((centres, (0.05 * self.sizes[:, 2:].float()).expand(-1, 2)), 1)

    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
        """Runs the network.

        Args:
            pictures: `(B, 3, H, W)`, RGB, normalised.

        Returns:
            Boxes `(B, Q, 4)` cxcywh as fractions of the input, float32; class logits `(B, Q, columns)`; and for
            segmentation mask logits `(B, Q, H / ratio, W / ratio)`.
        """
        features = self.backbone(pictures)
        maps = [stage(features) for stage in self.projector]
        flat = [level.flatten(1, 2) for level in maps]
        memory = flat[0] if len(flat) == 1 else torch.cat(flat, 1)
        boxes = self._first_stage(memory)
        queries = self.query_feat.expand(memory.shape[0], -1, -1)
        queries = self.decoder(queries, boxes, memory)
        outputs = (refine(boxes, self.box_embed(queries)), self.class_embed(queries))
        return outputs if self.masks is None else (*outputs, self.masks(maps[0], queries))

    def _first_stage(self, memory: Tensor) -> Tensor:
        """The cells of the best class scores, as boxes `(B, Q, 4)` cxcywh around which the queries start."""
        anchors = self._boxes()
        seen = memory
        if self.valid is not None:
            # Cells too near the border take part as blanks.
            seen, anchors = memory * self.valid, anchors * self.valid
        encoded = self.enc_norm(self.enc_output(seen))
        scores = self.enc_class(encoded).amax(-1)
        best = scores.topk(self.first, dim=1).indices
        chosen = encoded.gather(1, best.unsqueeze(-1).expand(-1, -1, encoded.shape[2]))
        found = refine(anchors[best], self.enc_box(chosen))
        moved = refine(found, self.query_box[: self.first])
        if self.first == self.queries:
            return moved
        rest = self.query_box[self.first :].float().expand(memory.shape[0], -1, -1)
        return torch.cat((moved, rest), 1)
