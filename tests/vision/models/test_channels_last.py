"""Graphs whose pictures have their channels last are fed so, on the host and on the device."""

from __future__ import annotations

import numpy as np
import pytest

from lensmount.contracts import BuildContext, TensorSpec
from lensmount.errors import ModelFileError
from lensmount.specs import Artifact, ModelCard, ModelPackage, Preprocess
from lensmount_vision.models import SingleGraph

PICTURE = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)


class Planes:
    """Gives its pictures back, channels first."""

    backend, device, precision, provider, metadata = "fake", "cpu", "fp32", "none", {}
    tensor_device = None
    channels_last = False

    def __init__(self, shape, *, last, tensors=False):
        self.inputs = (TensorSpec("images", shape, "float32"),)
        self.outputs = (TensorSpec("planes", (shape[0], 3, None, None), "float32"),)
        self._last = last
        self.tensor_device = "cpu" if tensors else None

    def run(self, feeds):
        images = feeds["images"]
        assert len(images.shape) == 4 and images.shape[3 if self._last else 1] == 3
        return {"planes": images.transpose(0, 3, 1, 2) if self._last else images.copy()}

    def run_tensors(self, feeds):
        images = feeds["images"]
        assert images.is_contiguous() and images.shape[3 if self._last else 1] == 3
        return {"planes": images.permute(0, 3, 1, 2) if self._last else images}

    def close(self):
        pass


class Model(SingleGraph):
    def __call__(self, images):
        return self.infer_batches(images, None, lambda raw, geometries, paths: list(raw["planes"]))


def model(shape, *, last, size=None, tensors=False):
    package = ModelPackage(name="p", format="tflite", artifacts=(Artifact(name="m", uri="file:///m"),))
    card = ModelCard(id="planes", architecture="a", task="t", packages=(package,))
    sessions = {"m": Planes(shape, last=last, tensors=tensors)}
    context = BuildContext(card=card, package=package, sessions=sessions, files={})
    return Model(context, Preprocess(size=size))


@pytest.mark.parametrize("shape", [(1, 16, 24, 3), (None, 16, 24, 3), ("batch", "height", "width", 3)])
def test_channels_last_gives_what_channels_first_gives(shape):
    first = (shape[0], 3, *shape[1:3])
    size = None if isinstance(shape[1], int) else (16, 24)
    one, other = model(shape, last=True, size=size), model(first, last=False, size=size)
    assert one.preprocess_spec.size == (16, 24)
    batch, _ = one.preprocess(PICTURE)
    assert batch.shape == (1, 16, 24, 3)
    for _ in range(2):  # the second call takes the buffer of the first
        for found, wanted in zip(one([PICTURE, PICTURE[::-1]]), other([PICTURE, PICTURE[::-1]]), strict=True):
            np.testing.assert_array_equal(found, wanted)
    one.warmup()


def test_channels_last_on_the_device():
    pytest.importorskip("torch")
    (found,) = model((None, 16, 24, 3), last=True, tensors=True)(PICTURE)
    (wanted,) = model((None, 3, 16, 24), last=False, tensors=True)(PICTURE)
    np.testing.assert_array_equal(np.asarray(found), np.asarray(wanted))


@pytest.mark.parametrize("shape", [(1, 3, 16, 3), (1, 3, 3, 3)])
def test_channels_first_where_both_would_do(shape):
    assert model(shape, last=False).preprocess(PICTURE)[0].shape == shape


def test_neither_is_refused():
    with pytest.raises(ModelFileError, match="another number of channels"):
        model((1, 16, 24, 4), last=True)
    with pytest.raises(ModelFileError, match="another input size"):
        model((1, 16, 24, 3), last=True, size=(8, 8))
