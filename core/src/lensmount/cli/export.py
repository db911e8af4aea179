"""`export`: another format of a model, checked against the original before it is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def add_to(app: typer.Typer) -> None:
    """Registers the command."""
    app.command()(export)


def export(
    model: Annotated[str, typer.Argument(help="Model id, path or address; it needs a torch package.")],
    to: Annotated[str, typer.Option("--to", help="Format to write.")] = "onnx",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write.")] = None,
    precision: Annotated[str, typer.Option(help="fp32 or fp16.")] = "fp32",
    dynamic: Annotated[bool, typer.Option("--dynamic", help="Dynamic batch (and size, where it can).")] = False,
    batch: Annotated[int, typer.Option(help="Batch size of a static export.")] = 1,
    nms: Annotated[str | None, typer.Option(help="none or embedded, for detectors with suppression.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Open no socket.")] = False,
) -> None:
    """Export a model to another format; the result is compared with the original before it is kept."""
    from lensmount import registry
    from lensmount.cli.output import err

    settings = {} if nms is None else {"nms": nms}
    written = registry.export(
        model,
        to=to,
        output=output,
        precision=precision,
        dynamic=dynamic,
        batch=batch,
        offline=offline or None,
        settings=settings,
    )
    err().print("wrote", end=" ")
    print(written)
