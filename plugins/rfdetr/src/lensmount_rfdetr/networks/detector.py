"""The whole network: pictures to boxes, class logits and, for segmentation, mask logits."""

from __future__ import annotations

from typing import Any

import numpy as np

from lensmount_networks import Layer, ops
from lensmount_networks.layers import Embedding, LayerNorm, Layers, Linear, Tensor, constant
from lensmount_rfdetr.layout import Layout
from lensmount_rfdetr.networks.backbone import Backbone
from lensmount_rfdetr.networks.decoder import MLP, Decoder, refine
from lensmount_rfdetr.networks.masks import MaskHead
from lensmount_rfdetr.networks.projector import Projector

_LOW, _HIGH = 0.01, 0.99  # first-stage boxes outside are left out


class Encoder(Layer):
    """The backbone under the authors' name."""

    def __init__(self, layout: Layout, size: tuple[int, int], training: bool) -> None:
        self.encoder = Backbone(layout, size, training)


class Features(Layer):
    """Backbone and projector."""

    def __init__(self, layout: Layout, size: tuple[int, int], training: bool) -> None:
        self.encoder = Encoder(layout, size, training)
        self.projector = Projector(layout)

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """Pictures `(B, 3, H, W)` to maps `(B, h, w, hidden)`."""
        found: list[Tensor] = self.projector(self.encoder.encoder(pictures))
        return found


class Transformer(Layer):
    """The first stage, which finds the cells that queries start from, and the decoder.

    Args:
        layout: The network's sizes.
        shapes: Rows and columns of each map.
        groups: Groups of queries, each with a first stage of its own.
    """

    def __init__(self, layout: Layout, shapes: tuple[tuple[int, int], ...], groups: int) -> None:
        hidden = layout.hidden
        self.decoder = Decoder(layout, shapes)
        self.enc_output = Layers(Linear(hidden, hidden) for _ in range(groups))
        self.enc_output_norm = Layers(LayerNorm(hidden) for _ in range(groups))
        self.enc_out_class_embed = Layers(Linear(hidden, layout.columns) for _ in range(groups))
        self.enc_out_bbox_embed = Layers(MLP(hidden, hidden, hidden, 4) for _ in range(groups))
        self.first = min(layout.queries, sum(h * w for h, w in shapes))
        cells, sizes = anchors(shapes)
        # Whole numbers: casting the network leaves those alone.
        self.cells, self.sizes = constant(cells), constant(sizes)
        boxes = np.concatenate((_centres(cells, sizes), 0.05 * sizes[:, 2:].repeat(2, 1)), 1)
        valid = np.asarray(((boxes > _LOW) & (boxes < _HIGH)).all(1, keepdims=True))
        self.valid = None if valid.all() else constant(valid)

    def first_stage(self, memory: Tensor, group: int = 0) -> tuple[Tensor, Tensor]:
        """The cells of the best class scores.

        Args:
            memory: Maps `(B, cells, C)`.
            group: Of queries.

        Returns:
            Boxes `(B, first, 4)` cxcywh, and the cells' features `(B, first, C)`.
        """
        sizes = ops.cast(self.sizes, "float32")
        places = ops.concat(((ops.cast(self.cells, "float32") + 0.5) / sizes[:, :2], sizes[:, 2:] * 0.05), 1)
        places = ops.concat((places, places[:, 2:]), 1)
        seen = memory
        if self.valid is not None:
            # Cells too near the border take part as blanks.
            seen, places = ops.where(self.valid, memory, 0.0), ops.where(self.valid, places, 0.0)
        encoded = self.enc_output_norm[group](self.enc_output[group](seen))
        scores = self.enc_out_class_embed[group](encoded)
        _, best = ops.topk(scores.amax(-1), self.first, 1)
        chosen = ops.gather(encoded, 1, best[..., None].expand(-1, -1, encoded.shape[2]))
        boxes = refine(ops.embedding(best, places), self.enc_out_bbox_embed[group](chosen))
        return boxes, chosen


def anchors(shapes: tuple[tuple[int, int], ...]) -> tuple[Any, Any]:
    """One cell of each place of each map: column and row `(N, 2)`; columns, rows and scale of its map `(N, 3)`."""
    cells, sizes = [], []
    for level, (rows, columns) in enumerate(shapes):
        y, x = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
        cells.append(np.stack((x, y), -1).reshape(-1, 2))
        sizes.append(np.tile(np.array([[columns, rows, 2**level]]), (rows * columns, 1)))
    return np.concatenate(cells), np.concatenate(sizes)


def _centres(cells: Any, sizes: Any) -> Any:
    return (cells.astype(np.float32) + np.float32(0.5)) / sizes[:, :2].astype(np.float32)


