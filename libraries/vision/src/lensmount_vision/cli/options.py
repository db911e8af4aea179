"""Options that the commands on pictures share; those about loading are in `lensmount.cli.settings`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SourceNames = Annotated[
    list[str], typer.Argument(help="Files, folders, globs, URLs, videos, camera numbers, rtsp:// addresses.")
]
SaveFolder = Annotated[Path | None, typer.Option(help="Folder for annotated pictures and videos.")]
ResultsFile = Annotated[str | None, typer.Option("--json", help="File for the results as JSON, or - .")]
CocoFile = Annotated[str | None, typer.Option(help="File for the results in COCO's format, or - .")]
Confidence = Annotated[float | None, typer.Option(help="Lowest score, 0 to 1.")]
MaxDetections = Annotated[int | None, typer.Option(help="Most objects per picture.")]
MaxFrames = Annotated[int | None, typer.Option(help="Stop a video or camera after so many frames.")]
