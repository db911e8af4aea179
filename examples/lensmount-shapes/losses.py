"""The training loss of an anchor-free YOLO with masks, from the papers.

- Assignment: task alignment (Feng et al., "TOOD", 2021): a cell suits an instance by score^alpha * IoU^beta.
- Classes: binary cross-entropy on targets softened by the alignment (TOOD).
- Boxes: complete IoU (Zheng et al., "Distance-IoU Loss", 2020) and distribution focal loss (Li et al., "Generalized
  Focal Loss", 2020).
- Masks: binary cross-entropy of prototypes times coefficients inside the box, divided by the box's area
  (Bolya et al., "YOLACT", 2019).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lensmount_yolo.networks.heads import RawOutputs, flatten_levels, sampling_points

ALPHA, BETA, TOP_K = 0.5, 6.0, 10
WEIGHTS = {"class": 1.0, "box": 6.0, "dfl": 1.5, "mask": 5.0}


@dataclass
class Targets:
    """The truth of a batch, padded to the largest number of instances M.

    Attributes:
        class_id: `(B, M)` int64.
        xyxy: `(B, M, 4)` in network pixels.
        masks: `(B, M, H / 4, W / 4)` shares of visible pixels in 0..1.
        valid: `(B, M)` bool; False is padding.
    """

    class_id: Tensor
    xyxy: Tensor
    masks: Tensor
    valid: Tensor


def complete_iou(a: Tensor, b: Tensor, plain: bool = False) -> Tensor:
    """IoU (`plain`) or complete IoU of xyxy boxes `(..., 4)`, which broadcast."""
    overlap = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    size_a, size_b = a[..., 2:] - a[..., :2], b[..., 2:] - b[..., :2]
    iou = overlap / (size_a.prod(-1) + size_b.prod(-1) - overlap + 1e-7)
    if plain:
        return iou
    hull = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    centres = ((a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2).pow(2).sum(-1)
    aspect = torch.atan(size_a[..., 0] / (size_a[..., 1] + 1e-7)) - torch.atan(size_b[..., 0] / (size_b[..., 1] + 1e-7))
    shape = (4 / math.pi**2) * aspect.pow(2)
    with torch.no_grad():
        trade_off = shape / (1 - iou + shape + 1e-7)
    return iou - centres / (hull.pow(2).sum(-1) + 1e-7) - trade_off * shape


@torch.no_grad()
def assign(scores: Tensor, boxes: Tensor, points: Tensor, truth: Targets) -> tuple[Tensor, Tensor, Tensor]:
    """Gives each cell an instance or none.

    Args:
        scores: `(B, N, C)` in 0..1.
        boxes: `(B, N, 4)` xyxy, network pixels.
        points: `(N, 2)` centres of the cells, network pixels.
        truth: The instances.

    Returns:
        Whether the cell has an instance `(B, N)`; which one `(B, N)`; and the soft class target `(B, N)`.
    """
    inside = torch.cat((points - truth.xyxy[..., None, :2], truth.xyxy[..., None, 2:] - points), -1).amin(-1) > 0
    inside &= truth.valid[..., None]  # (B, M, N)
    iou = complete_iou(truth.xyxy[:, :, None], boxes[:, None], plain=True) * inside
    index = truth.class_id[:, None].expand(-1, scores.shape[1], -1)
    fit = scores.gather(2, index).transpose(1, 2).pow(ALPHA) * iou.pow(BETA) * inside
    # The k best cells of each instance; of a cell's several suitors the one it overlaps most.
    best = torch.zeros_like(fit).scatter_(2, fit.topk(TOP_K, 2).indices, 1.0).bool() & inside
    claimed = (iou + 1e-9) * best
    strength, owner = claimed.max(1)
    positive = strength > 0
    won = F.one_hot(owner, fit.shape[1]).transpose(1, 2).bool() & best
    fit = fit * won
    soft = fit / (fit.amax(2, keepdim=True) + 1e-9) * (iou * won).amax(2, keepdim=True)
    return positive, owner, soft.amax(1)


def loss(raw: RawOutputs, truth: Targets) -> tuple[Tensor, dict[str, float]]:
    """Total loss of a batch and its parts, for the log."""
    points, strides = sampling_points([level.float() for level in raw.distances], raw.strides)
    logits = flatten_levels(raw.scores).float().transpose(1, 2)  # (B, N, C)
    batch, count = logits.shape[:2]
    bins = flatten_levels(raw.distances).float().transpose(1, 2).reshape(batch, count, 4, -1)
    reach = bins.shape[-1]
    distances = bins.softmax(-1) @ torch.arange(reach, dtype=torch.float32)
    cells, stride = points.T, strides.T  # (N, 2), (N, 1)
    boxes = torch.cat((cells - distances[..., :2], cells + distances[..., 2:]), -1) * stride
    positive, owner, soft = assign(logits.detach().sigmoid(), boxes.detach(), cells * stride, truth)
    picture, cell = positive.nonzero(as_tuple=True)
    instance = owner[picture, cell]
    weight = soft[picture, cell]
    total_weight = weight.sum().clamp(min=1.0)

    wanted = torch.zeros_like(logits)
    wanted[picture, cell, truth.class_id[picture, instance]] = weight
    parts = {"class": F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum") / total_weight}

    box = truth.xyxy[picture, instance]
    parts["box"] = ((1 - complete_iou(boxes[picture, cell], box)) * weight).sum() / total_weight
    centre = cells[cell]
    sides = torch.cat((centre - box[:, :2] / stride[cell], box[:, 2:] / stride[cell] - centre), -1)
    sides = sides.clamp(0, reach - 1.01)
    low = sides.floor()
    chosen = bins[picture, cell].log_softmax(-1)  # (P, 4, reach)
    at_low = chosen.gather(-1, low.long()[..., None])[..., 0]
    at_high = chosen.gather(-1, low.long()[..., None] + 1)[..., 0]
    divergence = -(at_low * (low + 1 - sides) + at_high * (sides - low)).mean(-1)
    parts["dfl"] = (divergence * weight).sum() / total_weight
    parts["mask"] = _mask_loss(raw, truth, picture, cell, instance)
    total = sum((WEIGHTS[name] * part for name, part in parts.items()), torch.zeros(()))
    return total, {name: float(part.detach()) for name, part in parts.items()}


def _mask_loss(raw: RawOutputs, truth: Targets, picture: Tensor, cell: Tensor, instance: Tensor) -> Tensor:
    assert raw.prototypes is not None
    prototypes = raw.prototypes.float()
    coefficients = flatten_levels(raw.coefficients).float().transpose(1, 2)[picture, cell]
    height, width = prototypes.shape[-2:]
    x, y = torch.arange(width) + 0.5, torch.arange(height) + 0.5
    losses = []
    for index, prototype in enumerate(prototypes.unbind(0)):  # indexing would make a zeroed whole per picture, backward
        mine = picture == index
        logits = (coefficients[mine] @ prototype.flatten(1)).view(-1, height, width)
        box = truth.xyxy[index, instance[mine]] / 4
        # A cell of margin makes the mask end by itself, not by the crop.
        across = (x > box[:, :1] - 1) & (x < box[:, 2:3] + 1)
        down = (y > box[:, 1:2] - 1) & (y < box[:, 3:] + 1)
        window = (down[:, :, None] & across[:, None, :]).float()
        wanted = truth.masks[index, instance[mine]]
        entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none") * window
        losses.append(entropy.sum((1, 2)) / window.sum((1, 2)).clamp(min=1.0))
    return torch.cat(losses).mean() if len(picture) else prototypes.sum() * 0
