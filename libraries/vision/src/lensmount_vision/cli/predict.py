"""`predict`: run a model over files, folders, addresses, videos and cameras."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lensmount.cli.settings import (
    ArchitectureName,
    BackendName,
    DeviceName,
    ModelName,
    Offline,
    Options,
    PrecisionName,
    Refresh,
    Threads,
    load_options,
)
from lensmount.errors import InputError, LensmountError
from lensmount_vision.cli.options import (
    BoxOverlap,
    ClassNames,
    CocoFile,
    Confidence,
    MaxDetections,
    MaxFrames,
    ResultsFile,
    SaveFolder,
    SliceSize,
    SourceNames,
    call_options,
    tile,
)

if TYPE_CHECKING:
    from lensmount_vision.cli.sinks import Sinks
    from lensmount_vision.models.streaming import Stream


def predict(
    model: ModelName,
    source: SourceNames,
    save: SaveFolder = None,
    json_file: ResultsFile = None,
    coco: CocoFile = None,
    confidence: Confidence = None,
    classes: ClassNames = None,
    iou: BoxOverlap = None,
    max_detections: MaxDetections = None,
    backend: BackendName = None,
    device: DeviceName = None,
    precision: PrecisionName = None,
    architecture: ArchitectureName = None,
    threads: Threads = None,
    reduced_decode: Annotated[
        bool,
        typer.Option("--reduced-decode", help="Decode JPEGs far larger than the network's input at 1/2 to 1/8."),
    ] = False,
    options: Options = None,
    max_frames: MaxFrames = None,
    slice_size: SliceSize = None,
    offline: Offline = False,
    refresh: Refresh = False,
) -> None:
    """Find things in pictures and videos; one bad picture is reported and the rest go on (exit status 1)."""
    from lensmount import registry
    from lensmount_vision.cli.sinks import Sinks
    from lensmount_vision.models.entries import entries_of
    from lensmount_vision.models.streaming import stream

    if json_file == "-" and coco == "-":
        raise InputError("--json - and --coco - both want standard output", fix="write one of them to a file")
    call = call_options(confidence, classes, iou, max_detections)
    _not_swapped(model, source)
    entries_of(source)  # bad sources are refused before weights are fetched
    extra = load_options(options, threads)
    if reduced_decode:
        extra["reduced_decode"] = True
    with registry.load(
        model,
        backend=backend,
        device=device,
        precision=precision,
        architecture=architecture,
        offline=offline or None,
        refresh=refresh,
        **extra,
    ) as loaded:
        sinks = Sinks(loaded, save=save, json_file=json_file, coco=coco)
        run(stream(loaded, source, max_frames=max_frames, slice=tile(slice_size), **call), sinks)


def _not_swapped(model: str, source: list[str]) -> None:
    """Refuses a picture in the model's place with a model after it, before each is missed as what it is not.

    Raises:
        InputError: They are in the wrong order.
    """
    from pathlib import Path

    from lensmount import registry
    from lensmount_vision.images.sources import IMAGE_SUFFIXES

    if Path(model).suffix.lower() in IMAGE_SUFFIXES and source[0] in {
        name for card in registry.models() for name in (card.id, *card.aliases)
    }:
        raise InputError(
            "the model comes first, then the pictures",
            found=f"{model}, {source[0]}",
            fix=f"lensmount predict {source[0]} {model}",
        )


def run(work: Stream, sinks: Sinks, what: str = "predict") -> None:
    """Takes result by result, and writes what is written at the end.

    Args:
        work: What gives them.
        sinks: Where they go.
        what: The command's name, for the bar of progress.

    Raises:
        typer.Exit: With status 1 where a picture failed; with 130 where Ctrl-C ended what had an end of its own. What
            was done until then is written all the same. A camera has no end: stopping it is no failure.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from lensmount.cli.output import err, see
    from lensmount_vision.cli.stopping import leave, uninterrupted

    failed: list[str] = []
    console = err()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = not console.is_terminal or (work.total is not None and work.total < 3)
    done, stopped = 0, False
    with Progress(*columns, console=console, disable=hidden, transient=True) as progress, work:
        task = progress.add_task(what, total=work.total)
        try:
            for info, result in work:
                with uninterrupted():
                    if info.error is None:
                        sinks.add(info, result)
                    else:
                        failed.append(info.error.page)
                        text = info.error.details
                        text = text if info.source in info.error.problem else f"{info.name}: {text}"
                        console.print(text, style="red", markup=False, soft_wrap=True)
                    done += 1
                    if work.total is None or not info.frame:  # an animation counts as one of the total
                        progress.advance(task)
        except KeyboardInterrupt:
            stopped = True
        except LensmountError:
            sinks.abort()
            raise
    try:
        sinks.finish()
    except KeyboardInterrupt:
        sinks.abort()
        raise
    if stopped and not work.live:
        leave(done, work.total, "pictures" if work.total is not None else "pictures and frames")
    if stopped:
        console.print("stopped")
    see(failed)
    if failed:
        raise typer.Exit(1)
