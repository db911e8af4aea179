"""COCO run lengths against the COCO API's own C code, as compiled in faster-coco-eval."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lensmount.errors import InputError
from lensmount_vision.results import rle
from lensmount_vision.results.masks import Masks


def reference():
    return pytest.importorskip("faster_coco_eval.core.mask")


def scenes():
    rng = np.random.default_rng(0)
    yield np.zeros((7, 5), bool)
    yield np.ones((7, 5), bool)
    yield np.ones((1, 1), bool)
    yield np.eye(9, dtype=bool)
    columns = np.zeros((6, 8), bool)
    columns[:, 2:5] = True
    yield columns
    for height, width, share in ((40, 30, 0.5), (3, 200, 0.1), (200, 3, 0.9), (333, 777, 0.02), (1080, 1920, 0.0001)):
        yield rng.random((height, width)) < share
    yy, xx = np.mgrid[:900, :1300]
    yield (yy - 450) ** 2 + (xx - 700) ** 2 < 300**2


@pytest.mark.parametrize("mask", list(scenes()), ids=lambda m: f"{m.shape}-{int(m.sum())}")
def test_equal_to_the_coco_api_both_ways(mask):
    api = reference()
    theirs = api.encode(np.asfortranarray(mask.astype(np.uint8)))
    ours = Masks.from_dense(mask[None])
    text = ours.to_rle()[0]
    assert text == {"size": list(mask.shape), "counts": theirs["counts"].decode()}
    json.dumps(text)
    assert np.array_equal(api.decode({"size": text["size"], "counts": text["counts"].encode()}).astype(bool), mask)
    for segmentation in (theirs, text, *ours.to_rle(compressed=False)):
        back = Masks.from_rle([segmentation])
        assert back == ours and np.array_equal(back.dense()[0], mask)


def test_uncompressed_counts_are_plain_and_add_up():
    mask = np.zeros((4, 3), bool)
    mask[0, 0] = mask[3, 0] = mask[0, 1] = True
    assert Masks.from_dense(mask[None]).to_rle(compressed=False) == [{"size": [4, 3], "counts": [0, 1, 2, 2, 7]}]


def test_a_loose_crop_encodes_as_the_tight_one():
    crop = np.zeros((20, 30), bool)
    crop[5:9, 7:20] = True
    loose = Masks([crop], [(10, 12)], (50, 60))
    assert loose.to_rle() == Masks.from_dense(loose.dense()).to_rle()


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 2**33), min_size=1, max_size=12), st.lists(st.integers(0, 80), min_size=1, max_size=12))
def test_text_round_trips_for_any_counts(first, second):
    runs = [np.array(first), np.array(second)]
    packed = rle.compress(runs)
    assert [rle.decompress(text).tolist() for text in packed] == [first, second]


@settings(max_examples=150, deadline=None)
@given(arrays.arrays(bool, arrays.array_shapes(min_dims=2, max_dims=2, max_side=12)))
def test_masks_round_trip(mask):
    api = reference()
    masks = Masks.from_dense(mask[None])
    text = masks.to_rle()
    assert text[0]["counts"] == api.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    assert np.array_equal(Masks.from_rle(text).dense()[0], mask)


def test_counts_with_empty_runs_inside():
    masks = Masks.from_rle([{"size": [2, 3], "counts": [1, 2, 0, 1, 2]}])
    assert masks.dense()[0].tolist() == [[False, True, False], [True, True, False]]


@pytest.mark.parametrize(
    ("segmentation", "word"),
    [
        ({"size": [4, 3], "counts": [5, 5]}, "10 pixels"),
        ({"size": [4, 3], "counts": [-1, 13]}, "run lengths"),
        ({"size": [4, 3], "counts": "\x01"}, "COCO"),
        ({"size": [4, 3], "counts": "P"}, "COCO"),
        ({"size": [4, 3], "counts": "é"}, "COCO"),
        ({"size": [4, 3], "counts": "o" * 30 + "0"}, "60 bits"),
        ({"size": [4], "counts": [12]}, "COCO"),
        ({"counts": [12]}, "COCO"),
        ([[1, 2, 3]], "COCO"),
        ({"size": [4, 3], "counts": ""}, "0 pixels"),
    ],
)
def test_refuses(segmentation, word):
    with pytest.raises(InputError) as caught:
        Masks.from_rle([segmentation])
    assert word in str(caught.value)


def test_refuses_another_image_and_no_image():
    one = {"size": [4, 3], "counts": [12]}
    with pytest.raises(InputError, match="differ in image size"):
        Masks.from_rle([one], (3, 4))
    with pytest.raises(InputError, match="no image size"):
        Masks.from_rle([])
    assert len(Masks.from_rle([], (3, 4))) == 0
