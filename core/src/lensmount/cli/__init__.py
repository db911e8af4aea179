"""The `lensmount` command (typer + rich). Importing it imports neither; nor does `--help` import anything heavy."""

from __future__ import annotations


def main() -> None:
    """Entry point of the `lensmount` command."""
    from lensmount.cli.app import run

    run()
