"""`eval`: how right a model is on pictures whose truth is known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lensmount.cli.settings import (
    ArchitectureName,
    BackendNames,
    DeviceName,
    ModelName,
    NumbersFile,
    Offline,
    PrecisionNames,
    Threads,
)
from lensmount.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from lensmount_bench.accuracy_report import EvalReport, EvalRow


def evaluate(
    model: ModelName,
    images: Annotated[
        Path,
        typer.Option(help="Folder of pictures; for classification one folder per class; for tracking a video too."),
    ],
    annotations: Annotated[
        Path | None, typer.Option(help="COCO's JSON, for boxes and masks; the MOTChallenge's gt.txt, for tracking.")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="object-detection, instance-segmentation, classification, tracking; None for the model's own."
        ),
    ] = None,
    tracker: Annotated[str | None, typer.Option(help="For tracking: bytetrack, sort, ocsort, botsort, cbiou.")] = None,
    backend: BackendNames = None,
    precision: PrecisionNames = None,
    device: DeviceName = None,
    confidence: Annotated[
        float | None, typer.Option(help="Lowest score of detections that count; None for 0.001, for tracking 0.25.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first so many pictures.")] = None,
    renamed: Annotated[
        list[str] | None, typer.Option("--map", help="'model class=annotated class', where the names differ.")
    ] = None,
    architecture: ArchitectureName = None,
    threads: Threads = None,
    json_file: NumbersFile = None,
    offline: Offline = False,
) -> None:
    """Average precision (COCO) of boxes and masks, accuracy of classifiers, HOTA and IDF1 of tracks."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

    from lensmount.cli.output import err, out, write_json
    from lensmount_bench.accuracy import evaluate as run
    from lensmount_bench.cli.bench import words
    from lensmount_bench.cli.stopping import measuring

    console = err()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    load: dict[str, Any] = {"architecture": architecture, "threads": threads, "offline": offline or None}
    with measuring(console, "pictures", *columns) as tell:
        report = run(
            model,
            images,
            annotations,
            task=task,
            backends=words(backend),
            precisions=words(precision),
            device=device,
            confidence=confidence,
            limit=limit,
            renamed=_pairs(renamed or []),
            tracker=tracker,
            load=load,
            progress=tell,
        )
    if json_file is not None:
        write_json(report.to_dict(), json_file)
    if json_file != "-":
        show(out(), report)
    for row in report.rows:
        for text in [*row.warnings[:5], *(f"not used: {name}" for name in row.failed[:5])]:
            console.print(f"warning: {row.label}: {text}", style="yellow", markup=False, soft_wrap=True)


def _pairs(texts: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    for old, equals, new in pairs:
        if not (old and equals and new):
            raise InputError("--map is not valid", found=repr(old + equals + new), expected="'model=annotations'")
    return {old: new for old, _, new in pairs}


def show(console: Console, report: EvalReport) -> None:
    """Prints a report: one table of all combinations, then classes and confusion of the first."""
    from lensmount.cli.output import table
    from lensmount_bench.accuracy_report import shown

    done = [row for row in report.rows if row.error is None]
    names = list(dict.fromkeys(name for row in done for name in row.scores))
    scores = table("", *names, "images", "images/s")
    for row in done:
        cells = [shown(row.scores.get(name, float("nan"))) for name in names]
        scores.add_row(_label(row), *cells, str(row.images), f"{row.images_per_second:.1f}")
    console.print(scores)
    for row in report.rows:
        if row.error is not None:
            console.print(f"{row.label}: not evaluated: {row.error}", markup=False, soft_wrap=True)
    first = done[0]
    if first.tracking:
        return
    kinds = ["accuracy" if first.accuracy else "box AP", *(["mask AP"] if first.mask_classes else [])]
    classes = table("class", *kinds)
    for name, value in first.classes.items():
        more = [shown(first.mask_classes[name])] if first.mask_classes else []
        classes.add_row(name, shown(value), *more)
    console.print(classes)
    mistakes = first.confusion.worst(6) if first.confusion is not None else []
    if mistakes:
        confused = table("truth", "taken for", "times")
        for truth, predicted, count in mistakes:
            confused.add_row(truth, predicted, str(count))
        console.print(confused)


def _label(row: EvalRow) -> str:
    return " ".join(row.effective[name] for name in ("backend", "device", "precision"))
