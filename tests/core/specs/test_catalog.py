"""Catalogues: TOML files of model cards."""

from __future__ import annotations

import sys
import zipfile

import pytest

from lensmount.errors import LensmountError, ModelFileError, PluginError
from lensmount.specs.catalog import parse
from lensmount.specs.catalog import read_catalog as read

if sys.version_info >= (3, 11):
    import tomllib as toml
else:
    import tomli as toml

TEXT = """
[defaults]
architecture = "mymodel"
licence = "Apache-2.0"

[classes]
pets = ["cat", "dog"]

[[model]]
each = [{ s = "n", sha = "HASH", bytes = 7, size = 320 }, { s = "m", size = 640 }]
id = "mymodel-{s}"
aliases = ["my{s}"]
task = "object-detection"
classes = "pets"
settings = { family = "v1", scale = "{s}" }
[[model.packages]]
name = "onnx-{s}"
format = "onnx"
preprocess = { size = ["{size}", "{size}"] }
artifacts = [{ name = "w.onnx", uri = "hf://me/my-{s}/{s}.onnx", size = "{bytes}", sha256 = "{sha}" }]

[[model]]
id = "single"
task = "embedding"
licence = "MIT"
packages = []
""".replace("HASH", "ab" * 32)


def cards(text):
    return parse(toml.loads(text), "mine/catalog.toml")


def test_rows_are_filled_in():
    n, m, single = cards(TEXT)
    assert (n.id, n.aliases, n.architecture, n.licence, n.classes) == (
        "mymodel-n",
        ("myn",),
        "mymodel",
        "Apache-2.0",
        ("cat", "dog"),
    )
    assert n.settings == (("family", "v1"), ("scale", "n"))
    (package,) = n.packages
    assert package.name == "onnx-n"
    assert package.preprocess is not None
    assert package.preprocess.size == (320, 320)
    assert (package.artifacts[0].uri, package.artifacts[0].size) == ("hf://me/my-n/n.onnx", 7)
    assert package.artifacts[0].sha256 == "ab" * 32
    # what a row does not have is left out where it would have been the whole value
    assert (m.packages[0].artifacts[0].size, m.packages[0].artifacts[0].sha256) == (None, None)
    assert (single.id, single.licence, single.task, single.packages) == ("single", "MIT", "embedding", ())


def test_lists_of_classes_are_shared():
    n, m, _ = cards(TEXT)
    assert n.classes is m.classes


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('classes = "pets"', 'classes = "beasts"', "unknown classes"),
        ("[classes]", "[klasses]", "unknown tables"),
        ('"my{s}"', '"my{t}x"', "placeholder"),
        ('"my{s}"', '"my{"', "placeholder"),
        ('id = "single"', 'id = "not an id"', "model id"),
        ('id = "single"', 'idd = "single"', "unknown keys"),
        ("packages = []", "packages = {}", "packages"),
        ("each = [", "each = [3, ", "each"),
        ("each = [", "each = 3 # [", "each"),
        ('pets = ["cat", "dog"]', "pets = 3", "classes"),
        ('[defaults]\narchitecture = "mymodel"', "defaults = 3\n[x]", ""),
    ],
)
def test_mistakes_are_named(old, new, words):
    assert old in TEXT
    with pytest.raises((PluginError, ModelFileError)) as caught:
        cards(TEXT.replace(old, new).replace("[x]\nlicence", "#licence"))
    assert words in str(caught.value)


def install(tmp_path, monkeypatch, name, content):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text('"""Fake."""\n')
    if content is not None:
        (folder / "catalog.toml").write_bytes(content)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, name, None)
    del sys.modules[name]


def test_reading_from_a_package(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, "fake_catalog_good", TEXT.encode())
    assert [card.id for card in read("fake_catalog_good")] == ["mymodel-n", "mymodel-m", "single"]


def test_reading_from_a_zipped_package(tmp_path, monkeypatch):
    archive = tmp_path / "fake.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("fake_catalog_zipped/__init__.py", "")
        file.writestr("fake_catalog_zipped/catalog.toml", TEXT)
    monkeypatch.syspath_prepend(str(archive))
    assert len(read("fake_catalog_zipped")) == 3


@pytest.mark.parametrize("content", [None, b"not = toml = at all", b"\xff\xfe", b'x = "\xe9"'])
def test_unreadable_catalogues_name_the_file(tmp_path, monkeypatch, content):
    install(tmp_path, monkeypatch, "fake_catalog_bad", content)
    with pytest.raises(PluginError, match=r"fake_catalog_bad/catalog\.toml"):
        read("fake_catalog_bad")


def test_an_absent_package():
    with pytest.raises(LensmountError, match="no_such_package_at_all"):
        read("no_such_package_at_all")
