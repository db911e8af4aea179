"""The built wheels: what is in them, and that they work in a clean environment without torch."""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
from collections.abc import Mapping
from email.parser import Parser
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from clean_environment import ROOT, Clean, build_wheels, pip, run
from lensmount.version import __version__

PROJECTS = {
    package.name: package.parents[1].relative_to(ROOT).as_posix()
    for pattern in ("core", "libraries/*", "plugins/*", "examples/*")
    for package in sorted(ROOT.glob(f"{pattern}/src/lensmount*/"))
}
OURS = {name: folder for name, folder in PROJECTS.items() if not folder.startswith("examples/")}
#: Bytes; lensmount-vision carries the vocabulary of CLIP-like models, the example its trained weights.
LARGER = {"lensmount_shapes": 3_000_000, "lensmount_vision": 2_000_000}
MODELS = {"clip", "owlv2", "perception_encoder", "rfdetr", "sam2", "yolo", "shapes"}
#: Packages of a wheel besides the one of its own name.
FURTHER = {"lensmount_inference_compat": {"inference_models"}}
CATALOGUES = {f"lensmount_{name}" for name in MODELS}
SCENE = ROOT / "examples/lensmount-shapes/src/lensmount_shapes/data/scene.jpg"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32" and not shutil.which("pip"), reason="needs pip"),
]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One wheel of each project, built from a copy of the checkout's sources."""
    folder = tmp_path_factory.mktemp("wheels")
    return build_wheels(folder, {name: ROOT / path for name, path in PROJECTS.items()})


@pytest.mark.parametrize("name", PROJECTS)
def test_contents(name: str, wheels: dict[str, Path]) -> None:
    with zipfile.ZipFile(wheels[name]) as wheel:
        files = wheel.namelist()
        (path,) = (file for file in files if file.endswith(".dist-info/METADATA"))
        page = Parser().parsestr(wheel.read(path).decode("utf-8"))
    assert wheels[name].stat().st_size <= LARGER.get(name, 1_000_000)
    assert f"{name}/py.typed" in files
    assert (f"{name}/catalog.toml" in files) or name not in CATALOGUES
    tops = {file.partition("/")[0] for file in files}
    packages = {top for top in tops if not top.endswith(".dist-info")}
    assert packages == {name} | FURTHER.get(name, set())  # no tests, no `core`, no stray module
    own = [
        file for file in files if not file.startswith("lensmount_testing/scaffold/templates/")
    ]  # those hold tests to write
    assert not [file for file in own if "/tests/" in file or file.endswith((".pyc", "conftest.py"))]
    sources = {p.relative_to(ROOT / PROJECTS[name] / "src").as_posix() for p in source_files(name)}
    assert sources <= set(files)
    assert page["License-Expression"]
    assert page["Requires-Python"] == ">=3.10"
    assert page.get_payload().strip(), "the page of the package index would be empty"
    asked = " ".join(line for line in page.get_all("Requires-Dist", []) if "extra ==" not in line)
    for heavy in ("torch", "onnxruntime", "transformers", "pillow", "supervision"):
        assert heavy not in asked


def test_the_vocabulary_of_pictures_and_words_is_in_one_wheel(wheels: dict[str, Path]) -> None:
    """CLIP, Perception Encoder and OWLv2 read it where lensmount-vision has it, with its licence next to it."""
    with_it = {}
    for name, path in wheels.items():
        with zipfile.ZipFile(path) as wheel:
            with_it[name] = [file for file in wheel.namelist() if file.endswith(("merges.txt.gz", "LICENSE-OpenAI"))]
    towers = "lensmount_vision/towers"
    assert {name: files for name, files in with_it.items() if files} == {
        "lensmount_vision": [f"{towers}/LICENSE-OpenAI", f"{towers}/merges.txt.gz"]
    }


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


def test_every_distribution_is_built(wheels: dict[str, Path]) -> None:
    projects = [*ROOT.glob("core/pyproject.toml"), *ROOT.glob("libraries/*/pyproject.toml")]
    projects += ROOT.glob("plugins/*/pyproject.toml")
    assert {path.parent.relative_to(ROOT).as_posix() for path in projects} == set(OURS.values())
    assert {wheels[name].name.split("-")[1] for name in OURS} == {__version__}


def needs(name: str, wheels: Mapping[str, Path]) -> set[str]:
    """A distribution of ours and those of ours that it asks for, extras left out."""
    found, open_ = set(), [name]
    while open_:
        current = open_.pop()
        if current in found:
            continue
        found.add(current)
        with zipfile.ZipFile(wheels[current]) as wheel:
            (path,) = (file for file in wheel.namelist() if file.endswith(".dist-info/METADATA"))
            page = Parser().parsestr(wheel.read(path).decode("utf-8"))
        asked = [Requirement(line) for line in page.get_all("Requires-Dist", [])]
        names = [r.name.replace("-", "_") for r in asked if r.marker is None or r.marker.evaluate({"extra": ""})]
        open_ += [asked_name for asked_name in names if asked_name in wheels]
    return found


ALONE = """
import importlib, json, sys
from importlib import metadata
from lensmount import registry

package = sys.argv[1]
importlib.import_module(package)
ours = sorted(d.name.replace("-", "_") for d in metadata.distributions() if d.name.startswith("lensmount"))
print(json.dumps([ours, {status.distribution: status.state for status in registry.plugins()}]))
"""


