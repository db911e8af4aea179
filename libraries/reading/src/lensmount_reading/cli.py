"""`inspect` and `convert`: look at model files and rewrite checkpoints, without running anything from them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lensmount.cli.settings import AsJson

if TYPE_CHECKING:
    from lensmount_reading.facts import FileFacts

File = Annotated[Path, typer.Argument(help="Checkpoint, ONNX graph, safetensors file, or folder of shards.")]


def inspect(
    file: File,
    every: Annotated[bool, typer.Option("--all", help="List every tensor, not the first 40.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show keys, shapes, metadata and refused globals of a model file; nothing in it is run (exit 1: refused)."""
    from lensmount.cli.output import write_json
    from lensmount_reading.inspection import inspect_file

    facts = inspect_file(file)
    if as_json:
        write_json(_plain(facts), "-")
    else:
        _print(facts, None if every else 40)
    if facts.error is not None:
        raise typer.Exit(1)


def _plain(facts: FileFacts) -> dict[str, object]:
    values = {name: [[v.name, v.dtype, v.shape] for v in getattr(facts, name)] for name in ("inputs", "outputs")}
    return {
        "file": str(facts.path),
        "kind": facts.kind,
        "size": facts.size,
        "precision": facts.precision,
        **values,
        "tensors": {name: [fact.dtype, list(fact.shape)] for name, fact in facts.tensors.items()},
        "metadata": dict(facts.metadata),
        "globals": list(facts.globals),
        "refused_globals": list(facts.refused_globals),
        "problem": None if facts.error is None else facts.error.problem,
    }


def _print(facts: FileFacts, limit: int | None) -> None:
    from rich.markup import escape

    from lensmount.cli.output import out, plain, size, table

    console = out()
    head = f"{plain(facts.path)}: {facts.kind}, {size(facts.size)}, {len(facts.tensors)} tensors"
    console.print(head, markup=False, soft_wrap=True)
    for label, values in (("input", facts.inputs), ("output", facts.outputs)):
        for value in values:
            text = plain(f"{label:<9} {value.name}  {value.dtype}  {value.shape}")
            console.print(text, markup=False, soft_wrap=True)
    for key, text in facts.metadata.items():
        shown = text if len(text) <= 200 else f"{text[:200]}… ({len(text)} characters)"
        console.print(plain(f"metadata  {key}: {shown}"), markup=False, soft_wrap=True)
    for name in facts.globals:
        if name not in facts.refused_globals:
            console.print(f"global    {name}", markup=False, soft_wrap=True)
    rows = table("tensor", "dtype", "shape")
    for name, fact in list(facts.tensors.items())[:limit]:
        rows.add_row(escape(plain(name)), fact.dtype, "x".join(map(str, fact.shape)) or "scalar")
    if facts.tensors:
        console.print(rows)
    if limit is not None and len(facts.tensors) > limit:
        console.print(f"… and {len(facts.tensors) - limit} more (--all)")
    for name in facts.refused_globals:
        console.print(f"[red]refused[/]   {escape(name)}", soft_wrap=True)
    if facts.error is not None:
        console.print(f"[red]cannot be loaded[/]: {escape(plain(facts.error, lines=True))}", soft_wrap=True)


def convert(
    file: File,
    to: Annotated[str, typer.Option("--to", help="Format to write: safetensors.")] = "safetensors",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write.")] = None,
) -> None:
    """Rewrite a checkpoint's tensors as safetensors; the file is written whole or not at all."""
    from lensmount.errors import OptionError
    from lensmount_reading.checkpoint import read_checkpoint
    from lensmount_reading.convert import to_safetensors

    if to != "safetensors":
        raise OptionError("convert writes one format only", found=repr(to), expected="safetensors")
    target = output if output is not None else file.with_suffix(".safetensors")
    if target.exists() and target.resolve() == file.resolve():
        raise OptionError("convert would overwrite its input", found=str(target), fix="--output another.safetensors")
    checkpoint = read_checkpoint(file, modules="records")
    to_safetensors(checkpoint, target)
    print(target)
