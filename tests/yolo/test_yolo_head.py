"""What the outputs of a graph mean, and what its metadata says."""

from __future__ import annotations

import pytest

from lensmount.errors import ModelFileError
from lensmount_yolo.head import read_head
from lensmount_yolo.metadata import parse


@pytest.mark.parametrize(
    ("outputs", "options", "expected"),
    [
        ([("output0", (1, 84, 8400))], {"names": 80}, ("raw", 80, 0)),
        ([("output0", (1, 84, 8400))], {}, ("raw", 80, 0)),
        ([("output0", (1, 5, 8400))], {"names": 1}, ("raw", 1, 0)),
        ([("output0", ("b", 84, "n"))], {"names": 80}, ("raw", 80, 0)),
        ([("output0", ("b", None, None))], {"names": 80}, ("raw", 80, 0)),
        ([("output0", (1, 300, 6))], {"names": 80}, ("rows", 80, 0)),
        ([("output0", (1, 300, 6))], {"names": 80, "end2end": True}, ("rows", 80, 0)),
        ([("output0", ("b", "n", 6))], {}, ("rows", None, 0)),
        ([("output0", (1, 116, 8400)), ("output1", (1, 32, 160, 160))], {"names": 80}, ("raw", 80, 32)),
        ([("output0", (1, 300, 38)), ("output1", (1, 32, 160, 160))], {"names": 80}, ("rows", 80, 32)),
        ([("output1", (1, 32, 160, 160)), ("output0", (1, 116, 8400))], {"names": 80}, ("raw", 80, 32)),
        ([("output0", (1, 6, 84))], {"names": 2, "end2end": False}, ("raw", 2, 0)),
        ([("output0", (1, 6, 6))], {"names": 2, "end2end": False}, ("raw", 2, 0)),
        ([("output0", (1, 300, 6))], {"names": 2, "end2end": False}, ("rows", 2, 0)),  # suppression was added later
        ([("output0", (1, 300, 7))], {"names": 2, "extra": 1, "end2end": True}, ("rows", 2, 1)),
        ([("output0", (1, 300, 7))], {"names": 2, "extra": 1}, ("rows", 2, 1)),
        ([("output0", (1, 7, 8400))], {"names": 2, "extra": 1}, ("raw", 2, 1)),
        ([("output0", (1, 84, 8400))], {"names": 91}, ("raw", 80, 0)),  # which name is whose is another question
    ],
)
def test_known_forms(outputs, options, expected):
    head = read_head(outputs, **options)
    assert (head.kind, head.classes, head.extra) == expected
    assert head.output == "output0"


@pytest.mark.parametrize(
    ("outputs", "options", "match"),
    [
        ([("a", (1, 1000))], {}, "not those of a YOLO"),
        ([("dets", (1, 300, 4)), ("labels", (1, 300, 91))], {}, "not those of a YOLO"),
        ([("o", (1, 300, 7))], {"end2end": True}, "not that of a box"),
        ([("o", (1, None, None))], {}, "neither fixes"),
        ([("o", (1, 4, 8400))], {}, "not that of a YOLO"),
        ([], {}, "not those of a YOLO"),
    ],
)
def test_other_outputs_are_refused(outputs, options, match):
    with pytest.raises(ModelFileError, match=match):
        read_head(outputs, **options)


def test_metadata_of_an_export():
    found = parse(
        {"names": "{0: 'a', 1: \"b's\"}", "task": "segment", "stride": "32", "imgsz": "[480, 640]", "end2end": "True"}
    )
    assert found.names == ("a", "b's")
    assert found.task == "instance-segmentation"
    assert (found.stride, found.size, found.end2end) == (32, (480, 640), True)
    assert parse({"names": '["a", "b"]'}).names == ("a", "b")
    assert parse({"names": '{"0": "a"}'}).names == ("a",)
    assert parse({}).names == ()


@pytest.mark.parametrize(
    "metadata",
    [
        {"names": "__import__('os').system('true')"},
        {"names": "{0: 'a', '0': 'c'}"},
        {"names": "{-1: 'a', 0: 'c'}"},
        {"names": "{0: 'a', 99999999999: 'c'}"},
        {"channels": "'RGB'"},
        {"channels": "0"},
        {"names": "{'x': 'a'}"},
        {"names": "3"},
        {"names": "[" * 5000},
        {"imgsz": "[1, 2, 3]"},
        {"imgsz": "'640'"},
        {"stride": "'x'"},
        {"names": "x" * 2_000_000},
    ],
)
def test_senseless_metadata_is_refused_and_never_run(metadata):
    with pytest.raises(ModelFileError):
        parse(metadata)
