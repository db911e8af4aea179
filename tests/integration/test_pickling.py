"""Loaded models do not go to another process; the error says what does."""

from __future__ import annotations

import ast
import copy
import pickle

import numpy as np
import pytest

pytest.importorskip("torch")


import device_models
import sam2_tiny
from lensmount import registry
from lensmount.errors import LensmountError


def again(error):
    """What the error says to pickle, made from its text, pickled and called as a worker would."""
    assert error.fix.endswith("registry.load(**specification)")
    specification = ast.literal_eval(error.expected.removeprefix("its specification: "))
    return registry.load(**pickle.loads(pickle.dumps(specification)))


def refused(thing):
    for way in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled") as caught:
            way(thing)
        assert isinstance(caught.value, LensmountError)
    return pickle.loads(pickle.dumps(caught.value))


@pytest.mark.parametrize("name", device_models.NAMES)
def test_models_say_what_to_pickle_instead(name, tmp_path, embedding_goldens):
    path, options = device_models.write(name, tmp_path, embedding_goldens)
    with registry.load(path, backend="torch", device="cpu", **options) as model:
        error = refused(model)
        with again(error) as other:
            assert (other.backend, other.card.architecture) == ("torch", model.card.architecture)


def test_the_specification_loads_the_same(tmp_path):
    picture = np.zeros((40, 60, 3), np.uint8)
    with registry.load("shapes-nano", backend="onnx", device="cpu") as model:
        expected = model(picture)[0].to_dict()
        with again(refused(model)) as other:
            assert other.card.id == "shapes-nano"
            assert other(picture)[0].to_dict() == expected


def test_a_file_is_loaded_by_its_path(tmp_path, embedding_goldens):
    path, _ = device_models.write("yolo", tmp_path, embedding_goldens)
    with registry.load(path, backend="torch", device="cpu") as model, again(refused(model)) as other:
        assert other.card.id == model.card.id
        assert other.backend == "torch"


def test_streams_and_trackers_too(tmp_path):
    with registry.load("shapes-nano", backend="onnx", device="cpu") as model, model.stream([]) as results:
        assert "in the worker" in refused(results).fix
    folder = sam2_tiny.write_folder(tmp_path / "model")
    with registry.load(folder, backend="torch", device="cpu") as model:
        assert "model.track()" in refused(model.track()).fix
