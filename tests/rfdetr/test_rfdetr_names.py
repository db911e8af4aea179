"""Which column is which class: every layout of rfdetr's files, from one class to 91, and files that fit several."""

from __future__ import annotations

import itertools

import pytest

from lensmount.errors import ModelFileError, OptionError
from lensmount_rfdetr.names import (
    BACKGROUND,
    NAMES,
    Said,
    by_column,
    coco_by_id,
    describe,
    from_metadata,
    names_of,
    place,
    read_said,
    said_from_metadata,
    said_to_metadata,
    to_metadata,
)

FLAT = tuple(name for name in coco_by_id() if name not in (BACKGROUND, "N/A"))
SIZES = (1, 2, 3, 4, 20, 79, 80, 81, 89, 90, 91)


def some(count):
    return tuple(f"name {i}" for i in range(count))


def placed(value, columns, *counts, **options):
    return place(read_said(value, counts), columns, "x.pth", **options)


def test_coco_by_category_id():
    names = placed((), 91).names
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


@pytest.mark.parametrize("counts", [(), (90,), (91,), (90, 91)])
def test_lists_of_coco_are_put_on_their_ids(counts):
    assert len(FLAT) == 80
    for names in (FLAT, coco_by_id(), coco_by_id()[1:]):
        for value in (names, list(names), dict(enumerate(names))):
            assert placed(value, 91, *counts).names == coco_by_id()
    assert placed({i: name for i, name in enumerate(coco_by_id()) if name in FLAT}, 91, *counts).names[18] == "dog"


def test_eighty_classes_of_coco_are_a_fine_tune_like_any_other():
    assert placed(FLAT, 80, 80).names == FLAT
    assert placed(FLAT, 81, 80).names == (*FLAT, BACKGROUND)
    assert placed(FLAT, 81, 81).names == (BACKGROUND, *FLAT)
    with pytest.raises(ModelFileError, match="which column"):
        placed(FLAT, 91, 80)


@pytest.mark.parametrize("count", SIZES)
def test_each_layout(count):
    names = some(count)
    old = placed(names, count + 1, count + 1)
    assert old.names == (BACKGROUND, *names) and "1.4.1" in old.layout and f"num_classes {count + 1}" in old.layout
    new = placed(names, count + 1, count)
    assert new.names == (*names, BACKGROUND) and f"num_classes {count}" in new.layout
    yolo = placed(names, count, count)
    assert yolo.names == names and f"each of {count} columns" in yolo.layout


def test_every_combination_is_read_by_the_rule_or_refused_with_both_readings():
    """Names, columns and num_classes from 1 to 7, and none."""
    for count, columns, number in itertools.product(range(1, 8), range(1, 8), (None, *range(1, 10))):
        said, names = read_said(list(some(count)), (number,)), some(count)
        if count > columns:
            expected = "more class names"
        elif count == columns:
            expected = names
        elif count + 1 == columns and number == columns:
            expected = (BACKGROUND, *names)
        elif count + 1 == columns and number == count:
            expected = (*names, BACKGROUND)
        else:
            expected = "which column"
        case = f"{count} names, {columns} columns, num_classes {number}"
        if isinstance(expected, tuple):
            assert place(said, columns, "x").names == expected, case
            continue
        with pytest.raises(ModelFileError, match=expected) as caught:
            place(said, columns, "x")
        classes, note = describe(said, columns, "x")
        assert classes == () and "undecided" in note, case
        if expected == "which column":
            assert "class_offset=0: column 0 is 'name 0'" in str(caught.value), case
            assert "class_offset=1: column 1 is 'name 0'" in str(caught.value), case
            for offset in (0, 1):
                given = place(said, columns, "x", offset=offset)
                assert given.names[offset : offset + count] == names and len(given.names) == columns, case
        every = some(columns)[::-1]
        assert place(said, columns, "x", classes=every).names == every, case


def test_two_counts_that_disagree_are_two_readings():
    with pytest.raises(ModelFileError, match="num_classes: 4 and 3") as caught:
        placed(some(3), 4, 4, 3)
    assert "1.4.1" in str(caught.value) and "background last" in str(caught.value)
    assert placed(some(3), 4, 4, 4, None).names[0] == BACKGROUND


@pytest.mark.parametrize("number", [True, 0, -4, 4.0, "4", [4], 10**30])
def test_counts_that_are_none(number):
    with pytest.raises(ModelFileError, match="which column"):
        placed(some(3), 4, number)


