"""Recognises YOLO files by their content: graph outputs, metadata, tensor names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lensmount.errors import ModelFileError
from lensmount.specs import Preprocess
from lensmount_yolo.cards import bare_card
from lensmount_yolo.head import read_head
from lensmount_yolo.metadata import TASKS, GraphMetadata, parse

if TYPE_CHECKING:
    from lensmount.specs import ModelCard
    from lensmount_reading import FileFacts

_LEVELS = ((8, 16, 32), (4, 8, 16, 32), (8, 16, 32, 64))


def recognise(facts: FileFacts) -> ModelCard | None:
    """A card for a bare YOLO file, or None when it is something else.

    Raises:
        ModelFileError: It is a YOLO file, but its parts contradict one another.
    """
    if facts.kind == "onnx":
        return _onnx(facts)
    if facts.kind in ("torch", "torch-legacy", "safetensors"):
        from lensmount_yolo.checkpoint import recognise_weights

        return recognise_weights(facts)
    return None


def _onnx(facts: FileFacts) -> ModelCard | None:
    metadata = parse(facts.metadata) if "names" in facts.metadata or "task" in facts.metadata else GraphMetadata()
    shape = facts.inputs[0].shape if len(facts.inputs) == 1 else None
    if shape is None or len(shape) != 4 or (isinstance(shape[1], int) and shape[1] not in (1, 3)):
        return None
    size = _size(shape, metadata)
    task = metadata.task or _task(facts, size, metadata)
    if task is None or task not in TASKS.values():
        return None
    outputs = [(spec.name, spec.shape or ()) for spec in facts.outputs]
    if task in ("object-detection", "instance-segmentation"):
        extra = 32 if task == "instance-segmentation" else 0
        read_head(outputs, names=len(metadata.names), extra=extra, end2end=metadata.end2end)
    preprocess = (
        None
        if task == "classification"
        else Preprocess(size=size, channels=shape[1] if isinstance(shape[1], int) else 3)
    )
    card = bare_card(facts, metadata, task, "onnx", facts.precision, preprocess)
    return replace(card, notes=(*card.notes, *_notes(facts))) if task == "classification" else card


def _notes(facts: FileFacts) -> list[str]:
    """What is done to a classifier's outputs, where the graph leaves that open."""
    ends = facts.onnx.activations if facts.onnx is not None else {}
    said = {
        "none": "the graph gives logits: they go through softmax (activation= says otherwise)",
        "log-softmax": "the graph gives logarithms of probabilities: they go through softmax",
        "sigmoid": "the graph ends in sigmoid: each class has a probability of its own",
        None: "the graph does not tell whether it gives probabilities: they are taken for such (activation=)",
    }
    return [said[end] for end in ends.values() if end in said]


def _size(shape: Sequence[Any], metadata: GraphMetadata) -> tuple[int, int]:
    height, width = shape[2], shape[3]
    if isinstance(height, int) and isinstance(width, int):
        return height, width
    return metadata.size or (640, 640)


def _task(facts: FileFacts, size: tuple[int, int], metadata: GraphMetadata) -> str | None:
    """For graphs without metadata: only shapes that no other family has."""
    outputs = [(spec.name, spec.shape or ()) for spec in facts.outputs]
    protos = [shape for _, shape in outputs if len(shape) == 4]
    try:
        head = read_head(outputs, names=len(metadata.names), end2end=metadata.end2end)
    except ModelFileError:
        return None
    main = next(shape for name, shape in outputs if name == head.output)
    if head.kind == "raw" and main[2] not in [_cells(size, strides) for strides in _LEVELS]:
        return None  # the number of cells follows from the size; anything else is another family's
    if head.kind == "rows" and metadata.end2end is None and not (isinstance(main[1], int) and main[1] <= 1000):
        return None
    return "instance-segmentation" if protos else "object-detection"


def _cells(size: tuple[int, int], strides: Sequence[int]) -> int:
    return sum((size[0] // s) * (size[1] // s) for s in strides)
