"""The command line, in this process: so that it sees the test's server, store and plugins."""

from __future__ import annotations

import contextlib
import sys
import warnings
from dataclasses import dataclass

import pytest

from lensmount import registry
from lensmount.cli import main


@dataclass(frozen=True)
class Done:
    """What a command left: its exit status and what it printed."""

    status: int
    out: str
    err: str


@pytest.fixture
def lensmount(monkeypatch, capsys):
    """Runs `lensmount ARGUMENTS…`."""
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # the command line sets its own
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments):
        capsys.readouterr()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["lensmount", *map(str, arguments)])
            try:
                main()
                status = 0
            except SystemExit as leaving:
                status = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        said = capsys.readouterr()
        return Done(status or 0, said.out, said.err)

    return run


@pytest.fixture
def known():
    """Makes these plugins, and no installed ones, the ones that the facade and the command line know."""
    from lensmount.host.discovery import given

    with contextlib.ExitStack() as stack:

        def use(*plugins):
            made = registry.Registry(lambda: [given(plugin, f"plugin-{i}") for i, plugin in enumerate(plugins)])
            return stack.enter_context(registry.use(made))

        yield use
