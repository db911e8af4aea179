"""Recognises BlazeFace files by their inputs and outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lensmount.specs import Artifact, ModelCard, ModelPackage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lensmount_reading import FileFacts

    Shape = Sequence[int | str | None]

#: Strides of the maps that anchors lie on, and anchors at each of their cells, by the input's side and by their number.
LAYOUTS: dict[tuple[int, int], tuple[tuple[int, int], ...]] = {
    (128, 896): ((8, 2), (16, 6)),
    (256, 896): ((16, 2), (32, 6)),
    (192, 2304): ((4, 1),),
}
VALUES = 16
"""Of a face: box centre and size, then six points, each x and y."""


def layout(picture: Shape, outputs: Sequence[Shape]) -> tuple[int, int] | None:
    """The key of `LAYOUTS` that a graph has, or None where it is no BlazeFace."""
    if len(picture) != 4 or picture[1] != picture[2] or picture[3] != 3 or len(outputs) != 2:
        return None
    sizes = sorted((tuple(shape[1:]) for shape in outputs if len(shape) == 3), key=lambda sizes: str(sizes[-1]))
    if len(sizes) != 2 or sizes[0][0] != sizes[1][0] or {sizes[0][1], sizes[1][1]} != {1, VALUES}:
        return None
    side, count = picture[1], sizes[0][0]
    found = (side, count) if isinstance(side, int) and isinstance(count, int) else (0, 0)
    return found if found in LAYOUTS else None


MESH_SIDE, POINTS = 192, 468


def is_mesh(picture: Shape, outputs: Sequence[Shape]) -> bool:
    """Whether a graph has the inputs and outputs of MediaPipe's face landmarks."""
    sizes = sorted(str(tuple(shape)) for shape in outputs)
    return tuple(picture[1:]) == (MESH_SIDE, MESH_SIDE, 3) and sizes == ["(1, 1, 1, 1)", f"(1, 1, 1, {3 * POINTS})"]


def recognise_mesh(facts: FileFacts) -> ModelCard | None:
    """A card for a bare file of MediaPipe's face landmarks, or None when it is something else."""
    shapes = [value.shape or () for value in facts.outputs]
    if facts.kind != "tflite" or len(facts.inputs) != 1 or not is_mesh(facts.inputs[0].shape or (), shapes):
        return None
    return _bare(facts, "facemesh", f"MediaPipe's face landmarks, {POINTS} points")


def recognise(facts: FileFacts) -> ModelCard | None:
    """A card for a bare BlazeFace file, or None when it is something else."""
    if facts.kind != "tflite" or len(facts.inputs) != 1:
        return None
    found = layout(facts.inputs[0].shape or (), [value.shape or () for value in facts.outputs])
    if found is None:
        return None
    return _bare(facts, "blazeface", f"BlazeFace, {found[0]} pixels")


def _bare(facts: FileFacts, architecture: str, description: str) -> ModelCard:
    artifact = Artifact(name="model.tflite", uri="", role="graph", size=facts.size)
    return ModelCard(
        id="file",
        architecture=architecture,
        task="keypoint-detection",
        classes=("face",),
        description=description,
        packages=(ModelPackage(name="tflite", format="tflite", artifacts=(artifact,)),),
    )
