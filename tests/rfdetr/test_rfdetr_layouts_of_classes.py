"""Class names of fine-tuned checkpoints of every rfdetr, from file to result, card and export."""

from __future__ import annotations

import numpy as np
import pytest

from lensmount import registry
from lensmount.errors import ModelFileError, OptionError

pytest.importorskip("torch")


@pytest.fixture
def write(tmp_path, rfdetr_kit):
    """Writes a checkpoint whose network sees one column everywhere."""

    def make(columns, winner, **settings):
        made = rfdetr_kit.tensors(classes=columns - 1)
        for key in made:
            if key.startswith("class_embed."):
                made[key] = np.zeros_like(made[key])
        made["class_embed.bias"] = np.full(columns, -9, np.float32)
        made["class_embed.bias"][winner] = 5
        args = {name: value for name, value in (rfdetr_kit.ARGS | settings).items() if value is not None}
        return rfdetr_kit.write_checkpoint(tmp_path / "tuned.pth", made, args)

    return make


def found(path, picture, **options):
    model = registry.load(path, backend="torch", device="cpu", **options)
    (result,) = model(picture)
    assert len(result.class_id) and len(set(result.class_id)) == 1
    return result.class_names[result.class_id[0]]


@pytest.mark.parametrize("count", [1, 2, 5, 90, 91])
def test_each_layout(write, picture, count):
    names = [f"name {i}" for i in range(count)]
    layouts = {"1.4.1": (count + 1, count + 1, 1), "background last": (count + 1, count, 0), "each": (count, count, 0)}
    for words, (columns, number, shift) in layouts.items():
        for i in {0, count - 1}:
            path = write(columns, i + shift, class_names=names, num_classes=number)
            assert found(path, picture) == names[i]
        card = registry.describe(path)
        assert any(words in note for note in card.notes)
        assert len(card.classes) == columns


def test_the_background_is_reported_by_name(write, picture):
    names = ["nut", "bolt"]
    assert found(write(3, 0, class_names=names, num_classes=3), picture) == "__background__"
    assert found(write(3, 2, class_names=names, num_classes=2), picture) == "__background__"
    assert found(write(5, 4, class_names=names), picture, class_offset=1) == "class_4"


def test_an_ambiguous_file_is_refused_and_overridden(write, picture, tmp_path):
    path = write(3, 1, class_names=["nut", "bolt"], num_classes=None)
    (note,) = registry.describe(path).notes
    assert "undecided" in note and "class_offset=0" in note and "class_offset=1" in note
    for action in (registry.load, lambda p: registry.export(p, output=tmp_path / "x.onnx")):
        with pytest.raises(ModelFileError, match="which column") as caught:
            action(path)
        assert "'nut'" in str(caught.value) and "class_offset=1" in str(caught.value)
    assert found(path, picture, class_offset=0) == "bolt"
    assert found(path, picture, class_offset=1) == "nut"
    assert found(path, picture, classes=["sky", "nut", "bolt"]) == "nut"
    assert found(path, picture, classes="sky, nut, bolt") == "nut"
    loaded = registry.load(path, class_offset=1)
    assert loaded.card.classes == ("__background__", "nut", "bolt")
    assert any("class_offset=1" in note for note in loaded.card.notes)
    for wrong in ({"class_offset": 2}, {"class_offset": -1}, {"class_offset": 0.5}, {"class_offset": True}):
        with pytest.raises(OptionError):
            registry.load(path, **wrong)
    for wrong in ([], "", [1], 3, {"a": 1}, list("abcd")):
        with pytest.raises(OptionError):
            registry.load(path, classes=wrong)


def test_two_places_that_disagree(tmp_path, rfdetr_kit):
    args = {"num_classes": 4, "class_names": list("abc")}
    path = rfdetr_kit.write_checkpoint(
        tmp_path / "x.pth", rfdetr_kit.tensors(), args, model_config=dict(rfdetr_kit.ARGS)
    )
    with pytest.raises(ModelFileError, match="num_classes: 4 and 3"):
        registry.load(path)


def test_an_export_keeps_the_layout(write, picture, tmp_path):
    pytest.importorskip("onnx")
    path = write(3, 1, class_names=["nut", "bolt"], num_classes=3)
    graph = registry.export(path, output=tmp_path / "a.onnx")
    model = registry.load(graph, backend="onnx", device="cpu")
    assert model.card.classes == ("__background__", "nut", "bolt")
    (result,) = model(picture)
    assert set(result.class_id) == {1}
    path = write(3, 1, class_names=["nut", "bolt"], num_classes=None)
    graph = registry.export(path, output=tmp_path / "b.onnx", settings={"class_offset": 1})
    assert registry.describe(graph).classes == ("__background__", "nut", "bolt")
