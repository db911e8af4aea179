"""`lensmount few-shot` and its file of references."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from lensmount.cli.app import app
from lensmount.errors import ImageError, InputError, UnsupportedModelError


def run(*arguments):
    return CliRunner().invoke(app, ["few-shot", *map(str, arguments)], catch_exceptions=False)


@pytest.fixture
def references(pictures):
    file = pictures[0].parent / "refs.json"
    box = {"x": 60, "y": 40, "w": 60, "h": 60, "cls": "thing"}
    file.write_text(json.dumps([{"image": pictures[0].name, "boxes": [box]}]))
    return file


def test_few_shot(held, tiny, pictures, references, tmp_path):
    out, found, kept = tmp_path / "out", tmp_path / "found.json", tmp_path / "detector"
    done = run(
        tiny, "--reference", references, pictures[1], pictures[2], "--save", out, "--json", found,
        "--confidence", 0.5, "--on-unmatched", "nearest", "--save-detector", kept, "--device", "cpu",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in out.iterdir()) == ["picture1.jpg", "picture2.jpg"]
    first, second = json.loads(found.read_text())
    assert first["source"].endswith("picture1.png") and second["source"].endswith("picture2.png")
    again = tmp_path / "again.json"
    arguments = ["predict", str(kept), str(pictures[1]), "--json", str(again)]
    assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
    (entry,) = json.loads(again.read_text())
    assert entry == first


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ("{}", "not a list of reference pictures"),
        ("[]", "no reference box"),
        ('[{"image": "picture0.png", "boxes": [{"x": 1, "y": 1, "w": -1, "h": 1, "cls": "a"}]}]', "has no area"),
        ('[{"image": "picture0.png", "boxes": [{"x": 1, "y": 1, "w": 1, "h": 1, "cls": ""}]}]', "has no class"),
    ],
)
def test_bad_references(held, tiny, pictures, references, content, message):
    references.write_text(content)
    with pytest.raises(InputError, match=message):
        run(tiny, "--reference", references, pictures[1])


def test_missing_files(held, tiny, pictures, references, tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        run(tiny, "--reference", tmp_path / "none.json", pictures[1])
    pictures[0].unlink()
    with pytest.raises(ImageError, match=r"picture0\.png"):
        run(tiny, "--reference", references, pictures[1])


def test_another_kind_of_model(reference_data, pictures, references, tmp_path):
    import lzma

    file = tmp_path / "yolov8n.onnx"
    file.write_bytes(lzma.decompress((reference_data / "goldens/yolov8n.onnx.xz").read_bytes()))
    with pytest.raises(UnsupportedModelError, match="does not learn from example boxes"):
        run(file, "--reference", references, pictures[1])
