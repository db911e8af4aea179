"""Descriptors from plain data: the inverse of `to_dict`, and what it refuses."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensmount.errors import ModelFileError
from lensmount.specs import Artifact, Backend, BatchPolicy, ModelCard, ModelPackage, Preprocess, Requirements, to_dict
from lensmount.specs.parsing import freeze, from_dict

CARD = ModelCard(
    id="a/b-1",
    architecture="yolo",
    task="object-detection",
    aliases=("x",),
    classes=("cat", "dog"),
    settings=(("family", "v8"), ("nested", (("k", (1, 2)),))),
    recommended=(("confidence", 0.4),),
    published=(("coco_ap", 48.4),),
    packages=(
        ModelPackage(
            name="onnx",
            format="onnx",
            artifacts=(Artifact(name="w", uri="https://x", size=1, sha256="0" * 64, confidence="official"),),
            batch=BatchPolicy(maximum=8),
            preprocess=Preprocess(size=(1, 2), mean=(0.5, 0.25), std=(1.0, 2.0), static_crop=(0.0, 0.0, 50.0, 100.0)),
            requirements=Requirements(devices=("cuda",), compute_capability="8.6"),
        ),
    ),
)


def test_round_trip_through_json():
    assert from_dict(ModelCard, json.loads(json.dumps(to_dict(CARD))), "card") == CARD


def test_pairs_may_be_tables():
    data = {**to_dict(CARD), "settings": {"family": "v8", "nested": {"k": [1, 2]}}}
    assert from_dict(ModelCard, data, "card") == CARD


def test_backends_round_trip():
    backend = Backend(name="b", formats=("onnx",), probe="a:b", opener="a:b", preference=(("cuda", 30), ("cpu", 5)))
    assert from_dict(Backend, json.loads(json.dumps(to_dict(backend))), "backend") == backend


def test_whole_numbers_are_floats_where_floats_are_wanted():
    made = from_dict(Preprocess, {"scale": 1, "mean": [0, 1, 2], "static_crop": [0, 0, 100, 100]}, "p")
    assert made.scale == 1.0
    assert isinstance(made.scale, float)
    assert made.mean is not None
    assert all(isinstance(v, float) for v in made.mean)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "should be a table"),
        ("text", "should be a table"),
        ({"nmae": "w", "uri": "u"}, "unknown keys"),
        ({"name": "w"}, "lacks keys"),
        ({"name": 3, "uri": "u"}, "name has the wrong type"),
        ({"name": "w", "uri": None}, "uri has the wrong type"),
        ({"name": "w", "uri": "u", "size": 1.5}, "size has the wrong type"),
        ({"name": "w", "uri": "u", "size": True}, "size has the wrong type"),
        ({"name": "w", "uri": "u", "role": "grpah"}, "role is not one of its values"),
        ({"name": "w", "uri": "u", "role": ["graph"]}, "role is not one of its values"),
        ({"name": "../w", "uri": "u"}, "an artifact's name is not valid"),
    ],
)
def test_what_is_refused(data, words):
    with pytest.raises(ModelFileError, match="artifact") as caught:
        from_dict(Artifact, data, "artifact 'w' in catalog.toml")
    assert words in caught.value.problem
    assert caught.value.found
    assert caught.value.expected


@pytest.mark.parametrize(
    ("size", "words"),
    [("640", "should be a list"), ([640], "wrong length"), ([640, "640"], r"size\[1\]"), ([640, 640.5], r"size\[1\]")],
)
def test_tuples(size, words):
    with pytest.raises(ModelFileError, match=words):
        from_dict(Preprocess, {"size": size}, "p")


def test_a_name_is_not_a_list_of_letters():
    with pytest.raises(ModelFileError, match="classes should be a list"):
        from_dict(ModelCard, {**to_dict(CARD), "classes": "coco"}, "card")


def test_the_place_of_a_nested_mistake_is_named():
    data = to_dict(CARD)
    data["packages"][0]["artifacts"][0]["sha256"] = "xyz"
    with pytest.raises(ModelFileError) as caught:
        from_dict(ModelCard, data, "model 'm'")
    assert "model 'm': packages[0]: artifacts[0]" in caught.value.problem
    assert "xyz" in str(caught.value.found)


def test_missing_keys_are_told_apart_from_present_ones():
    with pytest.raises(ModelFileError) as caught:
        from_dict(Artifact, {"name": "w"}, "artifact")
    assert caught.value.expected == "uri"


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(PLAIN)
def test_frozen_values_are_hashable(value):
    hash(freeze(value))


@given(st.dictionaries(st.sampled_from(["name", "uri", "role", "size", "sha256", "confidence"]), PLAIN))
def test_nothing_but_our_error(data):
    try:
        assert isinstance(from_dict(Artifact, data, "artifact"), Artifact)
    except ModelFileError as error:
        assert error.problem.startswith("artifact")
