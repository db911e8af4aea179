"""The workspace holds together: every project is listed where it must be, and says the same as the others."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lensmount_testing.scaffold.render import bounds

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]


def toml(path: str | Path) -> Any:
    return tomllib.loads((ROOT / path).read_text(encoding="utf-8"))


LIBRARIES = sorted(path.parent for path in ROOT.glob("libraries/*/pyproject.toml"))
PLUGINS = sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))
EXAMPLES = sorted(path.parent for path in ROOT.glob("examples/*/pyproject.toml"))
OURS = [ROOT / "core", *LIBRARIES, *PLUGINS]
PROJECTS = [*OURS, *EXAMPLES]
WORKSPACE = toml("pyproject.toml")
HOST = re.compile(r"pythonhoste[d]|pypi\.or[g]|--(?:extra-)?index-ur[l]|--find-link[s]|download\.pytorc[h]|npmj[s]\.")


def name_of(folder: Path) -> str:
    return folder.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("folder", PROJECTS, ids=name_of)
def test_project(folder: Path) -> None:
    made = toml(folder / "pyproject.toml")
    project = made["project"]
    package = project["name"].replace("-", "_")
    assert project["requires-python"] == ">=3.10"
    assert project["license"]
    assert made["build-system"]["build-backend"] == "hatchling.build"
    assert (folder / project["readme"]).is_file()
    assert (folder / "src" / package / "__init__.py").is_file()
    packages = {path.parent.name for path in folder.glob("src/*/__init__.py")}
    assert packages == {path.parent.name for path in folder.glob("src/*/py.typed")}
    shipped = made["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert package in packages and sorted(shipped) == sorted(f"src/{name}" for name in packages)
    assert WORKSPACE["tool"]["uv"]["sources"].get(project["name"]) == {"workspace": True}
    for module in project.get("entry-points", {}).get("lensmount", {}).values():
        assert (folder / "src" / Path(*module.split("."))).with_suffix(".py").is_file(), module


@pytest.mark.parametrize("folder", OURS, ids=name_of)
def test_distribution_is_known_to_the_import_rules(folder: Path) -> None:
    package = toml(folder / "pyproject.toml")["project"]["name"].replace("-", "_")
    rules = WORKSPACE["tool"]["importlinter"]
    contracts = {contract["id"]: contract for contract in rules["contracts"]}
    assert package in rules["root_packages"]
    assert rules["exclude_type_checking_imports"] is False
    layers = contracts[f"rooms-{package}"]
    assert (layers["type"], layers["containers"], layers["exhaustive"]) == ("layers", [package], True)
    if folder in PLUGINS:
        assert package in contracts["plugins"]["modules"]
    if folder != ROOT / "core":
        assert package in contracts["core"]["forbidden_modules"]


#: Not yet tried on the real thing; takes the import path of somebody else's distribution.
NOT_IN_ALL = {"tensorrt", "triton", "inference-compat"}


@pytest.mark.parametrize("folder", PLUGINS, ids=name_of)
def test_plugin_is_an_extra_of_the_core(folder: Path) -> None:
    project = toml(folder / "pyproject.toml")["project"]
    extras = toml("core/pyproject.toml")["project"]["optional-dependencies"]
    name = project["name"].removeprefix("lensmount-")
    (wanted,) = extras[name]
    assert wanted.startswith(project["name"])
    assert (name in extras["all"][0]) is (name not in NOT_IN_ALL)


@pytest.mark.parametrize("folder", OURS, ids=name_of)
def test_the_version_is_said_once(folder: Path) -> None:
    made = toml(folder / "pyproject.toml")
    assert "version" not in made["project"]
    assert made["project"]["dynamic"] == ["version"]
    said = (folder / made["tool"]["hatch"]["version"]["path"]).resolve()
    assert said == ROOT / "core/src/lensmount/version.py"


@pytest.mark.parametrize("folder", [*LIBRARIES, *PLUGINS], ids=name_of)
def test_bounds_fit_the_version(folder: Path) -> None:
    """What a distribution asks of our others is this version's line: `>=0.1,<0.2`."""
    project = toml(folder / "pyproject.toml")["project"]
    lines = [line for line in project["dependencies"] if line.startswith("lensmount")]
    lines += toml("core/pyproject.toml")["project"]["optional-dependencies"].get("yolo", [])
    assert lines
    assert {re.sub(r"^[a-z0-9-]+(\[[a-z0-9,-]+\])?", "", line) for line in lines} == {bounds()}


def test_no_registry_host_is_named() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    named = []
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.is_file() and path.stat().st_size < 1_000_000:
            text = path.read_bytes().decode("utf-8", "ignore")
            named += [name] if HOST.search(text) else []
    assert named == []
