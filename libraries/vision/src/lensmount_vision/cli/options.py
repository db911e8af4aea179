"""Options that the commands on pictures share; those about loading are in `lensmount.cli.settings`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

SourceNames = Annotated[
    list[str], typer.Argument(help="Files, folders, globs, URLs, videos, camera numbers, rtsp:// addresses.")
]
SaveFolder = Annotated[Path | None, typer.Option(help="Folder for annotated pictures and videos.")]
ResultsFile = Annotated[str | None, typer.Option("--json", help="File for the results as JSON, or - .")]
CocoFile = Annotated[str | None, typer.Option(help="File for the results in COCO's format, or - .")]
Confidence = Annotated[float | None, typer.Option(help="Lowest score, 0 to 1.")]
ClassNames = Annotated[str | None, typer.Option(help="Names or ids of the classes wanted, comma-separated.")]
BoxOverlap = Annotated[float | None, typer.Option(help="Overlap above which the weaker box goes, 0 to 1.")]
MaxDetections = Annotated[int | None, typer.Option(help="Most objects per picture.")]
MaxFrames = Annotated[int | None, typer.Option(help="Stop a video or camera after so many frames.")]


def call_options(
    confidence: float | None, classes: str | None, iou: float | None, max_detections: int | None
) -> dict[str, Any]:
    """Options of a model's call, as far as they were given."""
    wanted: list[str | int] | None = None
    if classes is not None:
        parts = [part.strip() for part in classes.split(",") if part.strip()]
        wanted = [int(part) if part.isdigit() else part for part in parts]
    values = {"confidence": confidence, "classes": wanted, "iou_threshold": iou, "max_detections": max_detections}
    return {name: value for name, value in values.items() if value is not None}
