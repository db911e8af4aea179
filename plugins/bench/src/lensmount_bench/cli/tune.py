"""`tune`: measure what can run here, so that `--backend fastest` knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lensmount.cli.settings import ArchitectureName, Offline, RunThreads
from lensmount.errors import InputError

if TYPE_CHECKING:
    from lensmount_bench.records import Kept


def tune(
    model: Annotated[str | None, typer.Argument(help="Model id, path of a file or folder, or address.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda:0, mps; None for each backend's best.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="Precisions that compete, with commas; None for the most exact there is.")
    ] = None,
    threads: RunThreads = None,
    batch: Annotated[int, typer.Option(help="Pictures per call.")] = 1,
    pictures: Annotated[str, typer.Option(help="Folder of pictures, or 'synthetic'.")] = "synthetic",
    architecture: ArchitectureName = None,
    seconds: Annotated[float, typer.Option(help="How long each package is measured, loading not counted.")] = 5.0,
    rounds: Annotated[int, typer.Option(help="Turns that each package takes.")] = 5,
    list_all: Annotated[bool, typer.Option("--list", help="Show what was measured, and stop.")] = False,
    forget: Annotated[bool, typer.Option("--forget", help="Remove what was measured of MODEL, or all with --all.")] = (
        False
    ),
    every: Annotated[bool, typer.Option("--all", help="With --forget: of every model.")] = False,
    json_file: Annotated[str | None, typer.Option("--json", help="File for the times as JSON, or - .")] = None,
    offline: Offline = False,
) -> None:
    """Measure the packages of a model that can run here, in turns, and keep the times for `--backend fastest`."""
    from lensmount import registry
    from lensmount.cli.output import err, out, write_json
    from lensmount_bench.fastest import subject_of
    from lensmount_bench.records import forget as remove
    from lensmount_bench.records import list_kept

    if list_all or forget:
        if forget and model is None and not every:
            raise InputError("--forget wants a model", fix="lensmount tune MODEL --forget, or --forget --all for all")
        subject = None
        if model is not None:
            subject = subject_of(registry.describe(model, architecture=architecture, offline=offline or None))
        if forget:
            removed = remove(subject)
            out().print(f"{len(removed)} removed")
        else:
            _list(list_kept(subject), json_file)
        return
    if model is None:
        raise InputError("tune wants a model", fix="lensmount tune MODEL; lensmount models lists them")
    from lensmount.cli.catalogue import show_plan
    from lensmount.specs import to_dict
    from lensmount_bench.cli.stopping import measuring
    from lensmount_bench.tuning import tune as run

    console = err()
    extra: dict[str, Any] = {} if threads is None else {"threads": threads}
    with measuring(console, "measurements", begun=1) as tell:
        found = run(
            model,
            device=device,
            precision=precision,
            architecture=architecture,
            offline=offline or None,
            pictures=pictures,
            batch=batch,
            seconds=seconds,
            rounds=rounds,
            progress=tell,
            **extra,
        )
    if json_file is not None:
        write_json(None if found.record is None else to_dict(found.record), json_file)
    if json_file != "-":
        show_plan(found.plan)
        if found.path is not None:
            out().print(f"kept in {found.path}", markup=False, soft_wrap=True)
    for text in found.warnings:
        console.print(f"warning: {text}", style="yellow", markup=False, soft_wrap=True)


def _list(kept: list[Kept], json_file: str | None) -> None:
    from lensmount.cli.output import err, out, plain, table, write_json
    from lensmount.specs import to_dict

    if json_file is not None:
        write_json([{"path": str(k.path), "problem": k.problem, "record": to_dict(k.record)} for k in kept], json_file)
    if json_file == "-":
        return
    if not kept:
        err().print("nothing was measured on this machine: lensmount tune MODEL")
        return
    from rich.markup import escape

    rows = table("model", "taken (UTC)", "package", "backend", "device", "precision", "ms a picture", "options")
    for one in kept:
        if one.record is None:
            rows.add_row(
                escape(plain(one.path.name)), "-", "-", "-", "-", "-", f"[red]{escape(plain(one.problem))}[/]", ""
            )
            continue
        record = one.record
        options = ", ".join(f"{name}={value}" for name, value in record.options)
        for i, timing in enumerate(sorted(record.timings, key=lambda t: (t.milliseconds is None, t.milliseconds or 0))):
            time = f"{timing.milliseconds:.2f}" if timing.milliseconds is not None else plain(timing.error)
            head = (record.model, record.taken) if i == 0 else ("", "")
            cells = (*head, timing.package, timing.backend, timing.device, timing.precision, time, options * (i == 0))
            rows.add_row(*(escape(plain(cell)) for cell in cells))
    out().print(rows)
