"""The sub-commands of `lensmount`: the core's own and, by the hook `lensmount_commands`, those of plugins."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand, TyperGroup

from lensmount.errors import LensmountError, PluginError, reason

if TYPE_CHECKING:
    from lensmount.host.discovery import Index
    from lensmount.specs import Command

CORE = "lensmount"


class Commands(TyperGroup):
    """Lists commands with their help lines, and imports the module of a command when it is called.

    The core's own commands are found without discovery. Typer passes contexts of its own copy of click in some
    versions and of click in others, so they have no type here.
    """

    @cached_property
    def _own(self) -> dict[str, Command]:
        from lensmount.host.builtin import lensmount_commands

        return {command.name: command for command in lensmount_commands()}

    @cached_property
    def _index(self) -> Index:
        from lensmount import registry

        return registry.default().site.index_of("lensmount_commands")

    @cached_property
    def _first_party(self) -> dict[str, str]:
        """Distribution by command, in the order of the help."""
        from lensmount.host.hints import first_party

        return {name: distribution for distribution, names in first_party("commands").items() for name in names}

    def _find(self, name: str) -> Command | None:
        return self._own.get(name) or self._index.commands.get(name)

    def _owner(self, name: str) -> str:
        return CORE if name in self._own else self._index.owners["lensmount_commands", name]

    def list_commands(self, ctx: Any) -> list[str]:
        """Names: of lensmount's own distributions, the most used first, then of other plugins."""
        found = {**self._own, **self._index.commands}
        return [name for name in self._first_party if name in found] + [n for n in found if n not in self._first_party]

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | None:
        """What the list of commands shows of one; its module is not imported."""
        command = self._find(cmd_name)
        if command is None:
            return None
        panel = None if cmd_name in self._first_party else f"Commands of {self._owner(cmd_name)}"
        return TyperCommand(cmd_name, help=command.help, rich_help_panel=panel)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command to run, imported.

        Raises:
            PluginError: Its plugin does not bring what it names.
            MissingDependencyError: Its module needs a package that is not installed.
        """
        name, *rest = args
        command = self._find(name)
        if command is not None:
            return name, _imported(command, self._owner(name)), rest
        if not ctx.resilient_parsing:  # completion of a shell
            ctx.fail(self._unknown(name, self.list_commands(ctx)))
        return None, None, rest

    def _unknown(self, name: str, known: list[str]) -> str:
        import difflib

        lines = [f"No such command {name!r}."]
        near = [name] if name in self._first_party else difflib.get_close_matches(name, {*known, *self._first_party})
        if present := [match for match in near if match in known]:
            lines.append(f"Did you mean {', '.join(present)}?")
        states = {status.distribution: status.state for status in self._index.statuses}
        for match, owner in ((match, self._first_party.get(match, CORE)) for match in near):
            if owner not in states:
                lines.append(f"{match} comes with {owner}: pip install {owner}")
            elif states[owner] == "blocked":
                lines.append(f"{match} comes with {owner}, which LENSMOUNT_BLOCK_PLUGINS or LENSMOUNT_PLUGINS blocks")
        return "\n".join([*lines, *self._index.left_out])


def _imported(command: Command, owner: str) -> Any:
    """The click command that a descriptor names."""
    from lensmount.specs.imports import import_string

    label = f"command {command.name!r} of {owner}"
    try:
        found = import_string(command.app, label)
        if isinstance(found, typer.Typer):
            return typer.main.get_group(found)
        made = typer.Typer(add_completion=False)
        made.command(command.name)(found)
        return typer.main.get_command(made)
    except LensmountError:
        raise
    except (Exception, SystemExit) as error:  # what typer, or the import of a third party's module, raises
        raise PluginError(
            f"{label} cannot be run",
            found=f"{command.app}: {reason(error)}",
            expected="a function with typer's annotations, or a typer.Typer",
            fix=f"pip install --upgrade {owner}",
        ) from error