@pytest.mark.parametrize("name", OURS)
def test_each_installs_alone_and_imports(name: str, wheels: dict[str, Path], bare: Clean, tmp_path: Path) -> None:
    """With no other distribution of ours than those it asks for; each plugin in them is active."""
    wanted = needs(name, wheels)
    install = [*pip(), "install", "-q", "--no-deps", "--no-index", "--target", tmp_path]
    done = run([*install, *(wheels[other] for other in wanted)], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    done = bare.run("-W", "error", "-c", ALONE, name, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    ours, states = json.loads(done.stdout)
    assert set(ours) == wanted
    assert set(states.values()) == {"active"}


CORE_ALONE = ("doctor", "models", "plugins", "explain yolov8n-640", "--help", "cache ls", "errors")


@pytest.mark.parametrize("line", CORE_ALONE)
def test_the_core_alone(line: str, wheels: dict[str, Path], bare: Clean, tmp_path: Path) -> None:
    """Its commands work or say what to install; what it lacks is named with the line that brings it."""
    done = run(
        [*pip(), "install", "-q", "--no-deps", "--no-index", "--target", tmp_path, wheels["lensmount"]], tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    done = bare.lensmount(*line.split(), PYTHONPATH=str(tmp_path))
    said = done.stdout + done.stderr
    assert "Traceback" not in said
    assert ("pip install lensmount-yolo" in said) is ("yolov8n" in line)
    assert ('pip install "lensmount[onnx]"' in said) is (line == "doctor")
    assert done.returncode == (1 if "yolov8n" in line or line == "doctor" else 0), said


def closure(*wanted: str) -> set[str]:
    """Names of all distributions that pip would install for some requirements, on this machine, read from metadata."""
    found: set[tuple[str, str]] = set()
    open_ = [Requirement(text) for text in wanted]
    while open_:
        requirement = open_.pop()
        name = canonicalize_name(requirement.name)
        for extra in ("", *requirement.extras):
            if (name, extra) in found:
                continue
            found.add((name, extra))
            for line in metadata.requires(name) or ():
                asked = Requirement(line)
                if asked.marker is None or asked.marker.evaluate({"extra": extra}):
                    open_.append(asked)
    return {name for name, _ in found}


def test_the_core_brings_few_distributions() -> None:
    assert len(closure("lensmount")) <= 26
    heavy = {"opencv-python-headless", "pydantic", "onnxruntime", "torch", "onnx", "pillow"}
    assert closure("lensmount") & heavy == set()


@pytest.mark.parametrize(
    ("wanted", "there", "absent"),
    [
        ("lensmount[yolo,onnx]", {"lensmount-yolo", "lensmount-onnx", "onnxruntime"}, {"torch", "supervision"}),
        ("lensmount[sam2,torch,supervision]", {"lensmount-sam2", "torch", "supervision"}, {"onnxruntime"}),
        ("lensmount-sam2", {"lensmount-vision", "lensmount-reading"}, {"torch", "onnxruntime", "lensmount-onnx"}),
        ("lensmount[bench,eval]", {"lensmount-bench", "faster-coco-eval"}, {"torch", "onnxruntime"}),
        (
            "lensmount[all]",
            {
                f"lensmount-{name}"
                for name in ("onnx", "torch", "bench", "yolo", "rfdetr", "sam2", "owlv2", "clip", "roboflow")
            },
            {"lensmount-tensorrt", "tensorrt"},
        ),
    ],
)
def test_extras_bring_what_they_name(wanted: str, there: set[str], absent: set[str]) -> None:
    found = closure(wanted)
    assert there <= found
    assert absent & found == set()


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Clean:
    """An environment without any distribution of ours."""
    return Clean(tmp_path_factory.mktemp("bare") / "venv")


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


def test_models_without_torch(clean: Clean) -> None:
    done = clean.lensmount("models", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"shapes-nano", "yolov8n-640"} <= {card["id"] for card in json.loads(done.stdout)}


def test_an_error_leads_to_its_page(clean: Clean) -> None:
    done = clean.lensmount("predict", "shapes-nano", "missing.jpg")
    assert done.returncode != 0
    assert done.stderr.endswith("see: lensmount errors ImageError\n")
    page = clean.lensmount("errors", "ImageError")
    assert page.returncode == 0, page.stderr
    assert page.stdout == (ROOT / "docs/errors/ImageError.md").read_text(encoding="utf-8")


def test_predict_without_torch(clean: Clean, tmp_path: Path) -> None:
    done = clean.lensmount("predict", "shapes-nano", SCENE, "--save", tmp_path / "out", "--json", tmp_path / "out.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert [p for p in (tmp_path / "out").iterdir() if p.stat().st_size > 1000]
    found = (tmp_path / "out.json").read_text(encoding="utf-8")
    assert any(name in found for name in ("circle", "square", "triangle", "star", "ring", "cross"))


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


def test_a_backend_that_is_not_there_is_refused(clean: Clean) -> None:
    done = clean.lensmount("predict", "shapes-nano", SCENE, "--backend", "torch")
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "lensmount[torch]" in said
    assert "Traceback" not in said


def test_without_the_plugin_the_core_says_what_to_install(
    wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    environment = Clean(tmp_path_factory.mktemp("core") / "venv")
    environment.install(*(wheels[name] for name in needs("lensmount_yolo", wheels)))
    assert "yolov8n-640" in environment.lensmount("models").stdout
    environment.uninstall("lensmount-yolo")
    assert environment.lensmount("models").returncode == 0
    done = environment.lensmount("predict", "yolov8n-640", "x.jpg")
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "pip install lensmount-yolo" in said
    assert "Traceback" not in said
