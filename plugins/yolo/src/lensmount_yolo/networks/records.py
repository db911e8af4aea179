"""From an official file's inert records to the tree of the network that they describe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lensmount.errors import ModelFileError, UnsupportedModelError
from lensmount_reading import printable
from lensmount_yolo.networks.nodes import Node, NodeBudget, setting

if TYPE_CHECKING:
    from lensmount_reading import Record

_CONV = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
#: Settings of each kind, as the records name them. A kind that is not here has none.
SETTINGS: Mapping[str, tuple[str, ...]] = {
    "Conv2d": _CONV,
    "ConvTranspose2d": (*_CONV, "output_padding"),
    "BatchNorm2d": ("num_features", "eps", "momentum"),
    "Linear": ("in_features", "out_features"),
    "MaxPool2d": ("kernel_size", "stride", "padding"),
    "AdaptiveAvgPool2d": ("output_size",),
    "Upsample": ("size", "scale_factor", "mode"),
    "LeakyReLU": ("negative_slope",),
    "Bottleneck": ("add",),
    "RepBottleneck": ("add",),
    "GhostBottleneck": (),
    "CIB": ("add",),
    "PSABlock": ("add",),
    "SPPF": ("n", "add"),
    "Attention": ("num_heads", "key_dim", "head_dim", "scale"),
    "AAttn": ("area", "num_heads", "head_dim"),
    "CBLinear": ("c2s",),
    "CBFuse": ("idx",),
    "Concat": ("d",),
    "Detect": ("nc", "reg_max"),
    "v10Detect": ("nc", "reg_max"),
    "Segment": ("nc", "reg_max", "nm"),
    "Pose": ("nc", "reg_max", "kpt_shape"),
    "OBB": ("nc", "reg_max", "ne"),
}
HEADS = frozenset({"Detect", "v10Detect", "Segment", "Pose", "OBB", "Segment26", "Pose26", "OBB26"})
_TORCH = "torch.nn.modules."
_OFFICIAL = "ultralytics.nn."
_ANCHORS = ("models.yolo.", "models.common.", "yolov5.", "models.experimental.")


def network_node(root: Record) -> Node:
    """The tree of an official file's model.

    Args:
        root: Record of the model, whose `model` is the sequence of rows.

    Raises:
        UnsupportedModelError: It is a model of another kind, or has a block that is not known here.
        ModelFileError: A record lacks what its kind needs.
    """
    if root.module.startswith(_ANCHORS) or root.full_name.startswith(_ANCHORS):
        raise UnsupportedModelError(
            "the file holds an original YOLOv5 (or YOLOv7) model: its head is built on anchor boxes",
            found=root.full_name,
            expected="a YOLO without anchors: v5u, v8, v9, v10, 11, 12 or 26",
            fix="train or convert it as YOLOv5u, or export it to ONNX with its own repository",
        )
    rows: Any = root.get("model")
    if not root.module.startswith(_OFFICIAL) or not _is_record(rows) or rows.name not in ("Sequential", "ModuleList"):
        raise UnsupportedModelError(
            "the file holds a model that is not a YOLO of the kinds known here",
            found=root.full_name,
            expected="a detection, segmentation, pose, oriented-box or classification model",
        )
    budget = NodeBudget()
    parts = {name: _node(child, budget, 1) for name, child in _children(rows).items()}
    sources = [_source(child) for child in _children(rows).values()]
    return Node("Network", {"sources": tuple(sources)}, parts)


def _is_record(value: object) -> bool:
    return hasattr(value, "attributes") and hasattr(value, "full_name")


def _children(record: Record) -> Mapping[str, Record]:
    from lensmount_reading import submodules

    return submodules(record)


def _source(row: Record) -> Any:
    source = setting(row.get("f", -1))
    if isinstance(source, int) or (
        isinstance(source, tuple) and source and all(isinstance(item, int) for item in source)
    ):
        return source
    raise ModelFileError("a row of the network does not say where its input comes from", found=printable(source, 80))


def _node(record: Record, budget: NodeBudget, depth: int) -> Node:
    budget.spend(depth)
    if not record.module.startswith((_TORCH, _OFFICIAL)):
        raise UnsupportedModelError(
            "the network has a part that is not known here",
            found=record.full_name,
            fix="export it to ONNX where it was trained, and load that",
        )
    kind = record.name
    settings = {name: setting(record.attributes[name]) for name in SETTINGS.get(kind, ()) if name in record.attributes}
    if kind in ("Conv2d", "ConvTranspose2d", "Linear"):
        settings["bias"] = record.get("bias") is not None
    if kind == "A2C2f":
        settings["gamma"] = _length(record.get("gamma"))
    if kind in HEADS:
        settings["strides"] = _strides(record)
    parts = {name: _node(child, budget, depth + 1) for name, child in _children(record).items()}
    return Node(kind, settings, parts)


def _length(tensor: Any) -> int | None:
    return None if tensor is None or not hasattr(tensor, "shape") else int(tensor.shape[0])


def _strides(head: Record) -> tuple[int, ...] | None:
    """Network pixels per cell of each level; None where the file does not say."""
    tensor: Any = head.get("stride")
    if tensor is None or not hasattr(tensor, "numpy") or len(tensor.shape) != 1 or tensor.shape[0] > 10:
        return None
    values = [float(value) for value in tensor.numpy()]
    if not all(1 <= value <= 1024 and value == int(value) for value in values):
        return None
    return tuple(int(value) for value in values)
