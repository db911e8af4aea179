"""What a YOLO graph says of itself: the keys that ultralytics' exports embed, which ours embed too."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lensmount.errors import ModelFileError

TASKS = {
    "detect": "object-detection",
    "segment": "instance-segmentation",
    "pose": "keypoint-detection",
    "obb": "oriented-object-detection",
    "classify": "classification",
}
_LONGEST = 1_000_000
_LARGEST = 1 << 20
_HUGE = "a number of thousands of digits"


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphMetadata:
    """Parsed metadata; what a file does not say is None or empty.

    Attributes:
        task: lensmount's word for the task.
        names: Class names by id.
        stride: Largest stride.
        size: `(height, width)` that it was exported at.
        end2end: The outputs need no suppression: rows of final boxes.
        keypoints: `(count, values)` of a pose head.
        licence: What the file says of its licence.
        description: What the file says of itself.
    """

    task: str | None = None
    names: tuple[str, ...] = ()
    stride: int | None = None
    size: tuple[int, int] | None = None
    end2end: bool | None = None
    keypoints: tuple[int, int] | None = None
    licence: str | None = None
    description: str = ""


def parse(metadata: Mapping[str, str]) -> GraphMetadata:
    """Reads the keys `task`, `names`, `stride`, `imgsz`, `end2end`, `kpt_shape`, `license`, `description`.

    Raises:
        ModelFileError: A key is there but makes no sense.
    """
    task = metadata.get("task")
    size = _pair(metadata, "imgsz")
    stride = _literal(metadata, "stride")
    end2end = metadata.get("end2end")
    return GraphMetadata(
        task=TASKS.get(task, task) if task else None,
        names=_names(metadata),
        stride=_stride(stride),
        size=size,
        end2end=True if _suppressed(metadata) else None if end2end is None else end2end.strip().lower() == "true",
        keypoints=_pair(metadata, "kpt_shape"),
        licence=metadata.get("license"),
        description=metadata.get("description", "").strip(),
    )


def _suppressed(metadata: Mapping[str, str]) -> bool:
    """Whether suppression was made part of the graph; its `args` say so."""
    try:
        arguments = _literal(metadata, "args")
    except ModelFileError:  # other tools write what they like there
        return False
    return isinstance(arguments, Mapping) and arguments.get("nms") is True


def _literal(metadata: Mapping[str, str], key: str) -> Any:
    """A Python or JSON literal; nothing is evaluated."""
    text = metadata.get(key)
    if text is None or not text.strip():
        return None
    if len(text) > _LONGEST:
        raise ModelFileError(f"metadata {key!r} is too long", found=f"{len(text)} characters")
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):  # TypeError: a set of lists
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise ModelFileError(f"metadata {key!r} cannot be read", found=text[:80]) from None


def _names(metadata: Mapping[str, str]) -> tuple[str, ...]:
    value = _literal(metadata, "names")
    if value is None:
        return ()
    if isinstance(value, Mapping):
        try:
            table = {int(key): str(name) for key, name in value.items()}
        except (TypeError, ValueError, OverflowError):
            raise ModelFileError("metadata 'names' should map class ids to names", found=_shown(value)) from None
        if sorted(table) != list(range(len(table))):
            raise ModelFileError(
                "metadata 'names' has gaps", found=str(sorted(table))[:80], expected=f"ids 0 to {len(table) - 1}"
            )
        return tuple(table[i] for i in range(len(table)))
    if isinstance(value, list | tuple):
        try:
            return tuple(str(name) for name in value)
        except ValueError:  # Python writes no integer of thousands of digits
            raise ModelFileError("metadata 'names' should hold names", found=_HUGE) from None
    raise ModelFileError("metadata 'names' should be a list or a table", found=_shown(value))


def _pair(metadata: Mapping[str, str], key: str) -> tuple[int, int] | None:
    value = _literal(metadata, key)
    if value is None:
        return None
    pair = [value, value] if _counts(value) else value
    if isinstance(pair, list | tuple) and len(pair) == 2 and all(_counts(v) for v in pair):
        return (int(pair[0]), int(pair[1]))
    raise ModelFileError(f"metadata {key!r} should be one or two whole numbers", found=_shown(value))


def _stride(value: Any) -> int | None:
    if value is None:
        return None
    given = value if isinstance(value, list | tuple) else (value,)
    if given and all(_counts(v) for v in given):
        return int(max(given))
    raise ModelFileError("metadata 'stride' should be a number", found=_shown(value))


def _counts(value: Any) -> bool:
    """Whether it is a whole number above nought, of a size that pictures have; exports write strides as floats."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 < value <= _LARGEST and value == int(value)


def _shown(value: Any) -> str:
    try:
        return str(value)[:80]
    except ValueError:
        return _HUGE
