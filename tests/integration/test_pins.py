"""`constraints.txt` names exactly what the workspace needs: from the wanted packages down to the last they pull in."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
OURS = "lensmount"


def requirements_in(path: Path) -> list[Requirement]:
    lines = (line.split(" #")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def pins() -> dict[str, str]:
    """Pinned version by name, for this Python and machine."""
    found: dict[str, str] = {}
    for requirement in requirements_in(ROOT / "constraints.txt"):
        if requirement.marker is None or requirement.marker.evaluate():
            name = canonicalize_name(requirement.name)
            assert name not in found, f"{name} is pinned twice"
            found[name] = str(requirement.specifier).removeprefix("==")
    return found


def wanted() -> list[Requirement]:
    """What `dev.py test` asks for by name: the workspace's projects with their extras, and the tools."""
    projects = [Requirement("lensmount[onnx,torch,supervision,testing]")]
    for pattern in ("plugins/*", "examples/*"):
        projects += [
            Requirement(path.parent.name if pattern != "plugins/*" else f"{OURS}-{path.parent.name.replace('_', '-')}")
            for path in sorted(ROOT.glob(f"{pattern}/pyproject.toml"))
        ]
    return projects + requirements_in(ROOT / "requirements-dev.txt")


def closure(
    wanted: list[Requirement], distribution_of: Callable[[str], metadata.Distribution] = metadata.distribution
) -> dict[str, str]:
    """Installed version of everything wanted, and of all that it pulls in, without the workspace's own projects."""
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    queue = [(requirement, extra) for requirement in wanted for extra in ("", *requirement.extras)]
    while queue:
        requirement, extra = queue.pop()
        name = canonicalize_name(requirement.name)
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        distribution = distribution_of(name)
        if not name.startswith(OURS):
            found[name] = distribution.version
        for line in distribution.requires or ():
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                queue += [(needed, inner) for inner in ("", *needed.extras)]
    return found


@pytest.fixture(scope="module")
def installed() -> dict[str, str]:
    try:
        return closure(wanted())
    except metadata.PackageNotFoundError as error:
        pytest.fail(f"{error.name} is wanted but not installed here; `python3 dev.py test` installs it")


def test_pins_are_exact() -> None:
    for requirement in requirements_in(ROOT / "constraints.txt"):
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", requirement
        assert "*" not in specifier.version, requirement
        assert requirement.url is None, requirement


def test_everything_is_pinned(installed: dict[str, str]) -> None:
    assert len(installed) > 40  # the walk did reach what is pulled in
    assert sorted(set(installed) - set(pins())) == []


def test_what_is_installed_is_what_is_pinned(installed: dict[str, str]) -> None:
    pinned = pins()
    # a local version (torch's `+cpu`) is the same release, built otherwise
    other = {name: v for name, v in installed.items() if v.partition("+")[0] != pinned.get(name, v)}
    assert other == {}


def test_what_builds_the_documentation_is_pinned() -> None:
    tools = requirements_in(ROOT / "docs/requirements.txt")
    assert sorted({canonicalize_name(tool.name) for tool in tools} - set(pins())) == []
    places = sorted(ROOT.glob(".venv-docs/[lL]ib/**/site-packages"))
    if not places:
        pytest.skip("`python3 dev.py docs` makes the environment that this looks into")
    there = {canonicalize_name(d.name): d for d in metadata.distributions(path=[str(places[0])])}
    installed = closure(tools, there.__getitem__)
    assert len(installed) > 20
    assert {name: version for name, version in installed.items() if pins().get(name) != version} == {}
