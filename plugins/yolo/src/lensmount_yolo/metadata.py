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
_NAMES_FIX = "write the metadata again, as a list of names in the order of the network's columns"


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphMetadata:
    """Parsed metadata; what a file does not say is None or empty.

    Attributes:
        task: lensmount's word for the task.
        names: Class names by id, or in the order of `ids`.
        ids: The ids of `names`, ascending, where they are not 0, 1, 2, …; else empty.
        channels: Channels of the pictures that it takes.
        stride: Largest stride.
        size: `(height, width)` that it was exported at.
        end2end: The outputs need no suppression: rows of final boxes.
        keypoints: `(count, values)` of a pose head.
        keypoint_names: Names of the points by class id, one entry where all classes share them; empty where the file
            has none.
        skeleton: Pairs of point numbers, from 0, that are joined when drawn; None where the file does not say.
        licence: What the file says of its licence.
        description: What the file says of itself.
    """

    task: str | None = None
    names: tuple[str, ...] = ()
    ids: tuple[int, ...] = ()
    channels: int | None = None
    stride: int | None = None
    size: tuple[int, int] | None = None
    end2end: bool | None = None
    keypoints: tuple[int, int] | None = None
    keypoint_names: tuple[tuple[str, ...], ...] = ()
    skeleton: tuple[tuple[int, int], ...] | None = None
    licence: str | None = None
    description: str = ""


def parse(metadata: Mapping[str, str]) -> GraphMetadata:
    """Reads the keys of ultralytics' exports.

    They are `task`, `names`, `stride`, `imgsz`, `channels`, `end2end`, `args`, `kpt_shape`, `kpt_names`, `skeleton`,
    `license` and `description`.

    Raises:
        ModelFileError: A key is there but makes no sense.
    """
    task = metadata.get("task")
    size = _pair(metadata, "imgsz")
    stride = _literal(metadata, "stride")
    end2end = metadata.get("end2end")
    names, ids = _names(metadata)
    keypoints = _pair(metadata, "kpt_shape")
    return GraphMetadata(
        task=TASKS.get(task, task) if task else None,
        names=names,
        ids=ids,
        channels=_channels(metadata),
        stride=_stride(stride),
        size=size,
        end2end=True if _suppressed(metadata) else None if end2end is None else end2end.strip().lower() == "true",
        keypoints=keypoints,
        keypoint_names=_keypoint_names(metadata, keypoints),
        skeleton=_skeleton(metadata, keypoints),
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


def _names(metadata: Mapping[str, str]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names, and their ids where these are not 0, 1, 2, …."""
    value = _literal(metadata, "names")
    if value is None:
        return (), ()
    if isinstance(value, Mapping):
        try:
            table = {int(key): str(name) for key, name in value.items()}
        except (TypeError, ValueError, OverflowError):
            raise ModelFileError("metadata 'names' should map class ids to names", found=_shown(value)) from None
        ids = tuple(sorted(table))
        if len(table) != len(value) or (ids and not 0 <= ids[0] <= ids[-1] <= _LARGEST):
            raise ModelFileError(
                "metadata 'names' should map class ids to names",
                found=_shown(value),
                expected=f"each id once, from 0 to {_LARGEST:,}",
                fix=_NAMES_FIX,
            )
        return tuple(table[i] for i in ids), () if ids == tuple(range(len(ids))) else ids
    if isinstance(value, list | tuple):
        try:
            return tuple(str(name) for name in value), ()
        except ValueError:  # Python writes no integer of thousands of digits
            raise ModelFileError("metadata 'names' should hold names", found=_HUGE) from None
    raise ModelFileError("metadata 'names' should be a list or a table", found=_shown(value), fix=_NAMES_FIX)


def _channels(metadata: Mapping[str, str]) -> int | None:
    value = _literal(metadata, "channels")
    if value is None:
        return None
    if _counts(value):
        return int(value)
    raise ModelFileError("metadata 'channels' should be a whole number", found=_shown(value))


def _keypoint_names(metadata: Mapping[str, str], keypoints: tuple[int, int] | None) -> tuple[tuple[str, ...], ...]:
    """A list of names, or a table from class id to one; the same list for all classes is kept once."""
    value = _literal(metadata, "kpt_names")
    if value is None or value in ([], {}, ()):
        return ()
    try:
        lists = _in_order(value)
        lists = [lists] if all(isinstance(name, str) for name in lists) else [_in_order(part) for part in lists]
    except (TypeError, ValueError, OverflowError):
        lists = []
    sound = bool(lists) and all(names and all(isinstance(name, str) for name in names) for names in lists)
    if not sound or (keypoints is not None and any(len(names) != keypoints[0] for names in lists)):
        raise ModelFileError(
            "metadata 'kpt_names' should name each keypoint",
            found=_shown(value),
            expected=f"{keypoints[0] if keypoints else 'as many'} names, as a list or by class id",
        )
    every = tuple(tuple(names) for names in lists)
    return every[:1] if len(set(every)) == 1 else every


def _in_order(value: Any) -> list[Any]:
    """A list, or what a table holds, by number.

    Raises:
        TypeError: It is neither.
        ValueError: The table's keys are no numbers.
    """
    if isinstance(value, Mapping):
        return [value[key] for key in sorted(value, key=int)]
    if isinstance(value, list | tuple):
        return list(value)
    raise TypeError(type(value).__name__)


def _skeleton(metadata: Mapping[str, str], keypoints: tuple[int, int] | None) -> tuple[tuple[int, int], ...] | None:
    """Pairs of point numbers. COCO's annotations count from 1: so do those that name the last point and never 0."""
    value = _literal(metadata, "skeleton")
    if value is None:
        return None
    pairs = value if isinstance(value, list | tuple) else None
    if pairs is None or not all(
        isinstance(pair, list | tuple) and len(pair) == 2 and all(type(end) is int and end >= 0 for end in pair)
        for pair in pairs
    ):
        raise ModelFileError(
            "metadata 'skeleton' should be pairs of keypoint numbers", found=_shown(value), expected="[[0, 1], [1, 2]]"
        )
    ends = [end for pair in pairs for end in pair]
    count = keypoints[0] if keypoints else None
    first = 1 if ends and count is not None and max(ends) == count and min(ends) > 0 else 0
    if ends and count is not None and max(ends) - first >= count:
        raise ModelFileError(
            "metadata 'skeleton' joins keypoints that are not there",
            found=f"point {max(ends)} of {count}",
            expected=f"numbers from 0 to {count - 1}, or from 1 to {count}",
        )
    return tuple((a - first, b - first) for a, b in pairs)


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
