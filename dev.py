#!/usr/bin/env python3
"""Sets up and runs this workspace with nothing but Python: `python3 dev.py demo`, `test`, `check` and others.

Each environment is made once, from the pinned releases of `constraints.txt`, and kept: a stamp inside it, written
last, holds the hash of all that it was made from. An interrupted setup has no stamp and is made again.
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 10):  # noqa: UP036  (a user of an older Python should read why it stops)
    sys.exit("lensmount needs Python 3.10 or newer; this is %d.%d" % sys.version_info[:2])  # noqa: UP031  (ditto)

import argparse
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent
CONSTRAINTS = "constraints.txt"
VERSION = "core/src/lensmount/version.py"
DEV_REQUIREMENTS = "requirements-dev.txt"
LIGHT_REQUIREMENTS = "requirements-light.txt"
WITHOUT_TORCH = (
    "tests/yolo/test_families_goldens.py",
    "tests/rfdetr/test_rfdetr_goldens.py",
    "tests/sam2/test_sam2_goldens.py",
    "tests/owlv2/test_owlv2_goldens.py",
    "tests/perception_encoder/test_pe_parity.py",
    "tests/clip/test_clip_parity.py",
)
"""Tests of official weights against their references that run where torch is not installed."""
DOCS_REQUIREMENTS = "docs/requirements.txt"
FUZZ_REQUIREMENTS = "fuzz/requirements.txt"
MARK = "lensmount-dev.txt"  # inside an environment: dev.py made it, and may make it again
STAMP = "lensmount-dev.stamp"  # inside an environment: it is whole, and made from this
BUILDERS = ("pip", "hatchling", "editables")
EXAMPLE = "examples/lensmount-shapes"
SCENE = f"{EXAMPLE}/src/lensmount_shapes/data/scene.jpg"
WINDOWS = os.name == "nt"


class SetupError(Exception):
    """Something outside this script has to be put right; the message says what."""


# --- what is shown ----------------------------------------------------------------------------------------------------


def say(text: str, colour: str = "36") -> None:
    """Prints one line of progress, coloured on a terminal unless NO_COLOR is set."""
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    print(f"\x1b[{colour}m{text}\x1b[0m" if coloured else text, flush=True)


def tail(text: str, lines: int = 30) -> str:
    """The last lines of a long output."""
    return "\n".join(text.rstrip().splitlines()[-lines:])


# --- environments -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Environment:
    """A virtual environment and what belongs in it.

    Attributes:
        folder: Where it lies.
        projects: Workspace projects, installed as editable: path and extras, as pip takes them.
        requirements: A requirements file, or None.
        alone: Packages that are installed without what they ask for.
    """

    folder: Path
    projects: tuple[str, ...]
    requirements: str | None = None
    alone: tuple[str, ...] = ()

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / ("Scripts/python.exe" if WINDOWS else "bin/python")

    def script(self, name: str) -> Path:
        """One of its console scripts."""
        return self.python.with_name(f"{name}.exe" if WINDOWS else name)

    def fingerprint(self, pinned: bool) -> str:
        """Hash of all that the environment is made from."""
        made_from = hashlib.sha256(f"{sys.version}\n{ROOT}\n{self.folder}\n{self.projects}\n{pinned}\n".encode())
        made_from.update("".join(f"{name}\n" for name in self.alone).encode())
        files = [project.split("[")[0] + "/pyproject.toml" for project in self.projects]
        files += [VERSION] if (ROOT / VERSION).is_file() else []  # what is installed carries it
        for name in [*files, CONSTRAINTS, *([self.requirements] if self.requirements else [])]:
            made_from.update(name.encode() + b"\0" + (ROOT / name).read_bytes())
        return made_from.hexdigest()


def workspace(pattern: str) -> list[str]:
    """Workspace folders that hold a project, as relative paths with forward slashes."""
    return sorted(path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob(f"{pattern}/pyproject.toml"))


def projects_of_workspace() -> list[str]:
    """Every distribution's folder: the core, the libraries, the plugins and the examples."""
    return ["core", *(path for group in ("libraries", "plugins", "examples") for path in workspace(f"{group}/*"))]


