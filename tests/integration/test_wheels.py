"""The built wheels: what is in them, and that they work in a clean environment without torch."""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from clean_environment import ROOT, Clean, build_wheels, run

PROJECTS = {
    "lensmount": "core",
    "lensmount_clip": "plugins/clip",
    "lensmount_owlv2": "plugins/owlv2",
    "lensmount_perception_encoder": "plugins/perception_encoder",
    "lensmount_rfdetr": "plugins/rfdetr",
    "lensmount_roboflow": "plugins/roboflow",
    "lensmount_sam2": "plugins/sam2",
    "lensmount_yolo": "plugins/yolo",
    "lensmount_shapes": "examples/lensmount-shapes",
    "lensmount_openvino": "examples/lensmount-openvino",
    "lensmount_redis_cache": "examples/lensmount-redis-cache",
}
LARGEST = {name: 3_000_000 if name == "lensmount_shapes" else 1_000_000 for name in PROJECTS}  # bytes
WITHOUT_CATALOGUE = {"lensmount", "lensmount_roboflow", "lensmount_openvino", "lensmount_redis_cache"}
CATALOGUES = set(PROJECTS) - WITHOUT_CATALOGUE
SCENE = ROOT / "examples/lensmount-shapes/src/lensmount_shapes/data/scene.jpg"
READY = all((ROOT / folder / "pyproject.toml").is_file() for folder in PROJECTS.values()) and SCENE.is_file()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32" and not shutil.which("pip"), reason="needs pip"),
]
needs_the_sample = pytest.mark.skipif(not READY, reason="not written yet: the sample plugin")
needs_the_command_line = pytest.mark.skipif(
    not (ROOT / "core/src/lensmount/__main__.py").is_file(), reason="not written yet: the command line"
)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One wheel of each project, built from a copy of the checkout's sources."""
    folder = tmp_path_factory.mktemp("wheels")
    present = {name: path for name, path in PROJECTS.items() if (ROOT / path / "pyproject.toml").is_file()}
    return build_wheels(folder, {name: ROOT / path for name, path in present.items()})


