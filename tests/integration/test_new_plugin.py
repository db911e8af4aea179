"""`lensmount new-plugin`: what it writes installs, passes its own tests and type-checks; and what it refuses."""

from __future__ import annotations

import hashlib
import json
import re
import runpy
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from clean_environment import ROOT, Clean, build_wheels
from lensmount.errors import InputError
from lensmount_testing.scaffold.names import derive, require_free
from lensmount_testing.scaffold.render import KINDS, LICENCES, bounds, render, write

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LONGEST = "a-name-that-is-as-long-as-a-name-can-bee"  # 40 characters
FEWEST_TESTS = {"model": 20, "backend": 20, "source": 20, "cache": 20}


def written(folder: Path, name: str, kind: str, **more: str) -> Path:
    """A plugin, rendered and written without the command."""
    target = folder / f"{name}-{kind}"
    write(render(derive(name), kind, **more), target)
    return target


# --- as a newcomer would use it ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Clean:
    """A clean environment with the wheels of the core and of one plugin of each kind, made by the command there."""
    folder = tmp_path_factory.mktemp("new-plugin")
    place = Clean(folder / "venv")
    ours = {"lensmount": ROOT / "core", "lensmount_onnx": ROOT / "plugins/onnx"}
    ours |= {f"lensmount_{path.name}": path for path in sorted(ROOT.glob("libraries/*"))}
    place.install(*build_wheels(folder, ours).values())
    projects = {}
    for kind in KINDS:
        done = place.lensmount("new-plugin", f"hello-{kind}", "--kind", kind, cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.strip() == f"lensmount-hello-{kind}"
        projects[f"lensmount_hello_{kind}"] = folder / done.stdout.strip()
    place.install(*build_wheels(folder, projects).values())
    return place


def project(place: Clean, kind: str) -> Path:
    return place.folder.parent / f"lensmount-hello-{kind}"


@pytest.fixture(scope="module")
def outcomes(place: Clean) -> dict[str, subprocess.CompletedProcess[str]]:
    """What each plugin's own tests said, two plugins at a time."""

    def tested(kind: str) -> subprocess.CompletedProcess[str]:
        return place.run("-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=project(place, kind))

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(KINDS, pool.map(tested, KINDS), strict=True))


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize("kind", KINDS)
def test_its_own_tests_pass(outcomes: dict[str, subprocess.CompletedProcess[str]], kind: str) -> None:
    done = outcomes[kind]
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed and int(passed[1]) >= FEWEST_TESTS[kind], done.stdout
    assert "warning" not in done.stdout, done.stdout


@pytest.mark.slow
def test_all_are_found(place: Clean) -> None:
    plugins = json.loads(place.lensmount("plugins", "--json").stdout)
    states = {plugin["distribution"]: plugin["state"] for plugin in plugins}
    assert {f"lensmount-hello-{kind}": "active" for kind in KINDS}.items() <= states.items()


@pytest.mark.slow
def test_predict(place: Clean, tmp_path: Path) -> None:
    picture = project(place, "model") / "picture.png"
    done = place.lensmount("predict", "hello-model", picture, "--json", tmp_path / "out.json", "--save", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (entry,) = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    text = json.dumps(entry)
    assert [text.count(f'"{name}"') >= 1 for name in ("red", "green", "blue")] == [True] * 3
    assert (tmp_path / "picture.jpg").stat().st_size > 1000


USE_ALL = """
import sys
import numpy as np
from lensmount import registry
from lensmount.specs.imports import import_string

picture, address, file = sys.argv[1:]
with registry.load("hello-model", backend="onnx") as a, registry.load(address, backend="hello-backend") as b:
    first, second = a(picture)[0], b(picture)[0]
assert (a.backend, b.backend) == ("onnx", "hello-backend")
np.testing.assert_array_equal(first.xyxy, second.xyxy)
np.testing.assert_allclose(first.confidence, second.confidence, atol=1e-5)
cache = import_string(registry.default().index.caches["hello-cache"].factory, "cache")(file)
cache.put("boxes", second.xyxy)
np.testing.assert_array_equal(cache.get("boxes"), first.xyxy)
print(len(first))
"""


@pytest.mark.slow
def test_they_work_together(place: Clean, tmp_path: Path) -> None:
    """The model, pulled into a folder, comes out of it through the source, runs on the backend, and is cached."""
    share = tmp_path / "share"
    pulled = place.lensmount("pull", "hello-model", "--to", share / "team" / "blobs")
    assert pulled.returncode == 0, pulled.stderr
    picture = project(place, "model") / "picture.png"
    arguments = (picture, "hello-source://team/blobs", tmp_path / "cache.sqlite")
    done = place.run("-c", USE_ALL, *arguments, HELLO_SOURCE_ROOT=str(share))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "5"


@pytest.mark.slow
def test_an_installed_name_is_refused(place: Clean, tmp_path: Path) -> None:
    done = place.lensmount("new-plugin", "hello-model", "--kind", "model", cwd=tmp_path)
    assert done.returncode == 1
    assert "lensmount-hello-model 0.1.0 is installed" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


# --- what is written --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ab", LONGEST])
@pytest.mark.parametrize("kind", KINDS)
def test_ruff_has_nothing_to_say(kind: str, name: str, tmp_path: Path) -> None:
    folder = written(tmp_path, name, kind)
    for check in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *check, "--no-cache", "."], cwd=folder, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.nightly
def test_mypy_has_nothing_to_say(kind: str, tmp_path: Path) -> None:
    folder = written(tmp_path, "hello", kind)
    cache = ROOT / ".mypy_cache" / "new-plugin"  # numpy and the core need to be looked at once only
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", cache], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]["strict"] is True


@pytest.mark.parametrize("kind", KINDS)
def test_metadata(kind: str, tmp_path: Path) -> None:
    folder = written(tmp_path, "my-thing", kind, licence="MIT", author='Zoë "Z" O\\Neil')
    data = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
    project = data["project"]
    assert project["name"] == "lensmount-my-thing"
    assert project["authors"] == [{"name": 'Zoë "Z" O\\Neil'}]
    assert project["entry-points"] == {"lensmount": {"my-thing": "lensmount_my_thing.plugin"}}
    assert project["dependencies"][0] == f"lensmount{bounds()}"
    assert 'Zoë "Z" O\\Neil' in (folder / "LICENSE").read_text(encoding="utf-8")
    expected = {".gitignore", ".github/workflows/ci.yml", "README.md", "src/lensmount_my_thing/py.typed"}
    assert expected <= {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    assert "${{ matrix.python }}" in (folder / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    for path in folder.rglob("*"):
        if path.suffix in (".py", ".toml", ".md", ".yml"):  # no place for a name was forgotten
            assert not re.search(r"\$(?!\{\{)", path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize("licence", LICENCES)
def test_licences(licence: str, tmp_path: Path) -> None:
    text = (written(tmp_path, "ab", "cache", licence=licence) / "LICENSE").read_text(encoding="utf-8")
    assert {"Apache-2.0": "Apache License", "MIT": "MIT License", "BSD-3-Clause": "BSD 3-Clause"}[licence] in text
    assert "$" not in text


def test_the_catalogue_names_the_weights(tmp_path: Path) -> None:
    folder = written(tmp_path, "ab", "model") / "src/lensmount_ab"
    catalogue = tomllib.loads((folder / "catalog.toml").read_text(encoding="utf-8"))
    (artifact,) = catalogue["model"][0]["packages"][0]["artifacts"]
    content = (folder / "data/weights.onnx").read_bytes()
    assert (artifact["size"], artifact["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())


def test_data_files_are_what_their_script_makes() -> None:
    script = runpy.run_path(str(ROOT / "tests/goldens/make_scaffold_data.py"))
    assert script["graph"]() == script["WEIGHTS"].read_bytes()
    made, kept = (
        cv2.imdecode(np.frombuffer(data, np.uint8), 1) for data in (script["picture"](), script["PICTURE"].read_bytes())
    )
    assert (made == kept).all()


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("0.1.0", ">=0.1,<0.2"),
        ("0.9.3", ">=0.9,<0.10"),
        ("1.0.0", ">=1.0,<2"),
        ("2.5.1", ">=2.5,<3"),
        ("0.2.0.dev3", ">=0.2.0.dev3,<0.3"),
    ],
)
def test_bounds(version: str, expected: str) -> None:
    from packaging.specifiers import SpecifierSet

    assert bounds(version) == expected
    assert SpecifierSet(expected).contains(version, prereleases=True)


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["my-thing", "My_Thing", "my.thing", "lensmount-my-thing", "Lensmount_My--Thing"])
def test_one_name_in_many_forms(given: str) -> None:
    names = derive(given)
    assert (names.name, names.distribution, names.module) == ("my-thing", "lensmount-my-thing", "lensmount_my_thing")
    assert names.upper == "MY_THING"


@pytest.mark.parametrize(
    "given",
    [
        "",
        "-",
        "a-",
        "-a",
        "3d",
        "a b",
        "a/b",
        "../a",
        "ä",
        "a\n",
        "lensmount",
        "lensmount-",
        "lensmount-3d",
        "a" * 41,
        "$a",
    ],
)
def test_names_that_cannot_be(given: str) -> None:
    with pytest.raises(InputError, match="cannot be the name"):
        derive(given)


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("yolo", "cache", "lensmount's own"),
        ("shapes-nano", "model", "lensmount-shapes has a model of that id"),
        ("onnx", "backend", "lensmount-onnx has a backend of that name"),
        ("hf", "source", "lensmount has a source of that name"),
        ("disk", "cache", "lensmount has a cache of that name"),
        ("builtin", "cache", "lensmount has an entry point of that name"),
    ],
)
def test_names_that_are_taken(name: str, kind: str, said: str) -> None:
    with pytest.raises(InputError, match="is taken") as raised:
        require_free(derive(name), kind)
    assert said in str(raised.value)


def test_a_module_that_is_not_installed_but_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lensmount_lurking").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="module lensmount_lurking"):
        require_free(derive("lurking"), "model")
    require_free(derive("not-lurking"), "model")


# --- nothing overwritten, nothing half-written ------------------------------------------------------------------------


def test_what_is_there_stays(tmp_path: Path) -> None:
    files = render(derive("ab"), "cache")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    before = sorted(tmp_path.rglob("*"))
    for name in ("full", "empty", "file", "link"):
        with pytest.raises(InputError, match="exists already"):
            write(files, tmp_path / name)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "full" / "mine").read_text() == (tmp_path / "file").read_text() == "mine"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be made"):
        write(render(derive("ab"), "cache"), tmp_path / "no" / "such")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_leaves_nothing(error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = render(derive("ab"), "model")
    wrote = []
    whole = Path.write_bytes

    def fail(self: Path, data: bytes) -> int:
        wrote.append(self.name)
        if len(wrote) == 5:
            raise error
        return whole(self, data)

    monkeypatch.setattr(Path, "write_bytes", fail)
    expected = InputError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        write(files, tmp_path / "ab")
    assert len(wrote) == 5
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["new-plugin", "ab", "--kind", "nonsense"], "no template of this kind"),
        (["new-plugin", "ab", "--kind", "model", "--licence", "GPL"], "no template of this licence"),
        (["new-plugin", "ab", "--kind", "model", "--author", "two\nlines"], "author's name is not valid"),
        (["new-plugin", "3d", "--kind", "model"], "cannot be the name of a plugin"),
        (["new-plugin", "onnx", "--kind", "backend"], "is taken"),
        (["new-plugin", "ab", "--kind", "model", "--output", "."], "exists already"),
    ],
)
def test_the_command_says_what_is_wrong(arguments, said, tmp_path: Path, monkeypatch, lensmount) -> None:
    monkeypatch.chdir(tmp_path)
    done = lensmount(*arguments)
    assert done.status == 1
    assert said in " ".join(done.err.split())
    assert list(tmp_path.iterdir()) == []
