"""Which column is which class: lists, tables, gaps, duplicates, COCO's two numberings, more and fewer names."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from lensmount import registry
from lensmount.errors import ModelFileError, OptionError
from lensmount.specs import read_catalog
from lensmount_yolo.metadata import parse
from lensmount_yolo.names import LAYOUT, describe, place
from tiny_networks import lively, official_tree, pyramid, stand_ins

pytest.importorskip("onnxruntime")

COCO = next(card.classes for card in read_catalog("lensmount_yolo") if card.id == "yolov8n-640")
PICTURE = np.zeros((64, 64, 3), np.uint8)
#: (what a file says, columns, the names of the columns, how the layout is told)
READ = [
    ("['a', 'b', 'c']", 3, ("a", "b", "c"), "a name for each of 3 columns"),
    ('["a", "b", "c"]', 3, ("a", "b", "c"), "a name for each of 3 columns"),
    ("{0: 'a', 1: 'b', 2: 'c'}", 3, ("a", "b", "c"), "a name for each of 3 columns"),
    ("{2: 'c', 0: 'a', 1: 'b'}", 3, ("a", "b", "c"), "a name for each of 3 columns"),
    ('{"0": "a", "1": "b", "2": "c"}', 3, ("a", "b", "c"), "a name for each of 3 columns"),
    ("['a', 'a', 'b']", 3, ("a", "a", "b"), "a name for each of 3 columns"),
    ("{1: 'a', 2: 'b', 3: 'c'}", 3, ("a", "b", "c"), "ids 1 to 3 in their order"),
    ("{0: 'a', 7: 'b', 12: 'c'}", 3, ("a", "b", "c"), "ids 0 to 12 in their order"),
    ("{0: 'a', 2: 'c'}", 3, ("a", "class_1", "c"), "names by id, 0 to 2; 1 of 3 columns have no name"),
    ("{1: 'b', 2: 'c'}", 3, ("class_0", "b", "c"), "names by id, 1 to 2; 1 of 3 columns have no name"),
    ("{1: 'b'}", 3, ("class_0", "b", "class_2"), "2 of 3 columns have no name"),
]
REFUSED = [
    ("['a', 'b']", 3, r"class_offset=0: column 0 is 'a'; or class_offset=1: column 1 is 'a'"),
    ("['a', 'b', 'c', 'd']", 3, "3 classes, 4 names"),
    ("{0: 'a', 5: 'b'}", 3, "3 classes, 2 names with ids 0 to 5"),
]


def raw(columns, hot, extra=0):
    out = np.zeros((4 + columns + extra, 84), np.float32)
    out[:4, 0] = 32, 32, 8, 16
    out[4 + hot, 0] = 0.9
    return out


def load_graph(graph, names, columns, hot=0, **options):
    metadata = {"names": names, "task": "detect"}
    return registry.load(graph({"output0": raw(columns, hot)}, metadata=metadata), **options)


def load_pt(tmp_path, names, **options):
    """A network of three columns, saved as ultralytics saves one; the names as its pickle would hold them."""
    node, network = lively(pyramid(classes=3))
    value = names if not isinstance(names, str) else parse_literal(names)
    with stand_ins() as make:
        torch.save({"model": official_tree(make, node, network, names=value)}, tmp_path / "m.pt")
    return registry.load(tmp_path / "m.pt", backend="torch", **options)


def parse_literal(text):
    import ast

    return ast.literal_eval(text)


@pytest.mark.parametrize(("names", "columns", "expected", "layout"), READ)
def test_one_reading_is_taken_and_told(graph, tmp_path, names, columns, expected, layout):
    with load_graph(graph, names, columns, hot=1) as model, load_pt(tmp_path, names) as same:
        assert model.card.classes == same.card.classes == expected
        assert [layout in " ".join(m.card.notes) for m in (model, same)] == [True, True]
        assert model(PICTURE)[0].class_name.tolist() == [expected[1]]
        repeated = model(PICTURE, classes=expected[1])[0]
        assert repeated.class_id.tolist() == [1]  # of classes of one name, each


@pytest.mark.parametrize(("names", "columns", "why"), REFUSED)
def test_what_has_no_one_reading_is_refused_and_told(graph, tmp_path, names, columns, why):
    for load in (partial(load_graph, graph, names, columns), partial(load_pt, tmp_path, names)):
        with pytest.raises(ModelFileError, match=why) as caught:
            load()
        assert "classes=[...]" in caught.value.fix
        with load(classes=["x", "y", "z"]) as model:
            assert model.card.classes == ("x", "y", "z")
            assert f"{LAYOUT}the load's classes, from column 0" in model.card.notes
    shown, notes = describe(parse({"names": names}).names, parse({"names": names}).ids, columns, "m.onnx")
    assert shown == () and "undecided" in notes[0]


@pytest.mark.parametrize("count", [80, 90, 91])
@pytest.mark.parametrize("columns", [80, 90, 91])
def test_coco_is_numbered_by_its_columns(count, columns):
    flat = place(COCO, (), 80, "m").names
    by_id = place(COCO, (), 91, "m").names
    assert flat == COCO and len(by_id) == 91
    assert (by_id[0], by_id[1], by_id[12], by_id[13], by_id[90]) == (
        "__background__", "person", "N/A", "stop sign", "toothbrush",
    )  # fmt: skip
    given = {80: flat, 90: by_id[1:], 91: by_id}[count]
    placed = place(given, (), columns, "m")
    assert placed.names == {80: flat, 90: by_id[1:], 91: by_id}[columns]
    assert f"{columns} columns" in placed.layout


def test_coco_by_category_id_as_a_table():
    by_id = place(COCO, (), 91, "m").names
    table = {i: name for i, name in enumerate(by_id) if name in COCO}
    assert place(tuple(table.values()), tuple(table), 80, "m").names == COCO
    placed = place(tuple(table.values()), tuple(table), 91, "m")
    assert placed.names[13] == "stop sign" and placed.names[12] == "class_12"


def test_the_load_says_where_names_begin(graph):
    with load_graph(graph, "['a', 'b']", 3, hot=1, class_offset=1) as model:
        assert model.card.classes == ("class_0", "a", "b")
        assert model(PICTURE)[0].class_name.tolist() == ["a"]
    with load_graph(graph, "['a', 'b']", 3, classes="x, y", class_offset=np.int64(1)) as model:
        assert model.card.classes == ("class_0", "x", "y")
    for wrong, error in (
        ({"class_offset": 2}, "at most 1"),
        ({"classes": ["a", "b", "c", "d"]}, "at most 3"),
        ({"classes": []}, "list of names"),
        ({"classes": [1]}, "list of names"),
        ({"class_offset": -1}, "0, 1"),
        ({"class_offset": True}, "0, 1"),
    ):
        with pytest.raises(OptionError, match=error):
            load_graph(graph, "['a', 'b']", 3, **wrong)
    with pytest.raises(OptionError, match="has none"):
        registry.load(graph({"output0": raw(3, 0)}, metadata={}), architecture="yolo", class_offset=1)


def test_rows_name_their_classes_by_number(graph):
    rows = np.zeros((9, 6), np.float32)
    rows[0] = 8, 8, 40, 40, 0.9, 2
    say = lambda names: {"names": names, "task": "detect", "end2end": "True"}  # noqa: E731 - said three times
    with registry.load(graph({"output0": rows}, metadata=say("{0: 'a', 2: 'c'}"))) as model:
        assert model.card.classes == ("a", "class_1", "c") and model(PICTURE)[0].class_name.tolist() == ["c"]
    with registry.load(graph({"output0": rows}, metadata=say("['a']"))) as model:
        assert model(PICTURE)[0].class_name.tolist() == ["class_2"]  # beyond the names: reported
    with pytest.raises(ModelFileError, match=r"class_offset=0\), or class 1 \(class_offset=1"):
        registry.load(graph({"output0": rows}, metadata=say("{1: 'a', 2: 'b'}")))
    with registry.load(graph({"output0": rows}, metadata=say("{1: 'a', 2: 'b'}")), class_offset=1) as model:
        assert model(PICTURE)[0].class_name.tolist() == ["b"]


def test_classifiers_place_their_names_alike(graph):
    table = np.array([0.1, 0.2, 0.7], np.float32)
    say = lambda names: {"names": names, "task": "classify"}  # noqa: E731
    with registry.load(graph({"output0": table}, metadata=say("{1: 'a', 2: 'b', 3: 'c'}"))) as model:
        assert model.card.classes == ("a", "b", "c") and model(PICTURE)[0].class_name[0] == "c"
    with pytest.raises(ModelFileError, match="3 classes, 2 names"):
        registry.load(graph({"output0": table}, metadata=say("['a', 'b']")))
    with registry.load(graph({"output0": table}, metadata=say("['a', 'b']")), class_offset=1) as model:
        assert model.card.classes == ("class_0", "a", "b")
