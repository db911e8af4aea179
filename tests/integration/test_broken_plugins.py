"""All plugins and examples installed: `lensmount models` lists them all. Any one broken harms only itself.

A broken plugin is a real distribution: a folder with a package and a `.dist-info`, found before the installed one of
the same name. Every plugin is broken in every way.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
SCENE = ROOT / "examples/lensmount-shapes/src/lensmount_shapes/data/scene.jpg"
DRIVER = ROOT / "tests/support/plugin_overlays.py"

# One id of each family, by entry point: named here, so that a catalogue that loses its models is seen.
MODELS = {
    "clip": "clip/ViT-B-32",
    "owlv2": "owlv2/base-patch16-ensemble",
    "perception-encoder": "perception-encoder/PE-Core-B16-224",
    "rfdetr": "rfdetr-base",
    "sam2": "sam2/hiera_tiny",
    "shapes": "shapes-nano",
    "yolo": "yolov8n-640",
}


@dataclass(frozen=True)
class Plugin:
    """An entry point of this workspace: its name, its distribution, the module that it names."""

    name: str
    distribution: str
    module: str

    def __str__(self) -> str:
        return self.name


def workspace() -> list[Plugin]:
    found = []
    for path in sorted([*ROOT.glob("plugins/*/pyproject.toml"), *ROOT.glob("examples/*/pyproject.toml")]):
        project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
        points = project.get("entry-points", {}).get("lensmount", {})
        found += [Plugin(name, project["name"], module) for name, module in points.items()]
    return found


PLUGINS = workspace()
ABSENT = {plugin.distribution for plugin in PLUGINS} - {d.name for d in metadata.distributions()}
pytestmark = pytest.mark.skipif(bool(ABSENT), reason=f"not installed: {', '.join(sorted(ABSENT))}")

HEAD = "from lensmount.specs import hookimpl\n\n\n"


@dataclass(frozen=True)
class Break:
    """A way to be broken: the plugin's module (None: as it is), what it requires, and what is to be said of it."""

    code: str | None
    stage: str
    reason: str
    requires: str = "lensmount>=0.1,<0.2"
    module: str | None = None  # what the entry point names instead


BREAKS = {
    "raises at import": Break("raise RuntimeError('out of order')", "import", "RuntimeError: out of order"),
    "a dependency is missing": Break(
        "import a_package_that_is_not_there", "import", "No module named 'a_package_that_is_not_there'"
    ),
    "is no Python": Break("def (", "import", "SyntaxError"),
    "names no module": Break(None, "import", "no_such_module", module="no_such_module.plugin"),
    "misspells a hook": Break(
        HEAD + "@hookimpl\ndef lensmount_model_card():\n    return ()",
        "register",
        "did you mean lensmount_model_cards?",
    ),
    "raises in a hook": Break(
        HEAD + "@hookimpl\ndef lensmount_model_cards():\n    raise KeyError('id')", "hooks", "KeyError: 'id'"
    ),
    "returns the wrong type": Break(
        HEAD + "@hookimpl\ndef lensmount_model_cards():\n    return ['a-model']",
        "hooks",
        "expected: an iterable of ModelCard",
    ),
    "is for an old core": Break(
        None, "requirements", "was made for another lensmount", requires="lensmount>=0.0.1,<0.0.2"
    ),
}
CASES = [(plugin, name) for plugin in PLUGINS for name in BREAKS]
PREDICT = ["predict", "shapes-nano", str(SCENE), "--backend", "onnx", "--json", "-"]


def overlay(folder: Path, plugin: Plugin, broken: Break) -> Path:
    """A distribution that shadows the installed one; its package shadows the installed one only if it has code."""
    top, _, rest = plugin.module.partition(".")
    folder.mkdir(parents=True)
    if broken.code is not None:
        target = folder / top / Path(*rest.split(".")).with_suffix(".py")
        target.parent.mkdir(parents=True)
        (folder / top / "__init__.py").write_text("")
        target.write_text(broken.code)
    version = metadata.version(plugin.distribution)
    info = folder / f"{plugin.distribution.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    head = f"Metadata-Version: 2.1\nName: {plugin.distribution}\nVersion: {version}\n"
    (info / "METADATA").write_text(f"{head}Requires-Dist: {broken.requires}\n")
    (info / "entry_points.txt").write_text(f"[lensmount]\n{plugin.name} = {broken.module or plugin.module}\n")
    return folder