def demo_environment(folder: str) -> Environment:
    """Core, ONNX, the evaluator, the YOLO plugin and the sample plugin; no torch."""
    if not (ROOT / EXAMPLE / "pyproject.toml").is_file():
        raise SetupError(f"{EXAMPLE} is missing from this checkout; the demo runs its model")
    return Environment(
        ROOT / folder,
        (
            "./core",
            "./libraries/reading",
            "./libraries/vision",
            "./plugins/onnx[cpu]",
            "./plugins/bench[eval]",
            "./plugins/yolo",
            f"./{EXAMPLE}",
        ),
    )


def dev_environment(folder: str) -> Environment:
    """Everything: all backends that run here, every plugin and example, and the tools.

    `trackers` comes alone: it names the OpenCV with windows, which would lie in the same folder as the one without.
    """
    extras = {
        "plugins/litert": "cpu",
        "plugins/onnx": "cpu",
        "plugins/torch": "torch",
        "libraries/vision": "supervision",
        "plugins/bench": "eval",
        "plugins/triton": "client",
    }
    projects = [f"./{path}[{extras[path]}]" if path in extras else f"./{path}" for path in projects_of_workspace()]
    return Environment(ROOT / folder, tuple(projects), DEV_REQUIREMENTS, alone=("trackers",))


def light_environment(folder: str) -> Environment:
    """The models on ONNX Runtime, without torch: what most users install."""
    models = ("clip", "owlv2", "perception_encoder", "rfdetr", "sam2", "yolo")
    libraries = ("networks", "reading", "testing", "vision")
    projects = ("./core", *(f"./libraries/{name}" for name in libraries), "./plugins/onnx[cpu]")
    return Environment(
        ROOT / folder, (*projects, *(f"./plugins/{name}" for name in models), f"./{EXAMPLE}"), LIGHT_REQUIREMENTS
    )


def docs_environment(folder: str) -> Environment:
    """The builder of the site; it reads the packages' source without importing it, so none of them is installed."""
    return Environment(ROOT / folder, (), DOCS_REQUIREMENTS)


def fuzz_environment(folder: str) -> Environment:
    """What the fuzz targets read with, and the engine, which has wheels for few machines: apart from the others."""
    return Environment(
        ROOT / folder,
        (
            "./core",
            "./libraries/networks",
            "./libraries/reading",
            "./libraries/vision",
            "./plugins/mediapipe",
            "./plugins/pypi",
            "./plugins/roboflow",
            "./plugins/yolo",
        ),
        FUZZ_REQUIREMENTS,
    )


def clean_environ(**more: str) -> dict[str, str]:
    """The caller's environment without what would redirect Python or pip elsewhere."""
    environ = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX")}
    return {**environ, "PIP_USER": "0", "PYTHONUTF8": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", **more}


def ensure(environment: Environment, pinned: bool = True) -> Environment:
    """Makes the environment if it is not there, or not made from what the checkout holds now.

    Raises:
        SetupError: It could not be made, or a folder that is not ours stands in its place.
    """
    folder, stamp = environment.folder, environment.folder / STAMP
    fingerprint = environment.fingerprint(pinned)
    whole = stamp.is_file() and environment.python.exists()
    if whole and stamp.read_text(encoding="utf-8") == fingerprint:
        return environment
    if not whole and folder.exists() and any(folder.iterdir()):
        if not (folder / MARK).is_file():
            raise SetupError(f"{folder} exists and was not made by dev.py; name another with --env DIR, or remove it")
        say(f"{folder.name}: left unfinished; starting again")
        shutil.rmtree(folder)
    started = time.monotonic()
    if whole:
        say(f"{folder.name}: the checkout asks for other packages; updating")
        stamp.unlink()  # until the update is through, the environment is not whole
    else:
        create(environment)
    install(environment, pinned)
    stamp.write_text(fingerprint, encoding="utf-8")
    say(f"{folder.name}: ready after {time.monotonic() - started:.0f} s")
    return environment


def create(environment: Environment) -> None:
    """Makes an empty environment with pip in it."""
    folder = environment.folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).write_text("Made by dev.py; it may be removed at any time.\n", encoding="utf-8")
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    say(f"{folder.name}: creating, with Python {python}")
    made = run_quietly([sys.executable, "-m", "venv", str(folder)])
    if made.returncode == 0:
        return
    # Debian and Ubuntu split ensurepip off; a pip of the system's own can fill in.
    bare = run_quietly([sys.executable, "-m", "venv", "--without-pip", str(folder)])
    filled = bare.returncode == 0 and run_quietly(
        [sys.executable, "-m", "pip", "--python", str(environment.python), "install", "-c", CONSTRAINTS, "pip"]
    )
    if not filled or filled.returncode != 0:
        raise SetupError(
            f"Python's venv module could not make an environment:\n{tail(made.stdout, 12)}\n"
            f"On Debian and Ubuntu: apt-get install python{python}-venv (or python3-venv). Elsewhere: a Python with "
            "ensurepip, such as the installers of python.org, Homebrew, conda or `uv python install` bring."
        )


