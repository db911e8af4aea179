"""The root of the command line, and how typed errors become readable messages."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Annotated

import typer

from lensmount.cli.commands import Commands

app = typer.Typer(
    name="lensmount",
    cls=Commands,
    help="Run any vision model on any backend.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
    """Runs the command line.

    A `LensmountError` becomes its message on stderr and exit status 1; a warning becomes one line on stderr.
    """
    from lensmount.errors import LensmountError

    warnings.showwarning = lambda message, category, *place: print(f"{category.__name__}: {message}", file=sys.stderr)
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
