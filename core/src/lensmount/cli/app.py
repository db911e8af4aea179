"""Assembles the commands and turns typed errors into readable messages."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Annotated

import typer

from lensmount.cli import catalogue, doctor, errors, export, store
from lensmount_bench.cli import bench, evaluate, tune
from lensmount_reading import cli as files
from lensmount_testing import cli as new_plugin
from lensmount_vision.cli import embed, few_shot, predict, search, track

app = typer.Typer(
    name="lensmount",
    help="Run any vision model on any backend.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (
    predict,
    track,
    few_shot,
    embed,
    search,
    bench,
    tune,
    evaluate,
    catalogue,
    doctor,
    files,
    export,
    store,
    new_plugin,
    errors,
):
    module.add_to(app)


def _version(value: bool) -> None:
    if value:
        from lensmount.version import __version__

        print(f"lensmount {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Run any vision model on any backend."""


def run() -> None:
    """Runs the command line; a `LensmountError` becomes its message on stderr and exit status 1."""
    from lensmount.errors import LensmountError

    warnings.showwarning = _show_warning
    try:
        app()
    except LensmountError as error:
        if os.environ.get("LENSMOUNT_DEBUG"):
            raise
        from rich.markup import escape

        from lensmount.cli.output import err, plain

        message = escape(plain(error, lines=True))
        err().print(f"[bold red]{type(error).__name__}[/]: {message}", highlight=False, soft_wrap=True)
        sys.exit(1)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: object = None,
) -> None:
    """Warnings as one plain line on stderr, without source lines."""
    print(f"{category.__name__}: {message}", file=sys.stderr)