class RFDETR(Layer):
    """RF-DETR at one input size. Parts and parameters bear the names of the authors' checkpoints.

    Args:
        layout: The network's sizes.
        size: Input `(height, width)` in pixels, multiples of `layout.divisor`.
        training: Whether it has the parts that only training needs: all groups of queries, and layer scales apart
            from the products before them. In train mode it gives what losses take; see `train_forward`.
    """

    def __init__(self, layout: Layout, size: tuple[int, int], *, training: bool = False) -> None:
        rows, columns = size[0] // layout.patch, size[1] // layout.patch
        # Halved by a convolution with stride 2, which rounds up.
        shapes = tuple((-int(-rows * scale // 1), -int(-columns * scale // 1)) for scale in layout.levels)
        hidden = layout.hidden
        self.queries = layout.queries
        self.groups = layout.groups if training else 1
        self.backbone = Layers([Features(layout, size, training)])
        self.transformer = Transformer(layout, shapes, self.groups)
        self.query_feat = Embedding(self.groups * layout.queries, hidden)
        self.refpoint_embed = Embedding(self.groups * layout.queries, 4)
        self.class_embed = Linear(hidden, layout.columns)
        self.bbox_embed = MLP(hidden, hidden, hidden, 4)
        self.segmentation_head = MaskHead(layout, size) if layout.mask_blocks else None

    def forward(self, pictures: Tensor) -> Any:
        """Runs the network.

        Args:
            pictures: `(B, 3, H, W)`, RGB, normalised.

        Returns:
            Boxes `(B, Q, 4)` cxcywh as fractions of the input, float32; class logits `(B, Q, columns)`; and for
            segmentation mask logits `(B, Q, H / ratio, W / ratio)`. In train mode, see `train_forward`.
        """
        if self.training:
            return self.train_forward(pictures)
        maps, memory = self._features(pictures)
        found, _ = self.transformer.first_stage(memory)
        boxes, layers = self._decoded(memory, found, 1)
        queries = self.transformer.decoder.norm(layers[-1])
        outputs = (refine(boxes, self.bbox_embed(queries)), self.class_embed(queries))
        masks = self.segmentation_head
        return outputs if masks is None else (*outputs, masks(maps[0], queries))

    def train_forward(self, pictures: Tensor) -> dict[str, Any]:
        """All that losses take, on torch tensors, as the authors' network gives it.

        Args:
            pictures: `(B, 3, H, W)`, RGB, normalised.

        Returns:
            `pred_logits` `(B, groups * Q, columns)`, `pred_boxes` `(B, groups * Q, 4)` and, for segmentation,
            `pred_masks`: `spatial_features` `(B, C, h, w)`, `query_features` `(B, groups * Q, C)` and `bias`, whose
            product is the logits; `aux_outputs`, the same of each layer before the last; `enc_outputs`, the same of
            the first stage.
        """
        maps, memory = self._features(pictures)
        stages = [self.transformer.first_stage(memory, group) for group in range(self.groups)]
        found, chosen = (ops.concat([stage[i] for stage in stages], 1) for i in (0, 1))
        boxes, layers = self._decoded(memory, found.detach(), self.groups)
        layers = [self.transformer.decoder.norm(queries) for queries in layers]
        logits = [
            head(part)
            for head, part in zip(self.transformer.enc_out_class_embed, chosen.chunk(self.groups, 1), strict=True)
        ]
        made = [{"pred_logits": self.class_embed(q), "pred_boxes": refine(boxes, self.bbox_embed(q))} for q in layers]
        first = {"pred_logits": ops.concat(logits, 1), "pred_boxes": found}
        if self.segmentation_head is not None:
            masks = self.segmentation_head.sparse(maps[0], layers, blocks=True)
            made = [{**part, "pred_masks": own} for part, own in zip(made, masks, strict=True)]
            first["pred_masks"] = self.segmentation_head.sparse(maps[0], [chosen], blocks=False)[0]
        return {**made[-1], "aux_outputs": made[:-1], "enc_outputs": first}

    def _features(self, pictures: Tensor) -> tuple[list[Tensor], Tensor]:
        maps = self.backbone[0](pictures)
        flat = [level.flatten(1, 2) for level in maps]
        return maps, flat[0] if len(flat) == 1 else ops.concat(flat, 1)

    def _decoded(self, memory: Tensor, found: Tensor, groups: int) -> tuple[Tensor, list[Tensor]]:
        """The boxes that queries start from, and the queries after each layer."""
        batch, count = memory.shape[0], groups * self.queries
        # Where there are fewer cells than queries, the others start from boxes of their own.
        first, table = groups * self.transformer.first, self.refpoint_embed.weight[:count]
        boxes = refine(found, table[:first])
        if first < count:
            rest = ops.cast(table[first:], "float32")[None].expand(batch, -1, -1)
            boxes = ops.concat((boxes, rest), 1)
        queries = self.query_feat.weight[:count][None].expand(batch, -1, -1)
        return boxes, self.transformer.decoder(queries, boxes, memory, groups)
