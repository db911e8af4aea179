"""Which column is which class."""

from __future__ import annotations

import pytest

from lensmount.errors import ModelFileError
from lensmount_rfdetr.names import NAMES, coco_by_id, column_names, from_metadata, names_of, to_metadata


def test_coco_by_category_id():
    names = column_names((), 91, "x")
    # Facts of COCO's own category list, not of our table.
    known = {
        1: "person",
        3: "car",
        17: "cat",
        18: "dog",
        44: "bottle",
        62: "chair",
        67: "dining table",
        90: "toothbrush",
    }
    assert {i: names[i] for i in known} == known
    holes = [i for i, name in enumerate(names) if name == "N/A"]
    assert holes == [12, 26, 29, 30, 45, 66, 68, 69, 71, 83]
    assert names[0] == "__background__" and len(names) == 91


def test_flat_lists_of_coco_are_put_on_their_ids():
    flat = [name for name in coco_by_id() if name not in ("__background__", "N/A")]
    assert len(flat) == 80
    assert column_names(flat, 91, "x")[18] == "dog"
    assert column_names(coco_by_id()[1:], 91, "x")[18] == "dog"
    assert column_names(coco_by_id(), 91, "x")[18] == "dog"


def test_fine_tuned():
    assert column_names(("a", "b", "c"), 4, "x") == ("a", "b", "c")
    assert column_names(("a", "b", "c", "bg"), 4, "x") == ("a", "b", "c", "bg")
    assert column_names(("a",), 91, "x") == ("a",)
    assert column_names((), 4, "x") == ("class_0", "class_1", "class_2")
    assert len(column_names((), 366, "x")) == 366
    with pytest.raises(ModelFileError):
        column_names(("a", "b"), 1, "x")


def test_how_files_keep_names():
    assert names_of(["a", "b"]) == ("a", "b")
    assert names_of({1: "a", 2: "b"}) == ("a", "b")
    assert names_of({"0": "a", "1": "b"}) == ("a", "b")
    assert names_of({0: "LABEL_0", 1: "LABEL_1"}) == ()
    for nonsense in (None, 3, "ab", {5: "a"}, {"x": "a"}, [1, 2]):
        assert names_of(nonsense) == ()


def test_metadata():
    names = ("naïve", 'quo"te', "犬")
    assert from_metadata({NAMES: to_metadata(names)}) == names
    assert from_metadata({}) == ()
    for text in ("{", "3", "[1]"):
        with pytest.raises(ModelFileError):
            from_metadata({NAMES: text})