def install(environment: Environment, pinned: bool) -> None:
    """Installs what belongs in the environment: the builders first, since the projects build without isolation."""
    pins = ["-c", CONSTRAINTS] if pinned else []
    pip = [str(environment.python), "-m", "pip", "install", "--quiet", "--no-input"]
    editable = [part for project in environment.projects for part in ("-e", project)]
    wanted = ["-r", environment.requirements] if environment.requirements else []
    named = [p.removeprefix("./") for p in environment.projects] or [str(environment.requirements)]
    say(f"{environment.folder.name}: installing {', '.join(named)}")
    steps = [[*BUILDERS], ["--no-build-isolation", *editable, *wanted]]
    steps += [["--no-deps", *environment.alone]] if environment.alone else []
    for step in steps:
        done = run_quietly([*pip, *pins, *step])
        if done.returncode != 0:
            hint = (
                ""
                if not pinned
                else f"\nIf a pinned release has no wheel for this machine, try --unpinned. Pins: {CONSTRAINTS}"
            )
            raise SetupError(f"pip could not install what {environment.folder.name} needs:\n{tail(done.stdout)}{hint}")


def run_quietly(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Runs a command in the workspace's root and keeps what it prints."""
    return subprocess.run(
        command,
        cwd=ROOT,
        env=clean_environ(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )


def run(command: Sequence[str | Path], environ: Mapping[str, str] | None = None) -> int:
    """Runs a command in the workspace's root, in view of the user, and gives its exit status."""
    return subprocess.run(
        [str(part) for part in command], cwd=ROOT, env=environ or clean_environ(), check=False
    ).returncode


# --- subcommands ------------------------------------------------------------------------------------------------------


def demo(arguments: argparse.Namespace, extra: list[str]) -> int:
    """Finds the shapes in the bundled scene, prints them and writes an annotated picture under out/."""
    environment = ensure(demo_environment(arguments.env or ".venv"), not arguments.unpinned)
    out = ROOT / "out"
    command = ["lensmount", "predict", "shapes-nano", SCENE, "--save", "out/", *extra]
    say("$ " + " ".join(command), "2")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")} if out.is_dir() else {}
    # Weights and scene come with the sample's wheel: nothing is downloaded, and offline mode proves it.
    status = run([environment.script("lensmount"), *command[1:]], clean_environ(LENSMOUNT_OFFLINE="1"))
    if status != 0:
        return status
    written = [
        path for path in sorted(out.rglob("*")) if path.is_file() and before.get(path) != path.stat().st_mtime_ns
    ]
    if not written:
        raise SetupError("the command ended well, yet wrote no picture under out/")
    for path in written:
        say(f"annotated picture: {path.relative_to(ROOT)}", "32")
    return 0


def test(arguments: argparse.Namespace, extra: list[str]) -> int:
    """Runs all tests but the nightly ones, one process for each processor; what follows is handed to pytest."""
    environment = ensure(dev_environment(arguments.env or ".venv-dev"), not arguments.unpinned)
    return run([environment.python, "-m", "pytest", *side_by_side(extra), *extra])


def light(arguments: argparse.Namespace, extra: list[str]) -> int:
    """Compares the models with their references where torch is not installed; what follows is handed to pytest."""
    environment = ensure(light_environment(arguments.env or ".venv-light"), not arguments.unpinned)
    chosen = (
        []
        if any((ROOT / word.partition("::")[0]).exists() for word in extra)
        else [ROOT / path for path in WITHOUT_TORCH]
    )
    return run([environment.python, "-m", "pytest", "-q", *side_by_side(extra), *chosen, *extra])


def side_by_side(extra: Sequence[str]) -> list[str]:
    """Options that spread tests over the processors, unless the caller says how, or wants to debug.

    The tests of one module stay in one process: its fixtures (environments, exported networks) are made once.
    """
    own = ("-n", "--numprocesses", "--dist", "--pdb", "-s", "--capture=no", "--co", "--collect-only", "-p")
    if any(word == option or word.startswith(f"{option}=") for word in extra for option in own):
        return []
    return ["-n", "auto", "--dist", "loadscope"]


def check(arguments: argparse.Namespace, extra: list[str]) -> int:
    """Lint, format (checking only), types and import rules; by name also pins and docs, which `test` runs anyway."""
    environment = ensure(dev_environment(arguments.env or ".venv-dev"), not arguments.unpinned)
    folders = [f"{path}/src" for path in projects_of_workspace()]
    sources = [path for path in folders if (ROOT / path).is_dir()]
    pytest: list[str | Path] = [environment.python, "-m", "pytest", "-q"]
    steps: dict[str, list[str | Path]] = {
        "lint": [environment.script("ruff"), "check", "."],
        "format": [environment.script("ruff"), "format", "--check", "."],
        "types": [environment.python, "-m", "mypy", "--strict", *sources, "dev.py"],
        "pyright": [environment.python, "-m", "pyright", "--pythonpath", environment.python],
        "imports": [environment.script("lint-imports")],
        "pins": [*pytest, "tests/integration/test_pins.py", "tests/integration/test_workspace.py"],
        "docs": [*pytest, "tests/docs"],
    }
    unknown = set(extra) - set(steps)
    if unknown:
        raise SetupError(f"no such check: {', '.join(sorted(unknown))}; there are {', '.join(steps)}")
    # pyright would ask the network for its newest version
    environ = clean_environ(
        MYPYPATH=os.pathsep.join(str(ROOT / path) for path in sources), PYRIGHT_PYTHON_IGNORE_WARNINGS="1"
    )
    results = {}
    chosen = extra or [name for name, command in steps.items() if "pytest" not in command]
    for name, command in steps.items():
        if name not in chosen:
            continue
        say(f"--- {name}")
        started = time.monotonic()
        status = run(command, environ)
        results[name] = (status, time.monotonic() - started)
    say("---")
    for name, (status, seconds) in results.items():
        say(f"{name:8} {'ok' if status == 0 else 'FAILED':7} {seconds:5.1f} s", "32" if status == 0 else "31")
    return int(any(status for status, _ in results.values()))


def docs(arguments: argparse.Namespace, extra: list[str]) -> int:
    """Builds the documentation's site under site/, where every warning is an error; `docs serve` shows it meanwhile."""
    environment = ensure(docs_environment(arguments.env or ".venv-docs"), not arguments.unpinned)
    command = extra if extra[:1] == ["serve"] else ["build", "--strict", "--clean", *extra]
    # Without the theme's announcement of its end: mkdocs and the theme are pinned, and warnings alone are wanted here.
    status = run([environment.python, "-m", "mkdocs", *command], clean_environ(NO_MKDOCS_2_WARNING="1"))
    if status == 0 and command[0] == "build":
        say("the front page: site/index.html", "32")
    return status


def release(arguments: argparse.Namespace, extra: list[str]) -> int:
    """Builds sdists and wheels of all distributions under dist/; with --check says whether they may be released."""
    environment = ensure(dev_environment(arguments.env or ".venv-dev"), not arguments.unpinned)
    if arguments.check:
        return check_release(environment)
    out = ROOT / "dist"
    shutil.rmtree(out, ignore_errors=True)
    build = (
        "import sys; from hatchling.build import build_sdist, build_wheel; "
        "print(build_sdist(sys.argv[1]), build_wheel(sys.argv[1]))"
    )
    for project in projects_of_workspace():
        if project.startswith("examples/"):
            continue
        done = subprocess.run(
            [str(environment.python), "-c", build, str(out)],
            cwd=ROOT / project,
            env=clean_environ(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise SetupError(f"{project} could not be built:\n{tail(done.stdout)}")
        say(f"{project}: {done.stdout.strip()}", "32")
    return 0


def check_release(environment: Environment) -> int:
    """Everything that RELEASING.md asks before a release, each with its answer."""
    text = (ROOT / VERSION).read_text(encoding="utf-8")
    version = text.partition('__version__ = "')[2].partition('"')[0]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    written = f"## {version}" in changelog or f"## [{version}]" in changelog
    pytest: list[str | Path] = [environment.python, "-m", "pytest", "-q", "-m", ""]
    steps: dict[str, Sequence[str | Path]] = {
        "one version, bounds and extras": [*pytest, "tests/integration/test_workspace.py"],
        "the public interface is the one written down": [*pytest, "tests/integration/test_public_api.py"],
        "every wheel builds, holds no tests, installs alone": [*pytest, "tests/integration/test_wheels.py"],
        "a new plugin passes its own tests": [*pytest, "tests/integration/test_new_plugin.py"],
    }
    results = {f"CHANGELOG.md has a section on {version}": written}
    for name, command in steps.items():
        say(f"--- {name}")
        results[name] = run(command) == 0
    say("---")
    for name, fine in results.items():
        say(f"{'ok' if fine else 'NO':3} {name}", "32" if fine else "31")
    return int(not all(results.values()))


def fuzz(arguments: argparse.Namespace, extra: list[str]) -> int:
    """Searches for inputs that hang, crash or mislead a reader, for --seconds in all; what follows names targets."""
    dev = ensure(dev_environment(".venv-dev"), not arguments.unpinned)  # its packages write the inputs to start from
    environment = ensure(fuzz_environment(arguments.env or ".venv-fuzz"), not arguments.unpinned)
    out = ROOT / "out" / "fuzz"
    status = run([dev.python, "fuzz/fuzz_seeds.py", out / "seeds"])
    if status != 0:
        return status
    limits = ["--seconds", str(arguments.seconds)]
    return run([environment.python, "fuzz/run.py", *limits, "--corpus", out / "seeds", "--out", out, *extra])


COMMANDS = {"demo": demo, "test": test, "light": light, "check": check, "docs": docs, "fuzz": fuzz, "release": release}


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the command line and runs one subcommand."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="{" + ",".join(COMMANDS) + "}")
    for name, function in COMMANDS.items():
        summary = (function.__doc__ or "").strip()
        sub = subparsers.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        sub.add_argument(
            "--env",
            metavar="DIR",
            help="the environment (default: .venv, .venv-dev, .venv-light, .venv-docs, .venv-fuzz)",
        )
        sub.add_argument("--unpinned", action="store_true", help="take the newest releases instead of the pinned")
        if name == "release":
            sub.add_argument("--check", action="store_true", help="build nothing to keep; say what stands in the way")
        if name == "fuzz":
            sub.add_argument("--seconds", type=int, default=480, help="in all, shared out among targets (default: 480)")
    given = list(sys.argv[1:] if argv is None else argv)
    cut = given.index("--") if "--" in given else len(given)  # what follows `--` is not ours, whatever it looks like
    arguments, extra = parser.parse_known_args(given[:cut])
    try:
        return COMMANDS[arguments.command](arguments, extra + given[cut + 1 :])
    except SetupError as error:
        print(f"dev.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
