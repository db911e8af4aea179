"""`bench`: how long a model takes, from a cold start to the tail of the hundredth call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lensmount.cli.settings import (
    ArchitectureName,
    BackendNames,
    DeviceName,
    ModelName,
    NumbersFile,
    Offline,
    PrecisionNames,
    RunThreads,
)
from lensmount.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from lensmount_bench.report import BenchReport, Summary


def bench(
    model: ModelName,
    source: Annotated[str, typer.Option(help="Folder of pictures, or 'synthetic'.")] = "synthetic",
    backend: BackendNames = None,
    precision: PrecisionNames = None,
    device: DeviceName = None,
    batch: Annotated[str, typer.Option(help="Pictures per call; several with commas.")] = "1",
    threads: RunThreads = None,
    concurrency: Annotated[int, typer.Option(help="Threads that call the model at once.")] = 1,
    compare: Annotated[str | None, typer.Option(help="Another model, measured in turns with the first.")] = None,
    architecture: ArchitectureName = None,
    seconds: Annotated[float, typer.Option(help="How long each variant is measured, start-up not counted.")] = 10.0,
    rounds: Annotated[int, typer.Option(help="Turns that each variant takes.")] = 5,
    cold: Annotated[int, typer.Option(help="Cold starts of each variant.")] = 3,
    json_file: NumbersFile = None,
    offline: Offline = False,
) -> None:
    """Measure start-up, stages, tail, throughput and memory; variants take turns in processes of their own."""
    from lensmount.cli.output import err, out, write_json
    from lensmount_bench import harness as harness
    from lensmount_bench.cli.stopping import measuring

    console = err()
    with measuring(console, "measurements", begun=1) as tell:
        report = harness.run(
            model,
            source=source,
            backends=words(backend),
            precisions=words(precision),
            device=device,
            batch=_numbers(batch),
            threads=threads,
            concurrency=concurrency,
            compare=compare,
            architecture=architecture,
            offline=offline or None,
            seconds=seconds,
            rounds=rounds,
            cold=cold,
            progress=tell,
        )
    if json_file is not None:
        write_json(report.to_dict(), json_file)
    if json_file != "-":
        show(out(), report)
    for text in report.warnings:
        console.print(f"warning: {text}", style="yellow", markup=False, soft_wrap=True)


def words(text: str | None) -> list[str | None]:
    """What stands between commas; `[None]` for nothing."""
    found: list[str | None] = [word.strip() for word in (text or "").split(",") if word.strip()]
    return found or [None]


def _numbers(text: str) -> list[int]:
    numbers = [word for word in words(text) if word is not None]
    if not numbers or not all(word.isdecimal() for word in numbers):
        raise InputError("--batch is not valid", found=repr(text), expected="whole numbers with commas: 1,8")
    return [int(word) for word in numbers]


def show(console: Console, report: BenchReport) -> None:
    """Prints a report."""
    from lensmount.cli.output import size, table
    from lensmount_bench.report import describe_machine

    console.print(describe_machine(report.machine), markup=False, soft_wrap=True)
    for variant in report.variants:
        console.print()
        if variant.error is not None or variant.call is None:
            console.print(f"{variant.variant.label}: not measured: {variant.error}", markup=False, soft_wrap=True)
            continue
        found = variant.effective
        title = (
            f"{variant.variant.label}: {found['task']}, {found['provider']}, {found['device']}, {found['precision']}"
        )
        console.print(title, markup=False, soft_wrap=True)
        rows = table("ms per call", "p50", "p95", "p99", "calls")
        rows.add_row("whole call", *_cells(variant.call))
        for name, summary in variant.stages.items():
            rows.add_row(f"  {name}", *_cells(summary))
        console.print(rows)
        phases = ", ".join(f"{name} {summary.p50:.0f}" for name, summary in variant.cold.items() if name != "total")
        cold = variant.cold["total"]
        facts = [
            f"cold start {cold.p50:.0f} ms ({cold.least:.0f} to {cold.most:.0f}): {phases}",
            f"{variant.images_per_second:.1f} images/s by calls, {variant.stream_images_per_second:.1f} streamed; "
            f"{variant.cpu_ms_per_image:.1f} ms of CPU per image",
            f"memory {size(variant.rss_loaded)} loaded, {size(variant.rss_peak)} at the peak"
            + ("" if variant.device_memory is None else f", {size(variant.device_memory)} on the GPU"),
            f"rounds differ by {variant.spread:.0%}",
        ]
        for fact in facts:
            console.print(fact, markup=False, soft_wrap=True)
    for other in report.comparisons:
        text = f"{other.label}: {other.ratio:.3f} of the first's time per image ({other.least:.3f} to {other.most:.3f})"
        console.print(text, markup=False, soft_wrap=True)


def _cells(summary: Summary) -> list[str]:
    return [*(f"{value:.2f}" for value in (summary.p50, summary.p95, summary.p99)), str(summary.count)]
