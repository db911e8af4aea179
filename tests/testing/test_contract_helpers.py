"""What the contracts stand on: comparing results, guards, and the process that discovers."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from lensmount_testing import probing
from lensmount_testing.comparing import Tolerance, difference, require_same
from lensmount_testing.guards import RefusedError, forbidden, kind_of, refused
from lensmount_vision.results.kinds import (
    Classification,
    Detections,
    Embeddings,
    InstanceSegmentation,
    Keypoints,
    Masks,
    OrientedDetections,
    PromptedMasks,
)

SIZE = (40, 60)
BOXES = np.array([[1, 2, 11, 12], [20, 5, 40, 35]], np.float32)
ROWS = {"confidence": [0.9, 0.6], "class_id": [0, 1], "class_names": ("a", "b"), "image_size": SIZE}
DENSE = np.zeros((2, *SIZE), bool)
DENSE[0, 2:12, 1:11] = DENSE[1, 5:35, 20:40] = True
POINTS = np.dstack([BOXES.reshape(2, 2, 2), np.full((2, 2, 1), 0.5)])
TURNED = np.array([[6, 7, 10, 6, 0.2], [30, 20, 20, 12, -0.4]], np.float32)


def fewer_pixels(count):
    dense = DENSE.copy()
    dense[0, 2, 1 : 1 + count] = False
    return Masks.from_dense(dense)


RESULTS = {
    "boxes": Detections(xyxy=BOXES, **ROWS),
    "masks": InstanceSegmentation(xyxy=BOXES, masks=Masks.from_dense(DENSE), **ROWS),
    "keypoints": Keypoints(xyxy=BOXES, keypoints=POINTS, **ROWS),
    "oriented": OrientedDetections.from_xywhr(
        TURNED, ROWS["confidence"], ROWS["class_id"], class_names=("a", "b"), image_size=SIZE
    ),
    "classes": Classification(probabilities=[0.7, 0.3], class_names=("a", "b"), image_size=SIZE),
    "vectors": Embeddings(vectors=[[0.6, 0.8]], normalized=True),
    "prompted": PromptedMasks(masks=Masks.from_dense(DENSE), scores=[0.8, 0.7], image_size=SIZE),
}
APART = {
    "another box": ("boxes", {"xyxy": BOXES + np.float32(0.2)}, "pixels off"),
    "another score": ("boxes", {"confidence": [0.9, 0.5]}, "confidences are 0.1 apart"),
    "another class": ("boxes", {"class_id": [0, 0]}, "no counterpart"),
    "another picture": ("boxes", {"image_size": (40, 61)}, "pictures of"),
    "another mask": ("masks", {"masks": fewer_pixels(6)}, "differs in 6 of 100 pixels"),
    "another point": ("keypoints", {"keypoints": POINTS + np.array([0.2, 0, 0])}, "keypoints are 0.2 apart"),
    "another visibility": ("keypoints", {"keypoints": POINTS + np.array([0, 0, 0.2])}, "visibilities are 0.2 apart"),
    "another angle": ("oriented", {"xywhr": TURNED + np.array([0, 0, 0, 0, 0.1])}, "corners are"),
    "another probability": ("classes", {"probabilities": [0.6, 0.4]}, "probabilities are 0.1 apart"),
    "another vector": ("vectors", {"vectors": [[0.8, 0.6]]}, "vectors are 0.2 apart"),
    "another prompted mask": ("prompted", {"masks": fewer_pixels(6)}, "differs in 6"),
    "another prompted score": ("prompted", {"scores": [0.8, 0.6]}, "scores are 0.1 apart"),
}


@pytest.mark.parametrize("kind", RESULTS)
def test_a_result_is_the_same_as_itself(kind):
    assert difference(RESULTS[kind], RESULTS[kind], Tolerance(pixels=0, score=0, mask=0, vector=0)) is None


@pytest.mark.parametrize("what", APART)
def test_results_that_are_apart(what):
    kind, change, said = APART[what]
    other = replace(RESULTS[kind], **change)
    assert said in (difference(RESULTS[kind], other, Tolerance()) or "the same")
    assert said in (difference(other, RESULTS[kind], Tolerance()) or "the same")
    if what not in ("another class", "another picture"):
        assert difference(RESULTS[kind], other, Tolerance(pixels=9, score=1, mask=1, vector=1)) is None


def test_the_order_of_objects_does_not_matter_and_their_number_does():
    boxes = RESULTS["boxes"]
    assert difference(boxes[[1, 0]], boxes, Tolerance()) is None
    assert difference(boxes[[0]], boxes, Tolerance()) == "1 and 2 objects"
    assert difference(boxes, RESULTS["masks"], Tolerance()) == "Detections and InstanceSegmentation"


def test_one_object_stands_for_one():
    """Two boxes in one place are not both matched by the same one."""
    twice, once = RESULTS["boxes"][[0, 0]], replace(RESULTS["boxes"], class_id=[0, 0])
    assert "pixels off" in difference(twice, once, Tolerance())


def test_small_masks_may_differ_in_a_few_pixels():
    other = replace(RESULTS["masks"], masks=fewer_pixels(4))
    assert difference(RESULTS["masks"], other, Tolerance(mask=0)) is None


def test_messages_name_the_runs():
    with pytest.raises(AssertionError, match=r"a and b differ \(picture 1\): 1 and 2 objects"):
        boxes = RESULTS["boxes"]
        require_same([boxes, boxes[[0]]], [boxes, boxes], Tolerance(), "a and b")
    with pytest.raises(AssertionError, match="a and b: 1 and 2 results"):
        require_same([boxes], [boxes, boxes], Tolerance(), "a and b")


# --- guards -----------------------------------------------------------------------------------------------------------

DEEDS = {
    "socket": lambda path: socket.socket().close(),
    "write": lambda path: path.write_text("x"),
    "process": lambda path: subprocess.run([sys.executable, "-c", ""], check=False),
    "pickle": lambda path: pickle.loads(pickle.dumps(np.ones(2))),
}


@pytest.mark.parametrize("kind", DEEDS)
def test_what_is_refused(kind, tmp_path):
    with refused(kind) as tried, pytest.raises(RefusedError):
        DEEDS[kind](tmp_path / "file")
    assert tried
    DEEDS[kind](tmp_path / "file")  # and no longer afterwards
    with refused(*(set(DEEDS) - {kind, "write"})):  # starting a process opens what it reads from
        DEEDS[kind](tmp_path / "file")


def test_reading_is_not_writing(tmp_path):
    path = tmp_path / "file"
    path.write_text("x")
    with forbidden("write", saying="writes"):
        assert path.read_text() == "x"
        with open(os.devnull, "w") as file:
            file.write("x")
        os.close(os.open(path, os.O_RDONLY))
    for mode in ("w", "a", "r+"):
        with pytest.raises(AssertionError, match="writes"), forbidden("write", saying="writes"), open(path, mode):
            pass
    with pytest.raises(AssertionError, match="writes"), forbidden("write", saying="writes"):
        os.open(path, os.O_WRONLY)


def test_what_is_hidden_is_told_all_the_same():
    with pytest.raises(AssertionError, match=r"opens: socket\.__new__"), forbidden("socket", saying="opens"):
        try:
            socket.socket()
        except Exception:
            print("nobody need know")


def test_other_errors_pass():
    with pytest.raises(KeyError), forbidden("socket", saying="opens"):
        raise KeyError("x")


def test_sockets_of_one_machine_are_none(tmp_path):
    assert kind_of("socket.__new__", (None, socket.AF_INET, 1, 0)) == "socket"
    assert kind_of("socket.__new__", (None, getattr(socket, "AF_UNIX", -1), 1, 0)) is None
    assert kind_of("import", ("x",)) is None


# --- the process that discovers ---------------------------------------------------------------------------------------


def test_what_discovery_itself_needs_is_not_held_against_a_plugin():
    seen = probing.see(modules=["lensmount.host.builtin"])
    assert seen.error is None
    assert seen.modules == ("lensmount.host.builtin",)
    assert seen.sockets == seen.writes == seen.processes == ()
    assert seen.foreign(()) == []


def test_errors_are_told():
    assert "no_such_module" in probing.see(modules=["no_such_module"]).error
    assert "SystemExit" in probing.see(probe="sys:exit").error


def test_foreign_modules_are_told_by_their_top():
    seen = probing.Seen(("numpy.linalg", "json", "lensmount_x.plugin", "pluggy"), (), (), (), None)
    assert seen.foreign({"lensmount_x"}) == ["numpy"]
    assert seen.foreign({"lensmount_x", "numpy"}) == []
    assert probing.Seen(("lensmount.registry",), (), (), (), None).of_the_core() == ["lensmount.registry"]
