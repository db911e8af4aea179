"""Recognises YOLO files by their content: graph outputs, metadata, tensor names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lensmount.contracts import NotRunnable
from lensmount.errors import ModelFileError
from lensmount.specs import ModelCard, Preprocess
from lensmount_reading import first_stranger, printable
from lensmount_yolo.cards import bare_card
from lensmount_yolo.head import read_head
from lensmount_yolo.metadata import TASKS, GraphMetadata, parse
from lensmount_yolo.strangers import ANCHORS, STRANGERS, SUPPRESSED

if TYPE_CHECKING:
    from lensmount_reading import FileFacts

_LEVELS = ((8, 16, 32), (4, 8, 16, 32), (8, 16, 32, 64))
_RANKED = ("object-detection", "instance-segmentation", "keypoint-detection", "oriented-object-detection")
_OURS = "an export of ultralytics that takes the picture alone, or `lensmount export MODEL --to onnx`"
Outputs = Sequence[tuple[str, Sequence[Any]]]


def recognise(facts: FileFacts) -> ModelCard | NotRunnable | None:
    """A card for a bare YOLO file, why one near it is not run, or None when it is something else.

    Raises:
        ModelFileError: It is a YOLO file, but its parts contradict one another.
        UnsupportedModelError: It is a YOLO's weights, of a kind that is not run here.
    """
    card: ModelCard | NotRunnable | None = None
    if facts.kind == "onnx":
        card = _graph(facts, "onnx")
    elif facts.kind == "tflite" and ("names" in facts.metadata or "task" in facts.metadata):
        card = _tflite(facts)
    elif facts.kind in ("torch", "torch-legacy", "safetensors"):
        from lensmount_yolo.checkpoint import recognise_weights

        card = recognise_weights(facts)
    return card or first_stranger(facts, STRANGERS)


def _tflite(facts: FileFacts) -> ModelCard | NotRunnable | None:
    """An export of ultralytics: the graph of the ONNX export, but that pictures have their channels last."""
    inputs = tuple(
        replace(value, shape=(shape[0], shape[3], *shape[1:3])) if len(shape := value.shape or ()) == 4 else value
        for value in facts.inputs
    )
    card = _graph(replace(facts, inputs=inputs), "tflite")
    if not isinstance(card, ModelCard) or card.task == "classification":
        return card
    if card.task == "object-detection":
        outputs = [(spec.name, spec.shape or ()) for spec in facts.outputs]
        if _columns(outputs, parse(facts.metadata), card.task) is not None:
            return card
        return NotRunnable("a YOLO's TFLite graph with suppression in it", str(outputs[0][1]), SUPPRESSED)
    return NotRunnable(
        "a YOLO's TFLite graph for another task than detection and classification", card.task, f"load {_OURS}"
    )


def _graph(facts: FileFacts, format: str) -> ModelCard | NotRunnable | None:
    ours = "names" in facts.metadata or "task" in facts.metadata
    metadata = parse(facts.metadata) if ours else GraphMetadata()
    outputs = [(spec.name, spec.shape or ()) for spec in facts.outputs]
    shape = facts.inputs[0].shape if len(facts.inputs) == 1 else ()
    if len(shape) != 4 or not _is_channels(shape, ours):
        return _other_inputs(facts) if ours else None
    size = _size(shape, metadata)
    task = metadata.task or (_by_names(outputs, metadata) if metadata.names else None) or _task(facts, size, metadata)
    if task is not None and task not in TASKS.values():
        return NotRunnable(
            "a YOLO's graph for a task that no YOLO here has",
            f"metadata task {printable(facts.metadata.get('task', ''), 60)}",
            f"ultralytics runs it; tasks that are run here: {', '.join(TASKS)}",
        )
    near = _near(outputs, size, metadata)
    if task is None or (near is not None and not _fits(outputs, metadata, task)):
        return near
    columns = _columns(outputs, metadata, task)
    channels = shape[1] if isinstance(shape[1], int) else metadata.channels or 3
    preprocess = None if task == "classification" else Preprocess(size=size, channels=channels)
    card = bare_card(facts, metadata, task, format, preprocess, columns)
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


def _is_channels(shape: Sequence[Any], ours: bool) -> bool:
    """Whether the second dimension can be a picture's channels; more than three only where a YOLO says it is one."""
    count = shape[1]
    if not isinstance(count, int) or count in (1, 3):
        return True
    last = shape[3]
    return ours and count > 0 and not (isinstance(last, int) and last <= 4 < count)


def _other_inputs(facts: FileFacts) -> NotRunnable:
    """A YOLO by its metadata, whose inputs are not one picture `(B, C, H, W)`."""
    shown = ", ".join(
        f"{printable(value.name, 40)} ({', '.join(printable(side, 20) for side in value.shape)})"
        for value in facts.inputs[:6]
    )
    what = (
        "of several inputs" if len(facts.inputs) > 1 else "whose input is no picture (batch, channels, rows, columns)"
    )
    return NotRunnable(f"a YOLO's graph {what}", shown or "no inputs", f"load {_OURS}")


