"""Recognises RF-DETR files by their content: tensor names and shapes, graph outputs, metadata."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lensmount.contracts import NotRunnable
from lensmount.errors import ModelFileError
from lensmount.specs import Artifact, ModelCard, ModelPackage
from lensmount_reading import first_stranger, printable
from lensmount_rfdetr.head import Head, read_head
from lensmount_rfdetr.layout import find_variant, is_rfdetr
from lensmount_rfdetr.strangers import STRANGERS

if TYPE_CHECKING:
    from lensmount_reading import FileFacts

_WEIGHTS = ("torch", "torch-legacy", "safetensors")


def recognise(facts: FileFacts) -> ModelCard | NotRunnable | None:
    """A card for a bare RF-DETR file or Hugging Face folder, why one near it is not run, or None for other files.

    Raises:
        ModelFileError: It is an RF-DETR, but its parts contradict one another.
        UnsupportedModelError: It is an RF-DETR of a kind that is not run here.
    """
    card = _graph(facts) if facts.kind == "onnx" else _weights(facts) if facts.kind in _WEIGHTS else None
    return card or first_stranger(facts, STRANGERS)


def _graph(facts: FileFacts) -> ModelCard | NotRunnable | None:
    from lensmount_rfdetr.names import GRAPH, by_column, describe, from_metadata

    ours = facts.metadata.get("lensmount.architecture") == "rfdetr"
    names = {value.name for value in facts.outputs}
    # Other detectors have outputs of these shapes too; rfdetr's exporter names them so.
    if not ours and not {"dets", "labels"} <= names:
        return None
    if len(facts.inputs) != 1 or len(facts.inputs[0].shape) != 4:
        return None
    try:
        head = read_head([(value.name, value.shape) for value in facts.outputs])
    except ModelFileError:
        if ours:
            raise
        return None
    if not (ours or _looks_alike(facts, head)):
        return None
    if head.columns is None:
        labels = next(value for value in facts.outputs if value.name == head.logits)
        return NotRunnable(
            "an RF-DETR's graph that leaves open how many classes it has",
            f"output {printable(labels.name, 40)} of shape ({', '.join(printable(s, 40) for s in labels.shape)})",
            "load the weights (.pth), or export them again so that the last dimension of labels is a number: rfdetr's "
            "export(), or `lensmount export MODEL --to onnx`",
        )
    task = "instance-segmentation" if head.masks else "object-detection"
    where = facts.path.name
    named = describe(by_column(from_metadata(facts.metadata), head.columns, where, GRAPH), head.columns, where)
    variant = facts.metadata.get("lensmount.variant")
    return _card(facts, "onnx", task, named, (_artifact(facts, "weights.onnx", "graph"),), variant)


def _looks_alike(facts: FileFacts, head: Head) -> bool:
    """Boxes `(B, Q, 4)`, with a picture of three channels; mmdeploy's `dets` have five columns, and integer labels.

    Any dimension may be a name instead: rfdetr's own `export(dynamic_batch=True)` names those of the boxes.
    """
    shapes = {value.name: value for value in facts.outputs}
    boxes, logits = shapes[head.boxes], shapes[head.logits]
    named = not isinstance(boxes.shape[2], int)
    return facts.inputs[0].shape[1] == 3 and (named or boxes.shape[2] == 4) and "float" in logits.dtype


def _weights(facts: FileFacts) -> ModelCard | None:
    from lensmount_rfdetr.checkpoint import BESIDE, check_folder, layout_of, read_config, read_contents
    from lensmount_rfdetr.keys import original_keys
    from lensmount_rfdetr.names import describe

    names = original_keys(facts.tensors)
    if not is_rfdetr({name: facts.tensors[key].shape for key, name in names.items()}):
        return None
    beside = {name: facts.path.parent / name for name in BESIDE} if _is_folder(facts) else {}
    beside = {name: path for name, path in beside.items() if path.is_file()}
    contents = read_contents(facts.checkpoint, read_config(beside))
    layout = layout_of(contents, facts.path.name)
    notes = check_folder(beside, contents, layout, facts.path.name)
    artifacts = [_artifact(facts, facts.path.name if beside else "weights.bin", "weights", beside=bool(beside))]
    artifacts += [
        Artifact(name=name, uri=path.absolute().as_uri(), role="data", size=path.stat().st_size, confidence="official")
        for name, path in beside.items()
    ]
    named = describe(contents.said, layout.columns, facts.path.name)
    variant = find_variant(layout)
    return _card(facts, "torch", layout.task, named, tuple(artifacts), variant.name if variant else None, notes)


def _is_folder(facts: FileFacts) -> bool:
    """Whether the configuration in the folder is the file's: by Hugging Face's names of weights, or its own word."""
    from lensmount_rfdetr.checkpoint import CONFIG, says_rfdetr

    named = facts.kind == "safetensors" and facts.path.name.startswith("model.")
    return named or says_rfdetr(facts.path.parent / CONFIG)


def _artifact(facts: FileFacts, name: str, role: str, *, beside: bool = False) -> Artifact:
    return Artifact(
        name=name,
        # Where a folder was named, the core would put the folder's address here.
        uri=Path(facts.path).absolute().as_uri() if beside else "",
        role="graph" if role == "graph" else "weights",
        size=facts.size,
        confidence="official",
    )


def _card(
    facts: FileFacts,
    format: str,
    task: str,
    named: tuple[tuple[str, ...], str],
    artifacts: tuple[Artifact, ...],
    variant: str | None,
    notes: tuple[str, ...] = (),
) -> ModelCard:
    """The card of a file that came without one; the core fills in where it lies."""
    package = ModelPackage(
        name=f"{format}-{facts.precision}", format=format, precision=facts.precision, artifacts=artifacts
    )
    return ModelCard(
        id="file",
        architecture="rfdetr",
        task=task,
        classes=named[0],
        description=f"RF-DETR ({variant})" if variant else "RF-DETR",
        settings=(("variant", variant),) if variant else (),
        packages=(package,),
        notes=(named[1], *notes),
    )
