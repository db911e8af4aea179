"""Cards of files that came without one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lensmount.specs import Artifact, ModelCard, ModelPackage
from lensmount_yolo.names import describe

if TYPE_CHECKING:
    from lensmount.specs import Preprocess
    from lensmount_reading import FileFacts
    from lensmount_yolo.metadata import GraphMetadata


def bare_card(
    facts: FileFacts,
    metadata: GraphMetadata,
    task: str,
    format: str,
    preprocess: Preprocess | None,
    columns: int | None,
) -> ModelCard:
    """A card with one package of one file, whose scores have so many columns; the core fills in where it lies."""
    # LiteRT widens weights that are stored in half, and computes in float32
    precision = "fp32" if format == "tflite" and facts.precision != "int8" else facts.precision
    licence = "AGPL-3.0" if "AGPL" in (metadata.licence or "") else (metadata.licence or "unknown").split("\n")[0][:60]
    names, notes = describe(metadata.names, metadata.ids, columns, facts.path.name)
    artifact = Artifact(
        name={"onnx": "weights.onnx", "tflite": "weights.tflite", "torch": "weights.bin"}[format],
        uri="",
        role="weights" if format == "torch" else "graph",
        size=facts.size,
        confidence="official",
    )
    package = ModelPackage(
        name=f"{format}-{precision}", format=format, precision=precision, artifacts=(artifact,), preprocess=preprocess
    )
    return ModelCard(
        id="file",
        architecture="yolo",
        task=task,
        classes=names,
        licence=licence,
        description=metadata.description,
        packages=(package,),
        notes=notes,
    )