def environ(home: Path) -> dict[str, str]:
    places = {"HOME": str(home), "USERPROFILE": str(home), "XDG_CACHE_HOME": str(home / ".cache")}
    ours = ("LENSMOUNT_PLUGINS", "LENSMOUNT_BLOCK_PLUGINS", "LENSMOUNT_STRICT", "LENSMOUNT_HOME", "PYTHONWARNINGS")
    kept = {key: value for key, value in os.environ.items() if key not in ours}
    return {**kept, **places, "LENSMOUNT_OFFLINE": "1", "NO_COLOR": "1", "COLUMNS": "200", "PYTHONUTF8": "1"}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[Any, dict[str, Any]]:
    """What lensmount said of the whole installation (None) and of each broken one."""
    folder = tmp_path_factory.mktemp("broken")
    jobs: dict[Any, dict[str, Any]] = {None: {"overlay": "", "command": PREDICT}}
    for plugin, name in CASES:
        place = overlay(folder / plugin.name / name.replace(" ", "-"), plugin, BREAKS[name])
        jobs[plugin, name] = {"overlay": str(place), "command": PREDICT if name == "raises in a hook" else None}
    (folder / "jobs.json").write_text(json.dumps(list(jobs.values())))
    done = subprocess.run(
        [sys.executable, DRIVER, folder / "jobs.json", folder / "answers.json"],
        env=environ(folder), cwd=folder, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(zip(jobs, json.loads((folder / "answers.json").read_text(encoding="utf-8")), strict=True))


def by_name(answer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {status["name"]: status for status in answer["statuses"]}


def owned(plugin: Plugin) -> set[str]:
    """Ids of a plugin's own catalogue, read apart from discovery."""
    from lensmount.specs.catalog import read_catalog as read

    package = plugin.module.partition(".")[0]
    catalogue = list(ROOT.glob(f"*/*/src/{package}/catalog.toml"))
    return {card.id for card in read(package)} if catalogue else set()


def test_all_of_them_are_listed(answers: dict[Any, dict[str, Any]]) -> None:
    whole = answers[None]
    found = by_name(whole)
    assert {plugin.name for plugin in PLUGINS} <= set(found)
    assert {found[plugin.name]["state"] for plugin in PLUGINS} == {"active"}
    assert set(MODELS.values()) <= set(whole["models"])
    assert set(MODELS) <= {plugin.name for plugin in PLUGINS if owned(plugin)}
    assert set(whole["models"]) >= set().union(*(owned(plugin) for plugin in PLUGINS))
    assert "broken plugin" not in whole["shown"] and whole["warnings"] == []
    assert whole["said"]["status"] == 0 and '"class_name"' in whole["said"]["out"]


@pytest.mark.parametrize(("plugin", "name"), CASES, ids=[f"{plugin}-{name}" for plugin, name in CASES])
def test_one_broken_harms_only_itself(plugin: Plugin, name: str, answers: dict[Any, dict[str, Any]]) -> None:
    broken, whole, answer = BREAKS[name], answers[None], answers[plugin, name]
    found, before = by_name(answer), by_name(whole)

    told, healthy = found.pop(plugin.name), before.pop(plugin.name)
    assert (told["state"], told["stage"]) == ("broken", broken.stage)
    assert broken.reason in told["error"]
    assert "\n  fix: " in told["error"]
    assert told["location"] != healthy["location"]  # it was the overlay that was found
    assert found == before  # all others are as they were
    assert set(answer["models"]) == set(whole["models"]) - owned(plugin)

    version = metadata.version(plugin.distribution)
    head = f"broken plugin {plugin.name} ({plugin.distribution} {version}), stage {broken.stage}: "
    _, _, after = answer["shown"].partition(head)
    assert broken.reason in after and "\n  fix: " in after
    assert "Traceback" not in answer["shown"]
    (warning,) = answer["warnings"]
    assert warning.startswith(f"PluginWarning: plugin {plugin.name!r} of {plugin.distribution} {version} was left out")


@pytest.mark.parametrize("plugin", PLUGINS, ids=str)
def test_the_rest_goes_on_working(plugin: Plugin, answers: dict[Any, dict[str, Any]]) -> None:
    said, whole = answers[plugin, "raises in a hook"]["said"], answers[None]["said"]
    if plugin.name not in ("shapes", "yolo", "onnx"):
        assert said["status"] == 0 and said["out"] == whole["out"]
        return
    # The model itself, the architecture that it needs, the backend asked for: the error says which plugin is to blame.
    assert said["status"] == 1
    blame = f"plugin {plugin.name!r} of {plugin.distribution} was left out (hooks: hook lensmount_model_cards failed"
    error = "UnknownBackendError" if plugin.name == "onnx" else "ModelNotFoundError"
    assert error in said["err"] and blame in said["err"]
    assert "pip install" not in said["err"]


@pytest.mark.parametrize("name", BREAKS)
def test_a_process_of_its_own_says_the_same(name: str, answers: dict[Any, dict[str, Any]], tmp_path: Path) -> None:
    """The driver forgets between jobs; that this is as good as a new process is tried once for each break."""
    plugin = PLUGINS[list(BREAKS).index(name) % len(PLUGINS)]
    place = overlay(tmp_path / "overlay", plugin, BREAKS[name])

    def lensmount(command: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "lensmount", command, "--json"],
            env={**environ(tmp_path), "PYTHONPATH": str(place)},
            cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done

    listed = lensmount("plugins")
    here, there = json.loads(listed.stdout), answers[plugin, name]["statuses"]
    (status,) = (status for status in here if status["state"] == "broken")
    assert status["location"] == str(place)
    assert here == [{**s, "location": str(place)} if s["state"] == "broken" else s for s in there]
    assert f"PluginWarning: plugin {plugin.name!r} of {plugin.distribution} " in listed.stderr
    if name == next(iter(BREAKS)):
        ids = [card["id"] for card in json.loads(lensmount("models").stdout)]
        assert ids == answers[plugin, name]["models"]