@pytest.mark.parametrize("name", PROJECTS)
def test_contents(name: str, wheels: dict[str, Path]) -> None:
    if name not in wheels:
        pytest.skip(f"not written yet: {PROJECTS[name]}")
    with zipfile.ZipFile(wheels[name]) as wheel:
        files = wheel.namelist()
        (path,) = (file for file in files if file.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(wheel.read(path).decode("utf-8"))
    assert wheels[name].stat().st_size <= LARGEST[name]
    assert f"{name}/py.typed" in files
    assert (f"{name}/catalog.toml" in files) or name not in CATALOGUES
    tops = {file.partition("/")[0] for file in files}
    assert {top for top in tops if not top.endswith(".dist-info")} == {name}  # no tests, no `core`, no stray module
    own = [file for file in files if not file.startswith("lensmount/scaffold/templates/")]  # those hold tests to write
    assert not [file for file in own if "/tests/" in file or file.endswith((".pyc", "conftest.py"))]
    sources = {p.relative_to(ROOT / PROJECTS[name] / "src").as_posix() for p in source_files(name)}
    assert sources <= set(files)
    assert metadata["License-Expression"]
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata.get_payload().strip(), "the page of the package index would be empty"
    asked = " ".join(line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line)
    for heavy in ("torch", "onnxruntime", "transformers", "pillow", "supervision"):
        assert heavy not in asked


def test_the_pages_on_errors_are_in_the_wheel(wheels: dict[str, Path], tmp_path: Path) -> None:
    """Also in one that is built from the sdist, where there is no docs folder."""
    pages = {path.name: path.read_bytes() for path in (ROOT / "docs/errors").glob("*.md")}
    (tmp_path / "sdist").mkdir()
    build = "import sys; from hatchling.build import build_sdist, build_wheel; globals()[sys.argv[1]](sys.argv[2])"
    done = run([sys.executable, "-c", build, "build_sdist", tmp_path / "sdist"], ROOT / "core")
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.unpack_archive(next(tmp_path.glob("sdist/*.tar.gz")), tmp_path)
    done = run([sys.executable, "-c", build, "build_wheel", tmp_path], next(tmp_path.glob("lensmount-*/")))
    assert done.returncode == 0, done.stdout + done.stderr
    for path in (wheels["lensmount"], next(tmp_path.glob("*.whl"))):
        with zipfile.ZipFile(path) as wheel:
            names = [name for name in wheel.namelist() if name.startswith("lensmount/error_pages/")]
            assert {name.rpartition("/")[2]: wheel.read(name) for name in names} == pages


def test_every_project_is_built_here() -> None:
    """So that `test_contents` finds py.typed in every wheel; an example may say elsewhere what is in its own."""
    plugins = {path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("plugins/*/pyproject.toml")}
    assert {"core", *plugins} <= set(PROJECTS.values())


def source_files(name: str) -> list[Path]:
    package = ROOT / PROJECTS[name] / "src" / name
    return [p for p in package.rglob("*") if p.is_file() and "__pycache__" not in p.parts]


@pytest.fixture(scope="module")
def clean(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Clean:
    """Everything installed from wheels."""
    environment = Clean(tmp_path_factory.mktemp("clean") / "venv")
    environment.install(*wheels.values())
    return environment


def test_the_environment_is_clean(clean: Clean, wheels: dict[str, Path]) -> None:
    assert clean.run("-c", "import numpy, cv2, onnxruntime").returncode == 0
    torch = clean.run("-c", "import torch")
    assert torch.returncode != 0
    assert "No module named 'torch'" in torch.stderr
    code = (
        "import importlib.metadata as m, importlib.util as u, json, sys\n"
        "ours = {d.name: str(d.locate_file('')) for d in m.distributions() if d.name.startswith('lensmount')}\n"
        "torches = [d.name for d in m.distributions() if d.name == 'torch']\n"
        "import lensmount\n"
        "print(json.dumps([ours, lensmount.__file__, sys.prefix, torches]))"
    )
    ours, where, prefix, torches = json.loads(clean.run("-c", code).stdout)
    assert {name.replace("-", "_") for name in ours} == set(wheels)
    assert all(Path(path).is_relative_to(prefix) for path in [*ours.values(), where])
    assert torches == []


@needs_the_command_line
@needs_the_sample
def test_models_without_torch(clean: Clean) -> None:
    done = clean.lensmount("models", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"shapes-nano", "yolov8n-640"} <= {card["id"] for card in json.loads(done.stdout)}


@needs_the_command_line
def test_an_error_leads_to_its_page(clean: Clean) -> None:
    done = clean.lensmount("predict", "shapes-nano", "missing.jpg")
    assert done.returncode != 0
    assert done.stderr.endswith("see: lensmount errors ImageError\n")
    page = clean.lensmount("errors", "ImageError")
    assert page.returncode == 0, page.stderr
    assert page.stdout == (ROOT / "docs/errors/ImageError.md").read_text(encoding="utf-8")


@needs_the_command_line
@needs_the_sample
def test_predict_without_torch(clean: Clean, tmp_path: Path) -> None:
    done = clean.lensmount("predict", "shapes-nano", SCENE, "--save", tmp_path / "out", "--json", tmp_path / "out.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert [p for p in (tmp_path / "out").iterdir() if p.stat().st_size > 1000]
    found = (tmp_path / "out.json").read_text(encoding="utf-8")
    assert any(name in found for name in ("circle", "square", "triangle", "star", "ring", "cross"))


@needs_the_command_line
@needs_the_sample
def test_predict_on_a_third_partys_backend(clean: Clean, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    done = clean.lensmount("predict", "shapes-nano", SCENE, "--backend", "openvino", "--json", tmp_path / "out.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "star" in (tmp_path / "out.json").read_text(encoding="utf-8")


def test_plugins_of_third_parties_are_active(clean: Clean) -> None:
    done = clean.lensmount("plugins", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    states = {plugin["distribution"]: plugin["state"] for plugin in json.loads(done.stdout)}
    assert states["lensmount-openvino"] == states["lensmount-redis-cache"] == "active"


@needs_the_command_line
@needs_the_sample
def test_a_backend_that_is_not_there_is_refused(clean: Clean) -> None:
    done = clean.lensmount("predict", "shapes-nano", SCENE, "--backend", "torch")
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "lensmount[torch]" in said
    assert "Traceback" not in said


@needs_the_command_line
def test_without_the_plugin_the_core_says_what_to_install(
    wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    environment = Clean(tmp_path_factory.mktemp("core") / "venv")
    environment.install(*(wheels[name] for name in ("lensmount", "lensmount_yolo")))
    assert "yolov8n-640" in environment.lensmount("models").stdout
    environment.uninstall("lensmount-yolo")
    assert environment.lensmount("models").returncode == 0
    done = environment.lensmount("predict", "yolov8n-640", "x.jpg")
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "pip install lensmount-yolo" in said
    assert "Traceback" not in said
