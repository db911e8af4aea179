"""How results are shown and chosen from: one line, rows, counts, classes by name."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from lensmount.errors import InputError, OptionError
from lensmount_vision.results import Classification, Detections, Embeddings, InstanceSegmentation, Masks

NAMES = ("person", "bus", "dog")


def found(*class_ids, path="/pictures/bus.jpg"):
    count = len(class_ids)
    return Detections(
        xyxy=np.tile(np.array([[1, 2, 30, 40]], np.float32), (count, 1)),
        confidence=np.linspace(0.9, 0.5, count).astype(np.float32),
        class_id=np.array(class_ids, np.int64),
        class_names=NAMES,
        image_size=(1080, 810),
        path=path,
    )


def test_repr_is_one_line():
    assert repr(found(0, 0, 1, 0, 0)) == "Detections(5: 4 person, 1 bus; 810x1080; bus.jpg)"
    assert repr(found(path=None)) == "Detections(none; 810x1080)"
    assert repr(found(0, path="C:\\\\pictures\\\\bus.jpg")) == "Detections(1: 1 person; 810x1080; bus.jpg)"


def test_str_has_a_row_for_each():
    lines = str(found(0, 1)).splitlines()
    assert lines[0] == repr(found(0, 1))
    assert [line.split() for line in lines[1:]] == [
        ["person", "0.900", "1.0", "2.0", "30.0", "40.0"],
        ["bus", "0.500", "1.0", "2.0", "30.0", "40.0"],
    ]


def test_counts_are_by_class_the_most_first():
    assert list(found(1, 0, 0).counts.items()) == [("person", 2), ("bus", 1)]
    assert found().counts == {}


def test_a_class_by_its_name():
    result = found(0, 1, 0)
    assert result["person"] == result[[0, 2]]
    assert len(result["dog"]) == 0
    with pytest.raises(OptionError, match="there is no class 'cat'"):
        result["cat"]


def test_rows_without_names_refuse_a_text():
    vectors = Embeddings(vectors=np.eye(2, 4, dtype=np.float32), normalized=True)
    assert repr(vectors) == "Embeddings(2 of 4 values)"
    with pytest.raises(InputError, match="no names"):
        vectors["person"]


def test_other_results_in_one_line():
    classified = Classification(probabilities=[0.1, 0.9], class_names=("cat", "dog"), image_size=(4, 6), path="x/y.png")
    assert repr(classified) == "Classification(dog 0.90; 6x4; y.png)"
    boxes = found(0, path=None)
    fields = {f.name: getattr(boxes, f.name) for f in dataclasses.fields(boxes)}
    masked = InstanceSegmentation(**fields, masks=Masks.from_dense(np.ones((1, 1080, 810), np.bool_)))
    assert repr(masked) == "InstanceSegmentation(1: 1 person; 810x1080)"