def test_the_user_overrides_what_the_file_says():
    names = some(3)
    for number in (None, 3, 4, 9):
        assert placed(names, 4, number, offset=0).names == (*names, BACKGROUND)
        assert placed(names, 4, number, offset=1).names == (BACKGROUND, *names)
        assert placed(names, 4, number, classes=list("abcd")).names == tuple("abcd")
        assert placed((), 4, number, classes=["a"], offset=2).names == ("class_0", "class_1", "a", "class_3")
    # Names in the place of the file's own keep its layout; without one they begin at column 0.
    assert placed(names, 4, 4, classes=list("abc")).names == (BACKGROUND, *"abc")
    assert placed(names, 4, 3, classes=list("abc")).names == (*"abc", BACKGROUND)
    assert placed(names, 4, classes=list("abc")).names == (*"abc", BACKGROUND)
    assert placed((), 91, classes=FLAT).names == coco_by_id()
    for wrong in ({"classes": list("abcde")}, {"offset": 2}, {"classes": ["a"], "offset": 4}):
        with pytest.raises(OptionError):
            placed(names, 4, 4, **wrong)
    with pytest.raises(OptionError, match="has none"):
        placed((), 4, offset=1)


def test_tables_say_which_id_a_name_has():
    assert placed({0: "a", 1: "b"}, 2).names == ("a", "b")
    assert placed({"1": "b", "0": "a"}, 3).names == ("a", "b", BACKGROUND)
    assert placed({1: "a", 2: "b"}, 3).names == (BACKGROUND, "a", "b")
    assert placed({1: "a", 2: "b"}, 2).names == ("a", "b")
    assert placed({0: "a", 3: "d"}, 4).names == ("a", "N/A", "N/A", "d")
    assert placed({1: "a", 3: "c"}, 4, 4).names == (BACKGROUND, "a", "N/A", "c")
    assert placed({2: "c"}, 4).names == ("N/A", "N/A", "c", BACKGROUND)
    assert placed({0: "a", 1: "a"}, 3).names == ("a", "a", BACKGROUND)  # names may repeat
    for table, count in (({0: "a", 1: "b", 2: "c"}, 4), ({1: "a", 2: "b", 3: "c"}, 3)):
        with pytest.raises(ModelFileError, match="which column"):
            placed(table, 4, count)  # the table and num_classes disagree
    for table in ({1: "a", 3: "c"}, {0: "a", 3: "c"}, {5: "a"}):
        with pytest.raises(ModelFileError, match="more class names"):
            placed(table, 3)


def test_without_names_every_column_is_numbered():
    assert placed((), 4, 3).names == ("class_0", "class_1", "class_2", "class_3")
    assert len(placed((), 366, 365).names) == 366
    assert placed((), 1).names == ("class_0",)


def test_columns_beyond_the_names_are_reported():
    wide = place(by_column(("a",), 5, "x", "the card"), 5, "x")
    assert wide.names == ("a", "class_1", "class_2", "class_3", "class_4") and "reported by number" in wide.layout
    assert place(by_column(("a", "b"), 3, "x", "the card"), 3, "x").names == ("a", "b", BACKGROUND)
    with pytest.raises(ModelFileError):
        by_column(("a", "b"), 1, "x", "the card")


def test_how_files_keep_names():
    assert names_of(["a", "b"]) == ("a", "b")
    assert read_said({1: "a", 2: "b"}) == Said(("a", "b"), (1, 2))
    assert read_said({"0": "a", "1": "b"}) == Said(("a", "b"), (0, 1))
    assert read_said({0: "LABEL_0", 1: "LABEL_1"}) == Said()
    for nonsense in (None, 3, "ab", {-1: "a"}, {10**9: "a"}, {"x": "a"}, [1, 2], {}, []):
        assert read_said(nonsense, (3,)) == Said(counts=(3,))


def test_metadata():
    names = ("naïve", 'quo"te', "犬")
    assert from_metadata({NAMES: to_metadata(names)}) == names
    assert from_metadata({}) == ()
    for text in ("{", "3", "[1]"):
        with pytest.raises(ModelFileError):
            from_metadata({NAMES: text})
    for said in (Said(), Said(names, (), (3,)), Said(names, (1, 2, 7), (8, 7))):
        assert said_from_metadata({"lensmount.classes_said": said_to_metadata(said)}) == said
    assert said_from_metadata({}) is None
