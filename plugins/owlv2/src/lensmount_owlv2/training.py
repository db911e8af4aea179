"""Reference boxes: what the user gives to show what is wanted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lensmount.errors import ImageError, InputError
from lensmount_vision.images.requests import from_request

_BOX_KEYS = ("x", "y", "w", "h", "cls", "negative")
_IMAGE_KEYS = ("image", "boxes")


@dataclass(frozen=True, slots=True)
class TrainBox:
    """One reference box.

    Attributes:
        x: Centre, pixels from the left of the picture.
        y: Centre, pixels from its top.
        w: Width in pixels.
        h: Height in pixels.
        cls: Name of the class that it shows, or, with `negative`, that it must not be taken for.
        negative: Shows what is *not* of the class.

    Raises:
        InputError: A number is not finite, a side not positive, or the class empty.
    """

    x: float
    y: float
    w: float
    h: float
    cls: str
    negative: bool = False

    def __post_init__(self) -> None:
        _check(self, "a reference box")

    @property
    def xyxy(self) -> tuple[float, float, float, float]:
        """Corners in pixels."""
        return self.x - self.w / 2, self.y - self.h / 2, self.x + self.w / 2, self.y + self.h / 2


@dataclass(frozen=True, slots=True)
class TrainingImage:
    """A picture with reference boxes.

    Attributes:
        image: Anything `lensmount_vision.images.loading.load` takes.
        boxes: The boxes on it; none is allowed.
    """

    image: Any
    boxes: tuple[TrainBox, ...] = ()


TrainingData = Iterable[TrainingImage | Mapping[str, Any]]


def _check(box: TrainBox, where: str) -> None:
    for name in ("x", "y", "w", "h"):
        value = getattr(box, name)
        number = isinstance(value, int | float) or type(value).__name__.startswith(("float", "int", "uint"))
        if isinstance(value, bool) or not number or not math.isfinite(value):
            raise InputError(f"{where}: {name} is no number", found=repr(value)[:60], expected="pixels")
        if name in "wh" and value <= 0:
            raise InputError(f"{where} has no area", found=f"{name}={value}", expected=f"{name} above 0")
    if not isinstance(box.cls, str) or not box.cls.strip():
        raise InputError(f"{where} has no class", found=f"cls={box.cls!r}"[:60], expected="a class name")
    if not isinstance(box.negative, bool):
        raise InputError(f"{where}: negative should be a flag", found=repr(box.negative)[:60], expected="true or false")


def read_training_data(data: TrainingData) -> tuple[TrainingImage, ...]:
    """Checks reference data, as dictionaries or typed.

    Args:
        data: `TrainingImage`s, or `{"image": …, "boxes": [{"x", "y", "w", "h", "cls", "negative"}]}`; an image may also
            be `{"type": "url" | "base64" | "file", "value": …}`.

    Raises:
        InputError: Naming the entry, and what is wrong with it: a missing or unknown key, a box without area, no
            pictures, no boxes, or a class of which all boxes are negative.
    """
    if isinstance(data, Mapping | str | bytes) or not isinstance(data, Iterable):
        raise InputError(
            "training data should be a list", found=type(data).__name__, expected='[{"image": …, "boxes": […]}, …]'
        )
    images = tuple(_image(item, f"training_data[{i}]") for i, item in enumerate(data))
    boxes = [box for image in images for box in image.boxes]
    if not boxes:
        raise InputError(
            "training data holds no reference box", found=f"{len(images)} pictures", expected="one box or more"
        )
    shown = {box.cls for box in boxes if not box.negative}
    for box in boxes:
        if box.cls not in shown:
            raise InputError(
                f"class {box.cls!r} has negative boxes only: there is nothing to look for",
                expected="a box with negative=False for each class",
                fix=f"add a positive box of {box.cls!r}, or leave its negatives out",
            )
    return images


def class_names(images: Sequence[TrainingImage]) -> tuple[str, ...]:
    """Class names in the order in which they first appear."""
    return tuple(dict.fromkeys(box.cls for image in images for box in image.boxes))


def _image(item: object, where: str) -> TrainingImage:
    if isinstance(item, TrainingImage):
        boxes: object = item.boxes
        source = item.image
    elif isinstance(item, Mapping):
        _keys(item, _IMAGE_KEYS, ("image",), where)
        source, boxes = _source(item["image"], where), item.get("boxes", ())
    else:
        raise InputError(
            f"{where} is not a picture with boxes",
            found=type(item).__name__,
            expected='a TrainingImage or {"image": …, "boxes": […]}',
        )
    if source is None:
        raise InputError(f"{where} has no image", expected="a path, URL, bytes, array, …")
    if not isinstance(boxes, Sequence) or isinstance(boxes, str | bytes):
        raise InputError(f"{where}.boxes should be a list", found=type(boxes).__name__)
    return TrainingImage(source, tuple(_box(box, f"{where}.boxes[{i}]") for i, box in enumerate(boxes)))


def _box(item: object, where: str) -> TrainBox:
    if isinstance(item, TrainBox):
        return item
    if not isinstance(item, Mapping):
        raise InputError(f"{where} is not a box", found=type(item).__name__, expected="a TrainBox or a dictionary")
    _keys(item, _BOX_KEYS, _BOX_KEYS[:5], where)
    try:
        return TrainBox(**item)
    except InputError as error:
        problem = error.problem.replace("a reference box", where)
        raise InputError(problem, found=error.found, expected=error.expected) from None


def _keys(item: Mapping[Any, Any], known: Sequence[str], required: Sequence[str], where: str) -> None:
    unknown = [str(key) for key in item if key not in known]
    missing = [key for key in required if key not in item]
    if unknown or missing:
        raise InputError(
            f"{where} has the wrong keys",
            found=f"missing: {', '.join(missing) or 'none'}; unknown: {', '.join(unknown)[:80] or 'none'}",
            expected=", ".join(known),
        )


def _source(value: Any, where: str) -> Any:
    """An image of the inference server's form as one that needs no other look."""
    try:
        return from_request(value)
    except ImageError as error:
        raise InputError(
            f"{where}: {error.problem}", found=error.found, expected=error.expected, fix=error.fix
        ) from error
