"""From a card's task to the model that has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lensmount.errors import UnsupportedModelError
from lensmount_yolo.classify import YoloClassifier
from lensmount_yolo.model import YoloDetector, YoloSegmenter
from lensmount_yolo.oriented import YoloOrientedDetector
from lensmount_yolo.pose import YoloPose

if TYPE_CHECKING:
    from lensmount.contracts.model import BuildContext, Model


def build(context: BuildContext) -> Model:
    """Makes the model of the card's task.

    Raises:
        UnsupportedModelError: The task is not one of this architecture.
        ModelFileError: The graph's outputs do not fit the task.
    """
    kinds: dict[str, Callable[[BuildContext], Model]] = {
        "object-detection": YoloDetector,
        "instance-segmentation": YoloSegmenter,
        "keypoint-detection": YoloPose,
        "oriented-object-detection": YoloOrientedDetector,
        "classification": YoloClassifier,
    }
    kind = kinds.get(context.card.task)
    if kind is None:
        raise UnsupportedModelError(
            f"{context.card.id!r} has a task that YOLO models here do not have",
            found=context.card.task,
            expected=", ".join(kinds),
        )
    return kind(context)
