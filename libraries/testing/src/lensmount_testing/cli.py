"""`new-plugin`: a whole distribution to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def new_plugin(
    name: Annotated[str, typer.Argument(help="What to call it: my-model makes the distribution lensmount-my-model.")],
    kind: Annotated[str, typer.Option(help="model, backend, source or cache.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to make; lensmount-NAME when not given.")
    ] = None,
    licence: Annotated[str, typer.Option(help="Apache-2.0, MIT or BSD-3-Clause.")] = "Apache-2.0",
    author: Annotated[str | None, typer.Option(help="Who has the copyright.")] = None,
) -> None:
    """Write a new plugin: a distribution that works, with tests of what users rely on; nothing is overwritten."""
    import shlex

    from lensmount.cli.output import err
    from lensmount_testing.scaffold.names import derive, require_free
    from lensmount_testing.scaffold.render import render, write

    names = derive(name)
    files = render(names, kind, licence=licence, author=author)
    require_free(names, kind)
    folder = output if output is not None else Path(names.distribution)
    write(files, folder)
    console = err()
    console.print(f"{names.distribution}: {len(files)} files. Next:", markup=False)
    steps = [f"cd {shlex.quote(str(folder))}", 'pip install -e ".[test]"', "pytest"]
    if kind == "model":
        steps.append(f"lensmount predict {names.name} picture.png --save out")
    for step in steps:
        console.print(f"    {step}", markup=False, soft_wrap=True)
    print(folder)
