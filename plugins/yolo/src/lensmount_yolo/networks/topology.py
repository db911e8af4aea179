"""How rows are joined, worked out from the rows alone.

All versions share one plan (Lin et al., "Feature Pyramid Networks", 2017; Liu et al., "Path Aggregation Network",
2018): down to the coarsest level, up again joining the backbone's last row of each size, down again joining the last
row of each size before. Rows without tensors are an upsampling and a joining (two in a row) or a joining (one). v9-e,
with its second backbone, is the exception, and has its plan in a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lensmount_yolo.networks.nodes import Node
from lensmount_yolo.networks.shapes_of_blocks import in_width, out_width

Source = int | tuple[int, ...]

_CONCAT = Node("Concat", {"d": 1})
_UPSAMPLE = Node("Upsample", {"size": None, "scale_factor": 2.0, "mode": "nearest"})
_HALVING = frozenset({"AConv", "ADown", "SCDown"})

#: v9-e: rows whose input is not the row before; and which part of each CBLinear a CBFuse adds.
_V9E_SOURCES: dict[int, Source] = {
    10: 1, 11: 3, 12: 5, 13: 7, 14: 9, 15: 0,
    16: (10, 11, 12, 13, 14, -1), 18: (11, 12, 13, 14, -1), 21: (12, 13, 14, -1), 24: (13, 14, -1), 27: (14, -1),
    31: (-1, 25), 34: (-1, 22), 37: (-1, 32), 40: (-1, 29), 42: (35, 38, 41),
}  # fmt: skip
_V9E_FUSED = {16: (0,) * 5, 18: (1,) * 4, 21: (2,) * 3, 24: (3,) * 2, 27: (4,)}


def join_rows(rows: Sequence[Node | None], top: Node) -> tuple[list[Node], list[Source]]:
    """Fills in the rows without tensors, and tells where each row's input comes from.

    Args:
        rows: All rows but the head; None where there are no tensors.
        top: The head.

    Returns:
        The rows, without the head, and the sources of all rows, the head's last.

    Raises:
        ValueError: The rows do not follow the plan.
    """
    if len(rows) == 42 and rows[0] is None:
        return _second_backbone(rows)
    found: list[Node] = []
    sources: list[Source] = []
    strides: list[int] = []
    below: dict[int, int] = {}  # stride -> last row of the backbone
    for index, row in enumerate(rows):
        stride = strides[-1] if strides else 1
        if row is not None:
            node = _placed(row, stride, top, in_neck=bool(below))
            sources.append(-1)
            strides.append(stride * 2 if _halves(row) else stride)
        elif index + 1 < len(rows) and rows[index + 1] is None:
            below = below or {s: i for i, s in enumerate(strides)}
            node = _UPSAMPLE
            sources.append(-1)
            strides.append(stride // 2)
        else:
            node = _CONCAT
            after_upsampling = bool(found) and found[-1] is _UPSAMPLE
            earlier = below if after_upsampling else {s: i for i, s in enumerate(strides[:-1])}
            if stride not in earlier:
                raise ValueError(f"row {index} joins a size that no earlier row has")
            sources.append((-1, earlier[stride]))
            strides.append(stride)
        found.append(node)
    sources.append(_head_sources(top, strides))
    return found, sources


def _halves(row: Node) -> bool:
    return row.kind in _HALVING or (row.kind == "Conv" and row.parts["conv"].settings["stride"] == (2, 2))


def _placed(row: Node, stride: int, top: Node, *, in_neck: bool) -> Node:
    """What a block's tensors do not tell, but its place does."""
    if in_neck and row.kind in ("C2f", "C3"):  # v5u, v8, v10; 11's narrow their bottlenecks and always add
        stages = row.parts["m"]
        plain = {name: _without_residual(stage) for name, stage in stages.parts.items()}
        return replace(row, parts={**row.parts, "m": replace(stages, parts=plain)})
    if row.kind == "A2C2f" and stride <= 16:  # 12 attends by quarters of the map down to stride 16
        return _with_area(row, 4)
    if row.kind == "SPPF" and top.settings.get("reg_max") == 1 and in_width(row) == out_width(row):
        cv1 = row.parts["cv1"]  # 26: residual, and no activation between the first convolution and the poolings
        bare = replace(cv1, parts={**cv1.parts, "act": Node("Identity")})
        return replace(row, settings={**row.settings, "add": True}, parts={**row.parts, "cv1": bare})
    return row


def _without_residual(stage: Node) -> Node:
    wide = stage.kind == "Bottleneck" and out_width(stage.parts["cv1"]) == out_width(stage.parts["cv2"])
    return replace(stage, settings={**stage.settings, "add": False}) if wide else stage


def _with_area(node: Node, area: int) -> Node:
    settings = {**node.settings, "area": area} if node.kind == "AAttn" else node.settings
    return Node(node.kind, settings, {name: _with_area(part, area) for name, part in node.parts.items()})


def _head_sources(top: Node, strides: Sequence[int]) -> Source:
    if top.kind == "Classify":
        return -1
    levels = len((top.parts.get("cv2") or top.parts["one2one_cv2"]).parts)
    last = {stride: row for row, stride in enumerate(strides)}
    wanted = sorted(strides[-1] >> level for level in range(levels))
    return tuple(last[stride] for stride in wanted)


def strides_of(rows: Sequence[Node], sources: Sequence[Source]) -> tuple[int, ...]:
    """Network pixels per cell of each of the head's levels (of the whole network for a classifier)."""
    strides: list[int] = []
    for index, row in enumerate(rows):
        source: Any = sources[index]
        source = source[-1] if isinstance(source, tuple) and row.kind == "CBFuse" else source
        source = source[0] if isinstance(source, tuple) else source
        place = index + source if source < 0 else source
        stride = strides[place] if place >= 0 else 1
        strides.append(stride // 2 if row.kind == "Upsample" else stride * 2 if _halves(row) else stride)
    top = sources[-1]
    return tuple(strides[place] for place in top) if isinstance(top, tuple) else (strides[-1],)


def _second_backbone(rows: Sequence[Node | None]) -> tuple[list[Node], list[Source]]:
    """v9-e."""
    found: list[Node] = []
    base = 0
    for index, row in enumerate(rows):
        if 10 <= index <= 14 and row is not None:
            conv = row.parts["conv"]
            base = base or int(conv.settings["out_channels"])
            widths = tuple(base << level for level in range(index - 9))
            if sum(widths) != conv.settings["out_channels"]:
                raise ValueError(f"row {index} splits into other widths than a v9-e")
            found.append(Node("CBLinear", {"c2s": widths}, {"conv": conv}))
        elif index in _V9E_FUSED:
            found.append(Node("CBFuse", {"idx": _V9E_FUSED[index]}))
        elif row is not None:
            found.append(row)
        else:
            found.append(Node("Identity") if index == 0 else _UPSAMPLE if index in (30, 33) else _CONCAT)
    return found, [_V9E_SOURCES.get(index, -1) for index in range(43)]
