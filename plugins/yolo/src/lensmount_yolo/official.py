"""What an official file says apart from its tensors, as the texts that an exported graph would embed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

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

_MOST = 10_000  # entries of a list that is read
#: Classes that only hold a model, as scripts save them whole, and where they hold it.
_INNER = {
    "ultralytics.utils.torch_utils.ModelEMA": "ema",
    "ultralytics.models.yolo.model.YOLO": "model",
    "ultralytics.engine.model.Model": "model",
    "ultralytics.nn.autobackend.AutoBackend": "model",
}
_DEEPEST = 4  # of such classes in one another


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
    found = next((unwrapped(candidate) for candidate in candidates if _is_record(candidate)), None)
    for _ in range(_DEEPEST):
        inner = found.get(_INNER.get(found.full_name, "")) if found is not None else None
        if not _is_record(inner):
            break
        found = unwrapped(inner)
    return found


def _is_record(value: Any) -> TypeGuard[Record]:
    """Records are told by what they have."""
    return hasattr(value, "full_name") and hasattr(value, "attributes")


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
        texts.update(_keypoint_texts(tree, root))
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
    """Names by class id, ascending, gaps and all; None where the file has none."""
    if isinstance(value, list | tuple):
        value = dict(enumerate(value))
    if not isinstance(value, dict) or not value:
        return None
    try:
        table = {int(key): plain_text(name) for key, name in value.items()}
    except (TypeError, ValueError):
        raise ModelFileError("the file's class names cannot be read", found=printable(value, 80)) from None
    return {key: table[key] for key in sorted(table)}


def _keypoint_texts(tree: Mapping[Any, Any], root: Record) -> dict[str, str]:
    """Names of keypoints and the lines between them, of a pose model whose makers gave some."""
    found = {}
    for key in ("kpt_names", "skeleton"):
        value = next((v for v in (root.get(key), tree.get(key)) if isinstance(v, dict | list | tuple) and v), None)
        if value is not None:
            found[key] = str(_plain(value, 3))
    return found


def _plain(value: Any, depth: int) -> Any:
    """Lists, tables, texts and numbers as literals; anything else is no name and no number of a point."""
    if depth and isinstance(value, dict) and len(value) <= _MOST:
        return {_plain(key, 0): _plain(item, depth - 1) for key, item in value.items()}
    if depth and isinstance(value, list | tuple) and len(value) <= _MOST:
        return [_plain(item, depth - 1) for item in value]
    if isinstance(value, int):
        return int(value)
    if isinstance(value, str):
        return plain_text(value)
    raise ModelFileError("the file's keypoint names or skeleton cannot be read", found=printable(value, 80))


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
