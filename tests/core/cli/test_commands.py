"""The command line as a host: commands by hook, found, listed, run, refused, and missed."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from importlib import metadata

import pytest
import typer

from lensmount import registry
from lensmount.cli.commands import Commands
from lensmount.host import builtin
from lensmount.host.discovery import PluginWarning, given
from lensmount.host.hints import first_party
from lensmount.host.site import Site
from lensmount.specs import Command, hookimpl
from lensmount.specs.imports import import_string


def third_party(*commands):
    """A plugin that brings these commands, each `(name, import string)`."""

    def lensmount_commands():
        return [Command(name=name, app=app, help=f"Help of {name}.") for name, app in commands]

    return types.SimpleNamespace(lensmount_commands=hookimpl(lensmount_commands))


def listen(port: int = 80, model: str = "none") -> None:
    """Serve over HTTP; more on it."""
    print(f"serving {model} at {port}")


fleet = typer.Typer(help="Many machines.", no_args_is_help=True)


@fleet.command()
def start(count: int) -> None:
    """Start them."""
    print(f"{count} started")


@pytest.fixture
def module(monkeypatch):
    """This module's names, importable under a name that import strings can use."""
    made = types.ModuleType("commands_of_others")
    made.listen, made.fleet = listen, fleet
    monkeypatch.setitem(sys.modules, made.__name__, made)


@pytest.fixture
def others(known, module):
    return known(third_party(("listen", "commands_of_others:listen"), ("fleet", "commands_of_others:fleet")))


def broken_module(folder, monkeypatch, name, text):
    (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, name, raising=False)


# --- listed and run ---------------------------------------------------------------------------------------------------


def test_a_function(others, lensmount):
    done = lensmount("listen", "--port", "8080")
    assert (done.status, done.out) == (0, "serving none at 8080\n")
    done = lensmount("listen", "-h")
    assert done.status == 0
    assert "listen [OPTIONS]" in done.out and "Serve over HTTP; more on it." in done.out and "--port" in done.out
    assert "--install-completion" not in done.out
    done = lensmount("listen", "--port", "many")
    assert done.status == 2 and "lensmount listen" in done.err


def test_a_typer_with_one_command_of_its_own(others, lensmount):
    assert lensmount("fleet", "start", "3").out == "3 started\n"
    done = lensmount("fleet", "--help")
    assert done.status == 0 and "Many machines." in done.out and "Start them." in done.out
    assert lensmount("fleet", "begin").status == 2
    assert "lensmount fleet start" in lensmount("fleet", "start", "--help").out


def test_the_list_shows_help_and_imports_nothing(known, lensmount):
    known(third_party(("listen", "nowhere_at_all:listen")))
    done = lensmount("--help")
    assert (done.status, done.err) == (0, "")
    heads = [line.split()[1] for line in done.out.splitlines() if line.startswith("│ ") and line[2] != " "]
    assert [name for name in heads if not name.startswith("-")] == [*first_party("commands")["lensmount"], "listen"]
    assert "Commands of plugin-0" in done.out and "Help of listen." in done.out
    for command in builtin.lensmount_commands():
        assert command.help in done.out


def test_a_plugin_that_is_added_to_the_running_program(known, module, lensmount):
    made = known()
    assert lensmount("listen").status == 2
    assert made.add_plugin(third_party(("listen", "commands_of_others:listen")), "late").state == "active"
    assert lensmount("listen").out == "serving none at 80\n"
    assert "Commands of late" in lensmount("--help").out


def test_the_most_used_come_first():
    made = Commands(name="lensmount")
    listed = made.list_commands(None)
    ours = [name for names in first_party("commands").values() for name in names]
    assert listed[:5] == ["predict", "track", "few-shot", "embed", "search"]
    assert [name for name in listed if name in ours] == [name for name in ours if name in listed]


def test_a_catalogue_is_not_read_for_it(known, lensmount, monkeypatch):
    def cards():
        raise AssertionError("models were asked for")

    plugin = third_party(("listen", "nowhere_at_all:listen"))
    plugin.lensmount_model_cards = hookimpl(lambda: cards())
    known(plugin)
    assert "Help of listen." in lensmount("--help").out


# --- what is told of commands, wherever -------------------------------------------------------------------------------


def test_every_command_of_ours_is_there_and_announced():
    """The table that tells what to install, the hooks, and the functions agree."""
    index = registry.Registry().site.index_of("lensmount_commands")
    names = {}
    for name, command in index.commands.items():
        owner = index.owners["lensmount_commands", name]
        names.setdefault(owner, []).append(name)
        found = import_string(command.app, f"command {name!r}")
        assert isinstance(found, typer.Typer) or found.__doc__
    announced = first_party("commands")
    assert {owner: sorted(names[owner]) for owner in announced} == {o: sorted(n) for o, n in announced.items()}
    assert list(names["lensmount"]) == announced["lensmount"]