def _size(shape: Sequence[Any], metadata: GraphMetadata) -> tuple[int, int]:
    height, width = shape[2], shape[3]
    if isinstance(height, int) and isinstance(width, int):
        return height, width
    return metadata.size or (640, 640)


def _extra(metadata: GraphMetadata, task: str) -> int:
    """Values of a box after its classes."""
    points = metadata.keypoints or (17, 3)
    extras = {
        "instance-segmentation": 32,
        "keypoint-detection": points[0] * points[1],
        "oriented-object-detection": 1,
    }
    return extras.get(task, 0)


def _columns(outputs: Outputs, metadata: GraphMetadata, task: str) -> int | None:
    """Columns of the scores; None where the graph does not say.

    Raises:
        ModelFileError: The outputs are not those of a YOLO for the task.
    """
    if task == "classification":
        last = outputs[0][1][1] if len(outputs) == 1 and len(outputs[0][1]) == 2 else None
        return last if isinstance(last, int) else None
    extra = _extra(metadata, task)
    head = read_head(outputs, names=len(metadata.names), extra=extra, end2end=metadata.end2end)
    return head.classes if head.kind == "raw" else None


def _fits(outputs: Outputs, metadata: GraphMetadata, task: str) -> bool:
    """Whether a graph that could be another's is a YOLO's: one column for each name, or rows that it says are final."""
    try:
        columns = _columns(outputs, metadata, task)
    except ModelFileError:
        return False
    return metadata.end2end is True if columns is None else not metadata.names or columns == len(metadata.names)


def _by_names(outputs: Outputs, metadata: GraphMetadata) -> str | None:
    """The task of a graph that has class names and does not say its task: the only one that its shapes fit."""
    if len(outputs) == 1 and len(outputs[0][1]) == 2:
        return "classification" if outputs[0][1][1] == len(metadata.names) else None
    if any(len(shape) == 4 for _, shape in outputs):
        return None
    fitting = []
    for task in _RANKED:
        if task == "instance-segmentation" or (task == "keypoint-detection" and metadata.keypoints is None):
            continue
        try:
            head = read_head(outputs, names=len(metadata.names), extra=_extra(metadata, task), end2end=metadata.end2end)
        except ModelFileError:
            continue
        main = next(shape for name, shape in outputs if name == head.output)
        if head.kind == "rows" or (isinstance(main[1], int) and head.classes == len(metadata.names)):
            fitting.append(task)
    return fitting[0] if len(fitting) == 1 else None


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


def _near(outputs: Outputs, size: tuple[int, int], metadata: GraphMetadata) -> NotRunnable | None:
    """Graphs of other YOLOs, which only the shapes of their outputs tell."""
    shown = ", ".join(f"{printable(n, 40)} ({', '.join(printable(side, 20) for side in s)})" for n, s in outputs[:4])
    shapes = [shape for _, shape in outputs]
    cells = {_cells(size, strides): strides for strides in _LEVELS}
    if len(shapes) == 1 and len(shapes[0]) == 2 and shapes[0][1] == 7:
        return NotRunnable(
            "a YOLOv7's graph with suppression in it (rows: picture, box, class, score)", shown, SUPPRESSED
        )
    maps = [shape for shape in shapes if len(shape) == 5]
    if maps and all(isinstance(shape[-1], int) and shape[-1] > 5 for shape in maps):
        return NotRunnable("a graph of the original YOLOv5 or YOLOv7, with anchors", shown, ANCHORS)
    flat = next((shape for shape in shapes if len(shape) == 3), None)
    if flat is None or not isinstance(flat[1], int) or not isinstance(flat[2], int):
        return None
    pair = [shape for shape in shapes if len(shape) == 3 and shape[1] == flat[1]]
    if flat[1] in cells and len(shapes) == 2 and len(pair) == 2 and 4 in (pair[0][2], pair[1][2]):
        return NotRunnable("a YOLO-NAS or PP-YOLOE graph (boxes and scores apart)", shown, "run it with its own tools")
    if flat[2] < 6:
        return None
    if flat[1] in [3 * count for count in cells]:
        return NotRunnable("a graph of the original YOLOv5 or YOLOv7, with anchors", shown, ANCHORS)
    if flat[1] in cells and len(shapes) == 1:
        return NotRunnable(
            "a graph with a row for each cell: a YOLOX, or a YOLO whose output was transposed",
            shown,
            f"run it with its own tools, or load {_OURS}, whose output is (batch, 4 + classes, cells)",
        )
    return None


def _cells(size: tuple[int, int], strides: Sequence[int]) -> int:
    return sum((size[0] // s) * (size[1] // s) for s in strides)
