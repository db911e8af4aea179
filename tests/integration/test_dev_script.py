"""`dev.py`: environments are made once, made anew after an interruption, and never taken from someone else."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def dev(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, on a small workspace, where making and filling an environment is only noted down."""
    spec = importlib.util.spec_from_file_location("lensmount_dev_script", ROOT / "dev.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    for name in (
        "core",
        "libraries/reading",
        "libraries/vision",
        "plugins/onnx",
        "plugins/bench",
        "plugins/yolo",
        module.EXAMPLE,
    ):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "pyproject.toml").write_text(f'name = "{name}"\n')
    for name in (module.CONSTRAINTS, module.DEV_REQUIREMENTS):
        (tmp_path / name).write_text("one==1\n")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    module.noted = []

    def quietly(command: Any) -> subprocess.CompletedProcess[str]:
        module.noted.append(list(command))
        if "venv" in command:
            python = Path(command[-1]) / ("Scripts/python.exe" if module.WINDOWS else "bin/python")
            python.parent.mkdir(parents=True, exist_ok=True)
            python.touch()
        return subprocess.CompletedProcess(command, 0, "", None)

    monkeypatch.setattr(module, "run_quietly", quietly)
    return module


def test_an_environment_is_made_once(dev: ModuleType) -> None:
    environment = dev.ensure(dev.demo_environment(".venv"))
    first = list(dev.noted)
    assert [command[1:3] for command in first] == [["-m", "venv"], ["-m", "pip"], ["-m", "pip"]]
    assert {"./core", "./plugins/onnx[cpu]", "./plugins/bench[eval]"} <= set(first[-1])
    assert not [part for command in first for part in command if "torch" in part]
    assert (environment.folder / dev.STAMP).is_file()
    dev.ensure(dev.demo_environment(".venv"))
    assert dev.noted == first


def test_every_plugin_and_example_is_in_the_developers_environment(dev: ModuleType) -> None:
    projects = dev.dev_environment(".venv-dev").projects
    libraries = ("./libraries/reading", "./libraries/vision[supervision]")
    plugins = ("./plugins/bench[eval]", "./plugins/onnx[cpu]", "./plugins/yolo")
    assert projects == ("./core", *libraries, *plugins, f"./{dev.EXAMPLE}")


def test_what_would_bring_a_second_opencv_is_installed_without_it(dev: ModuleType) -> None:
    dev.ensure(dev.dev_environment(".venv-dev"))
    (command,) = (command for command in dev.noted if "trackers" in command)
    assert command[command.index("--no-deps") :] == ["--no-deps", "trackers"]
    assert "-c" in command


@pytest.mark.parametrize("changed", ["constraints.txt", "core/pyproject.toml", "plugins/yolo/pyproject.toml"])
def test_a_change_updates_in_place(changed: str, dev: ModuleType) -> None:
    environment = dev.ensure(dev.demo_environment(".venv"))
    dev.noted.clear()
    (dev.ROOT / changed).write_text("two\n")
    dev.ensure(environment)
    assert [command[1:3] for command in dev.noted] == [["-m", "pip"], ["-m", "pip"]]


