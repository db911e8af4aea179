"""Keys: whatever differs in type, shape, dtype or content has another key."""

from __future__ import annotations

import enum
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensmount.caches.keys import make_key
from lensmount.errors import InputError
from lensmount.specs import BatchPolicy, Preprocess
from lensmount_vision.images.image import Image
from lensmount_vision.images.source_keys import image_key

BOX = np.array([[10.0, 20.0, 30.0, 40.0]], np.float32)

DISTINCT = [
    None, True, False, 1, 1.0, 0, 0.0, -0.0, "1", b"1", "", b"", (), [], {}, set(), "None", "ab", ("ab",), ["ab"],
    ("ab", "c"), ("a", "bc"), ("abc",), (("a",), "bc"), {"a": 1}, {"a": 1.0}, {"b": 1}, {1: "a"}, frozenset({1}),
    10**30, float("nan"), float("inf"), Path("a"), "a", np.float32(1), np.float64(1), np.int64(1), np.bool_(True),
    BOX, BOX.astype(np.float64), BOX[0], BOX.T, BOX + 1, BOX * [1, 1, 1, 2], np.zeros((100, 200, 3), np.uint8),
    np.zeros((200, 100, 3), np.uint8), np.zeros(0, np.uint8), np.zeros((0, 4), np.uint8), np.zeros(0, np.float32),
    np.array(1.0), BatchPolicy(static=1), BatchPolicy(static=2), Preprocess(), Preprocess(padding_value=0),
    Image(np.zeros((2, 2, 3), np.uint8)), Image(np.zeros((2, 2, 3), np.uint8), "rgb"),
    Image(np.ones((2, 2, 3), np.uint8)),
]  # fmt: skip


def test_distinct_values_have_distinct_keys():
    keys = [make_key(value) for value in DISTINCT]
    assert len(set(keys)) == len(DISTINCT)
    assert all(len(key) == 40 for key in keys)
    assert len({make_key(), make_key(()), make_key(None), make_key(None, None), make_key((None, None))}) == 5


def test_same_content_same_key():
    assert make_key({"a": 1, "b": 2}) == make_key({"b": 2, "a": 1})
    assert make_key({3, 1, 2}) == make_key({2, 3, 1})
    assert make_key(BOX) == make_key(np.repeat(BOX, 2, 0)[::2]) == make_key(np.asfortranarray(BOX))
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 3), np.uint8)
    assert image_key(Image(pixels, "bgr", "a.png")) == image_key(Image(pixels.copy(), "bgr", None))
    assert image_key(Image(pixels)) != image_key(Image(pixels, "rgb"))


def test_every_coordinate_of_a_box_counts():
    keys = {make_key(BOX)}
    for index in range(4):
        changed = BOX.copy()
        changed[0, index] += 1
        keys.add(make_key(changed))
    assert len(keys) == 5


def test_keys_do_not_depend_on_the_process():
    code = (
        "from lensmount.caches.keys import make_key; print(make_key({'x', 'y'}, {'a': 1, 'b': (2.5, None)}, 'naïve'))"
    )
    answers = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONIOENCODING": "utf-8"}
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
        answers.add(run.stdout.strip())
    assert answers == {make_key({"x", "y"}, {"a": 1, "b": (2.5, None)}, "naïve")}


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(plain, plain)
def test_keys_are_equal_only_for_equal_values(first, second):
    same = make_key(first) == make_key(second)
    # repr tells 1 from 1.0 and True, as == does not; dicts print in insertion order, hence the second clause.
    assert same == (repr(first) == repr(second)) or (same and first == second)


def test_tensors():
    torch = pytest.importorskip("torch")
    tensor = torch.arange(6.0).reshape(2, 3)
    different = [tensor, tensor.T, tensor.reshape(3, 2), tensor.double(), tensor.bfloat16(), tensor + 1, tensor.numpy()]
    assert len({make_key(value) for value in different}) == len(different)
    assert make_key(tensor) == make_key(tensor.clone().requires_grad_()) == make_key(tensor.T.contiguous().T)


class Colour(enum.Enum):
    RED = 1


@pytest.mark.parametrize("value", [object(), np.array([object()]), Colour.RED, lambda: 0, int])
def test_values_without_a_canonical_form_are_refused(value):
    with pytest.raises(InputError):
        make_key(value)
