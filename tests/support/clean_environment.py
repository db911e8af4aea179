"""Wheels, and clean environments to try them in.

An environment takes third-party packages from the one that runs the tests (a .pth file to its site-packages), so that
nothing is downloaded; a finder put before all others refuses torch there, as if it were not installed, and hides the
workspace's own projects, so that only the wheels can serve (in the environment itself or on PYTHONPATH).
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Runs at start-up of the clean environment's Python. Distributions count too: `importlib.metadata` is how lensmount
# finds out what is installed, so a torch that is merely not importable would still be seen.
HIDE = """
import importlib.metadata, os, sys

PLACES = (sys.prefix, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))
HIDDEN = {"torch", "torchvision", "triton", "functorch", "torchgen"}


class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None

    def find_distributions(self, context=None):
        return ()


sys.meta_path.insert(0, Hide())
_search = importlib.metadata.MetadataPathFinder.find_distributions


def _find(context=importlib.metadata.DistributionFinder.Context()):
    for found in _search(context):
        name = (found.metadata["Name"] or "").lower().replace("_", "-")
        if name in HIDDEN or (name.startswith("lensmount") and not str(found.locate_file("")).startswith(PLACES)):
            continue
        yield found


importlib.metadata.MetadataPathFinder.find_distributions = staticmethod(_find)
"""


def run(command: list[str | Path], cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**{k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}, **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )


def pip() -> list[str | Path]:
    """The pip to build with: this environment's, else the one on the path."""
    if run([sys.executable, "-m", "pip", "--version"], ROOT).returncode == 0:
        return [sys.executable, "-m", "pip"]
    pytest.skip("needs pip in the environment that runs the tests")


def build_wheels(folder: Path, projects: Mapping[str, Path]) -> dict[str, Path]:
    """One wheel of each project, by import name, built from a copy of its sources."""
    build = [*pip(), "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "-w", folder]
    done = run([*build, *(str(path) for path in projects.values())], folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return {name: next(folder.glob(f"{name}-[0-9]*.whl")) for name in projects}


class Clean:
    """A clean environment without torch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        venv.create(folder, with_pip=False)
        self.python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        site = Path(
            run([self.python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], folder).stdout.strip()
        )
        shared = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        shared |= {entry for entry in sys.path if entry.endswith(("site-packages", "dist-packages"))}
        shared.add(str(Path(pytest.__file__).parents[1]))  # wherever packages were installed to
        # plain paths, not addsitedir: the .pth files over there, which lead to the workspace's sources, stay unread
        (site / "shared.pth").write_text("import hide_torch\n" + "\n".join(sorted(shared)) + "\n", encoding="utf-8")
        (site / "hide_torch.py").write_text(HIDE, encoding="utf-8")

    def run(self, *command: str | Path, cwd: Path | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        places = {"HOME": str(home), "USERPROFILE": str(home), "XDG_CACHE_HOME": str(home / ".cache")}
        own = {"LENSMOUNT_OFFLINE": "1", "NO_COLOR": "1", "PYTHONUTF8": "1", "COLUMNS": "200", **places}
        return run([self.python, *command], cwd or self.folder, **{**own, **environ})

    def lensmount(
        self, *arguments: str | Path, cwd: Path | None = None, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        return self.run("-m", "lensmount", *arguments, cwd=cwd, **environ)

    def install(self, *wheels: Path) -> None:
        done = run([*pip(), "--python", self.python, "install", "-q", "--no-deps", "--no-index", *wheels], self.folder)
        assert done.returncode == 0, done.stdout + done.stderr

    def uninstall(self, name: str) -> None:
        done = run([*pip(), "--python", self.python, "uninstall", "-q", "-y", name], self.folder)
        assert done.returncode == 0, done.stdout + done.stderr