def test_an_interrupted_setup_starts_again(dev: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(environment: object, pinned: bool) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(dev, "install", interrupted)
        assert dev.main(["demo"]) == 130
    folder = dev.ROOT / ".venv"
    assert not (folder / dev.STAMP).exists()
    (folder / "half-written").touch()
    dev.ensure(dev.demo_environment(".venv"))
    assert not (folder / "half-written").exists()
    assert (folder / dev.STAMP).is_file()


def test_an_interrupted_update_is_not_taken_for_whole(dev: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = dev.ensure(dev.demo_environment(".venv"))
    (dev.ROOT / "constraints.txt").write_text("two\n")

    def interrupted(environment: object, pinned: bool) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(dev, "install", interrupted)
    with pytest.raises(KeyboardInterrupt):
        dev.ensure(environment)
    assert not (environment.folder / dev.STAMP).exists()


def test_a_folder_of_someone_else_is_left_alone(dev: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = dev.ROOT / ".venv" / "bin" / "activate"
    theirs.parent.mkdir(parents=True)
    theirs.touch()
    assert dev.main(["demo"]) == 2
    assert "was not made by dev.py" in capsys.readouterr().err
    assert theirs.exists()
    assert dev.noted == []


def test_without_ensurepip_it_says_what_to_install(
    dev: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(command: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "ensurepip is not available", None)

    monkeypatch.setattr(dev, "run_quietly", fails)
    assert dev.main(["demo"]) == 2
    said = capsys.readouterr().err
    assert "ensurepip is not available" in said
    assert "apt-get install python3" in said
    assert not (dev.ROOT / ".venv" / dev.STAMP).exists()


def test_the_systems_pip_fills_in_for_ensurepip(dev: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = dev.run_quietly

    def without(command: Any) -> subprocess.CompletedProcess[str]:
        if "venv" in command and "--without-pip" not in command:
            return subprocess.CompletedProcess(command, 1, "ensurepip is not available", None)
        return usual(command)

    monkeypatch.setattr(dev, "run_quietly", without)
    dev.ensure(dev.demo_environment(".venv"))
    assert "--python" in dev.noted[1]


def test_a_failed_install_shows_what_pip_said(
    dev: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = dev.run_quietly

    def fails(command: Any) -> subprocess.CompletedProcess[str]:
        done = usual(command)
        return done if "venv" in command else subprocess.CompletedProcess(command, 1, "ERROR: no such release", None)

    monkeypatch.setattr(dev, "run_quietly", fails)
    assert dev.main(["test"]) == 2
    said = capsys.readouterr().err
    assert "ERROR: no such release" in said
    assert "--unpinned" in said


@pytest.mark.parametrize(
    ("given", "passed"),
    [
        (["-x", "-k", "not slow", "tests/core"], ["-x", "-k", "not slow", "tests/core"]),
        (["tests/core", "-m", "slow", "--env", "elsewhere"], ["tests/core", "-m", "slow"]),
        (["--", "--env", "mine"], ["--env", "mine"]),
        (["--en", "x"], ["--en", "x"]),
    ],
)
@pytest.mark.parametrize("alone", [(), ("-n", "0"), ("--dist=no",), ("--pdb",), ("-p", "no:xdist")])
def test_arguments_are_handed_to_pytest(
    given: list[str], passed: list[str], alone: tuple[str, ...], dev: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tests run side by side unless the caller says how."""
    ran: list[Any] = []
    monkeypatch.setattr(dev, "run", lambda command, environ=None: ran.append(list(command)) or 5)
    assert dev.main(["test", *given, *alone]) == 5
    spread = [] if alone else ["-n", "auto", "--dist", "loadscope"]
    assert ran[0][1:] == ["-m", "pytest", *spread, *passed, *alone]


def test_check_fails_when_one_check_fails(dev: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dev, "run", lambda command, environ=None: int("mypy" in command))
    assert dev.main(["check"]) == 1
    assert dev.main(["check", "lint"]) == 0
    monkeypatch.setattr(dev, "run", lambda command, environ=None: int("pytest" in command))
    assert dev.main(["check"]) == 0  # `dev.py test` runs these
    assert dev.main(["check", "docs"]) == dev.main(["check", "pins"]) == 1
    assert dev.main(["check", "nonsense"]) == 2


def test_the_script_needs_nothing_but_the_standard_library() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", ROOT / "dev.py", "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for name in ("demo", "test", "check", "docs", "fuzz", "release"):
        assert name in done.stdout


def test_the_site_is_built_strictly_in_an_environment_without_our_packages(
    dev: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    (dev.ROOT / "docs").mkdir()
    (dev.ROOT / dev.DOCS_REQUIREMENTS).write_text("mkdocs\n")
    ran: list[list[str]] = []
    monkeypatch.setattr(dev, "run", lambda command, environ=None: ran.append([str(part) for part in command]) or 3)
    assert dev.main(["docs"]) == 3
    assert dev.main(["docs", "serve", "--open"]) == 3
    assert [Path(command[0]).parents[1].name for command in ran] == [".venv-docs", ".venv-docs"]
    assert [command[1:] for command in ran] == [
        ["-m", "mkdocs", "build", "--strict", "--clean"],
        ["-m", "mkdocs", "serve", "--open"],
    ]
    assert "-e" not in dev.noted[-1]
    assert dev.noted[-1][-2:] == ["-r", dev.DOCS_REQUIREMENTS]


def test_fuzzing_has_an_environment_of_its_own(dev: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("libraries/networks", "plugins/mediapipe", "plugins/pypi", "plugins/roboflow", "fuzz"):
        (dev.ROOT / name).mkdir(parents=True)
        (dev.ROOT / name / "pyproject.toml").write_text("")
    (dev.ROOT / dev.FUZZ_REQUIREMENTS).write_text("engine==1\n")
    ran: list[list[str]] = []

    def run(command: Any, environ: object = None) -> int:
        ran.append([str(part) for part in command])
        return 0

    monkeypatch.setattr(dev, "run", run)
    assert dev.main(["fuzz", "--seconds", "7", "image"]) == 0
    assert [Path(command[0]).parents[1].name for command in ran] == [".venv-dev", ".venv-fuzz"]
    assert ran[1][1:4] == ["fuzz/run.py", "--seconds", "7"]
    assert ran[1][-1] == "image"


def test_a_release_is_checked_line_by_line(
    dev: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (dev.ROOT / "core/src/lensmount").mkdir(parents=True)
    (dev.ROOT / "core/src/lensmount/version.py").write_text('__version__ = "1.2.3"\n')
    (dev.ROOT / "CHANGELOG.md").write_text("# Changes\n\n## Unreleased\n")
    monkeypatch.setattr(dev, "run", lambda command, environ=None: 0)
    assert dev.main(["release", "--check"]) == 1
    assert "NO  CHANGELOG.md has a section on 1.2.3" in capsys.readouterr().out
    (dev.ROOT / "CHANGELOG.md").write_text("# Changes\n\n## 1.2.3 (2026-12-01)\n")
    assert dev.main(["release", "--check"]) == 0
    monkeypatch.setattr(dev, "run", lambda command, environ=None: int("tests/integration/test_wheels.py" in command))
    assert dev.main(["release", "--check"]) == 1
    assert "NO  every wheel builds" in capsys.readouterr().out
