"""Cards of files that came without one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lensmount.specs import Artifact, ModelCard, ModelPackage

if TYPE_CHECKING:
    from lensmount.specs import Preprocess
    from lensmount_reading import FileFacts
    from lensmount_yolo.metadata import GraphMetadata


def bare_card(
    facts: FileFacts, metadata: GraphMetadata, task: str, format: str, precision: str, preprocess: Preprocess | None
) -> ModelCard:
    """A card with one package of one file; the core fills in where the file lies."""
    licence = "AGPL-3.0" if "AGPL" in (metadata.licence or "") else (metadata.licence or "unknown").split("\n")[0][:60]
    notes = () if metadata.names else ("the file holds no class names",)
    artifact = Artifact(
        name={"onnx": "weights.onnx", "torch": "weights.bin"}[format],
        uri="",
        role="graph" if format == "onnx" else "weights",
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
        classes=metadata.names,
        licence=licence,
        description=metadata.description,
        packages=(package,),
        notes=notes,
    )
