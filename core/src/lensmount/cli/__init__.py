"""The `lensmount` command (typer + rich): the core's own commands, and a host for those of plugins.

For commands of plugins there are `output` (consoles, tables, JSON) and `settings` (options that commands share);
nothing else in here is for other rooms. Importing this package imports neither typer nor rich.
"""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Entry point of the `lensmount` command."""
    from lensmount.cli.app import run

    run()
