"""What an official file says apart from its tensors, as the texts that an exported graph would embed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lensmount.errors import ModelFileError, UnsupportedModelError
from lensmount_reading import plain_text, printable, unwrapped
from lensmount_yolo.networks.nodes import Node
from lensmount_yolo.networks.records import HEADS, network_node

if TYPE_CHECKING:
    from lensmount_reading import Checkpoint, Record

#: Kind of the head -> task in ultralytics' words.
TASK_OF_HEAD = {
    "Detect": "detect",
    "v10Detect": "detect",
    "Segment": "segment",
    "Pose": "pose",
    "OBB": "obb",
    "Classify": "classify",
}
#: Task -> what a person would call it.
NOUNS = {
    "detect": "detection",
    "segment": "instance segmentation",
    "pose": "keypoints",
    "obb": "oriented detection",
    "classify": "classification",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """A network and what is known of it.

    Attributes:
        network: Its tree.
        metadata: Texts under the keys of ultralytics' exports.
        root: Record whose tensors are the network's; None where the tensors stand alone.
    """

    network: Node
    metadata: Mapping[str, str]
    root: Record | None = None


def find_model(checkpoint: Checkpoint) -> Record | None:
    """The record of the model: the averaged weights where the file has them, else the trained ones.

    Raises:
        UnsupportedModelError: There is a model, but of another kind than those known here.
    """
    tree = checkpoint.tree
    candidates = [tree.get("ema"), tree.get("model")] if isinstance(tree, dict) else [tree]
    for candidate in candidates:
        if hasattr(candidate, "full_name") and hasattr(candidate, "attributes"):
            return unwrapped(candidate)  # type: ignore[arg-type]  # records are told by what they have
    return None


def describe_official(checkpoint: Checkpoint, root: Record) -> Described:
    """Network and metadata of an official file.

    Raises:
        UnsupportedModelError: The model is of a kind that is not known here.
        ModelFileError: The file contradicts itself.
    """
    network = network_node(root)
    tree = checkpoint.tree if isinstance(checkpoint.tree, dict) else {}
    return Described(network=network, metadata=_texts(tree, root, network), root=root)


def head_of(network: Node) -> Node:
    """The last row.

    Raises:
        UnsupportedModelError: It is no head that is known here.
    """
    head = list(network.parts.values())[-1] if network.parts else Node("nothing")
    if head.kind not in TASK_OF_HEAD:
        raise UnsupportedModelError(
            "the network ends in a head that is not supported", found=head.kind, expected=", ".join(TASK_OF_HEAD)
        )
    return head


def is_end_to_end(head: Node) -> bool:
    """Whether a head has the branches that need no suppression."""
    return "one2one_cv2" in head.parts and "one2one_cv3" in head.parts


def input_channels(network: Node) -> int:
    """Channels of the picture that the first convolution takes."""
    for node in network.walk():
        if node.kind == "Conv2d":
            return int(node.settings.get("in_channels", 3))
    return 3


def family(network: Node) -> str:
    """The version whose blocks the network is made of: `v5u`, `v8`, …, `26`; empty when none fits."""
    kinds = {node.kind for node in network.walk()}
    head = next((n for n in network.parts.values() if n.kind in HEADS or n.kind == "Classify"), Node(""))
    if kinds & {"ELAN1", "RepNCSPELAN4"}:
        return "v9"
    if kinds & {"SCDown", "v10Detect", "C2fCIB"}:
        return "v10"
    if "A2C2f" in kinds:
        return "12"
    if "C3k2" in kinds:
        pooling = [n for n in network.walk() if n.kind == "SPPF"]
        residual = any(n.settings.get("add") for n in pooling)
        return "26" if head.settings.get("reg_max") == 1 or residual else "11"
    if "C2f" in kinds:
        return "v8"
    return "v5u" if "C3" in kinds else ""


def _texts(tree: Mapping[Any, Any], root: Record, network: Node) -> dict[str, str]:
    head = head_of(network)
    task = TASK_OF_HEAD[head.kind]
    names = _names(root.get("names"))
    classes = class_count(head)
    if names is not None and len(names) != classes:
        raise ModelFileError(
            "the file names another number of classes than its network predicts",
            found=f"{len(names)} names, {classes} classes",
            expected="one name per class",
        )
    texts = {
        "description": description(network, _scale(root), task, classes),
        "task": task,
        "head": head.kind,
        "stride": str(max(head.settings.get("strides") or (32,))),
        "imgsz": str(list(_size(tree, root, task))),
        "channels": str(input_channels(network)),
        "end2end": str(is_end_to_end(head)),
    }
    for key, name in (("license", "license"), ("version", "version"), ("date", "date"), ("docs", "docs")):
        value = tree.get(key)
        if isinstance(value, str) and len(value) <= 500:
            texts[name] = value
    if names is not None:
        texts["names"] = str(names)
    if head.kind == "Pose":
        texts["kpt_shape"] = str(list(head.settings["kpt_shape"]))
    return texts


def description(network: Node, scale: str, task: str, classes: int) -> str:
    """One line: family, scale, task, number of classes."""
    version = family(network)
    count = "1 class" if classes == 1 else f"{classes} classes"
    return f"YOLO{version}{scale} {NOUNS[task]}, {count}".strip()


def class_count(head: Node) -> int:
    """Number of classes that a head predicts."""
    try:
        if head.kind == "Classify":
            return int(head.parts["linear"].settings["out_features"])
        return int(head.settings["nc"])
    except (KeyError, TypeError, ValueError):
        raise ModelFileError("the network's head does not say how many classes it has") from None


def _scale(root: Record) -> str:
    """`n`, `s`, …; from the name of the version's description where there are no scales (`yolov9c.yaml`)."""
    table = root.get("yaml")
    if not isinstance(table, dict):
        return ""
    scale = table.get("scale")
    if isinstance(scale, str) and len(scale) == 1:
        return scale
    file = table.get("yaml_file")
    if isinstance(file, str):
        stem = file.replace("\\", "/").rpartition("/")[2].removesuffix(".yaml").partition("-")[0]
        if stem.startswith("yolov9") and len(stem) == len("yolov9") + 1:
            return stem[-1]
    return ""


def _names(value: Any) -> dict[int, str] | None:
    """Names by class id, in order; None where the file has none."""
    if isinstance(value, list | tuple):
        value = dict(enumerate(value))
    if not isinstance(value, dict) or not value:
        return None
    try:
        table = {int(key): plain_text(name) for key, name in value.items()}
    except (TypeError, ValueError):
        raise ModelFileError("the file's class names cannot be read", found=printable(value, 80)) from None
    if sorted(table) != list(range(len(table))):
        raise ModelFileError(
            "the file's class names have gaps", found=str(sorted(table))[:80], expected=f"ids 0 to {len(table) - 1}"
        )
    return {key: table[key] for key in sorted(table)}


def _size(tree: Mapping[Any, Any], root: Record, task: str) -> tuple[int, int]:
    """Training size `(height, width)`."""
    for holder in (tree.get("train_args"), root.get("args"), root.get("overrides")):
        attributes = holder if isinstance(holder, dict) else getattr(holder, "attributes", {})
        value = attributes.get("imgsz")
        if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 65_536:
            return (value, value)
        if isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(v, int) and v > 0 for v in value):
            return (value[0], value[1])
    return (224, 224) if task == "classify" else (640, 640)