# --- what is broken ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("raise RuntimeError('no luck')", "RuntimeError: no luck"),
        ("import sys; sys.exit(0)", "SystemExit"),
        ("x = = 1", "SyntaxError"),
        ("", "names something that does not exist"),
        ("listen = 3", "a function with typer's annotations, or a typer.Typer"),
        ("def listen(x: 'Nothing'): ...", "a function with typer's annotations, or a typer.Typer"),
    ],
)
def test_a_broken_module(known, module, lensmount, tmp_path, monkeypatch, text, told):
    broken_module(tmp_path, monkeypatch, "broken_command", text)
    known(third_party(("listen", "broken_command:listen"), ("fleet", "commands_of_others:fleet")))
    for arguments in (("listen",), ("listen", "--help")):
        done = lensmount(*arguments)
        assert done.status == 1
        assert "PluginError" in done.err and told in done.err
        assert "command 'listen' of plugin-0" in done.err and "pip install --upgrade" in done.err
        assert "Traceback" not in done.err
    assert lensmount("fleet", "start", "1").status == 0
    assert lensmount("--help").status == 0
    assert lensmount("models").status == 0


def test_a_module_that_needs_a_package(known, lensmount, tmp_path, monkeypatch):
    broken_module(tmp_path, monkeypatch, "needy_command", "import flask_of_nobody")
    known(third_party(("listen", "needy_command:listen")))
    done = lensmount("listen")
    assert done.status == 1
    assert "MissingDependencyError" in done.err and "pip install flask_of_nobody" in done.err


def test_a_plugin_without_the_module(known, lensmount):
    known(third_party(("listen", "nowhere_at_all:listen")))
    done = lensmount("listen")
    assert done.status == 1
    assert "command 'listen' of plugin-0 names a module that does not exist" in done.err


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [command.name for command in builtin.lensmount_commands()])
def test_a_name_of_the_core_is_refused(module, name):
    plugin = third_party((name, "commands_of_others:listen"), ("listen", "commands_of_others:listen"))
    made = registry.Registry(lambda: [given(plugin, "greedy")])
    with pytest.warns(PluginWarning, match=f"commands '{name}' \\(lensmount\\)"):
        (_, status) = made.plugins()
    assert (status.state, status.stage) == ("broken", "conflict")
    assert "listen" not in made.index.commands  # all of a plugin or nothing


@pytest.mark.filterwarnings("default::lensmount.host.discovery.PluginWarning")
def test_the_core_keeps_the_command_that_a_plugin_claimed(known, module, lensmount):
    known(third_party(("doctor", "commands_of_others:listen")))
    assert "serving" not in lensmount("doctor").out
    done = lensmount("listen")
    assert done.status == 2
    assert "plugin 'plugin-0'" in done.err and "was left out" in done.err and "conflict" in done.err


def test_of_two_plugins_the_first_keeps_a_name(known, module, lensmount):
    made = known(
        third_party(("listen", "commands_of_others:listen")),
        third_party(("listen", "commands_of_others:fleet")),
    )
    with pytest.warns(PluginWarning, match=r"commands 'listen' \(plugin-0\)"):
        assert [s.state for s in made.plugins()] == ["active", "active", "broken"]
    assert lensmount("listen").out == "serving none at 80\n"


# --- what is not there ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "distribution"),
    [(name, owner) for owner, names in first_party("commands").items() if owner != "lensmount" for name in names],
)
def test_a_command_that_is_not_installed_names_the_pip_line(known, lensmount, name, distribution):
    known()
    done = lensmount(name, "model", "--help")
    assert (done.status, done.out) == (2, "")
    assert f"No such command '{name}'" in done.err
    assert f"{name} comes with {distribution}: pip install {distribution}" in done.err


def test_a_word_that_is_near(others, lensmount):
    done = lensmount("listenn")
    assert done.status == 2
    assert "Did you mean listen?" in done.err
    done = lensmount("modles")
    assert "Did you mean models?" in done.err and "pip" not in done.err
    done = lensmount("predct")
    assert "predict comes with lensmount-vision: pip install lensmount-vision" in done.err
    assert "Did you mean" not in done.err
    done = lensmount("xyzzy")
    assert done.status == 2 and "No such command 'xyzzy'." in done.err and "Did you mean" not in done.err


def test_a_blocked_plugin_is_named(lensmount, monkeypatch):
    monkeypatch.setenv("LENSMOUNT_BLOCK_PLUGINS", "lensmount-vision")
    registry.refresh()
    try:
        done = lensmount("predict", "x", "y")
    finally:
        monkeypatch.undo()
        registry.refresh()
    assert done.status == 2
    assert "predict comes with lensmount-vision, which LENSMOUNT_BLOCK_PLUGINS or LENSMOUNT_PLUGINS blocks" in done.err
    assert "pip install" not in done.err


# --- without discovery, and in a shell --------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [("--version",), *((c.name, "-h") for c in builtin.lensmount_commands())])
def test_commands_of_the_core_need_no_discovery(lensmount, monkeypatch, arguments):
    def discover(*_):
        raise AssertionError("discovery")

    monkeypatch.setattr(Site, "index_of", discover)
    monkeypatch.setattr(metadata, "entry_points", discover)
    assert lensmount(*arguments).status == 0


def complete(words):
    """What bash is offered for `lensmount WORDS…`, the last of them unfinished."""
    environ = {**os.environ, "_LENSMOUNT_COMPLETE": "complete_bash", "COMP_WORDS": f"lensmount {words}"}
    environ["COMP_CWORD"] = str(len(environ["COMP_WORDS"].split(" ")) - 1)
    code = "import sys; sys.argv = ['lensmount']; from lensmount.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout.split()


def test_a_shell_completes_commands_and_their_options():
    assert complete("pre") == ["predict"]
    assert set(complete("e")) == {"embed", "eval", "explain", "export", "errors"}
    assert complete("predict --conf") == ["--confidence"]
    assert complete("cache v") == ["verify"]
    assert complete("nonsense --o") == []
