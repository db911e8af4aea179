"""The Gaussian and the bilinear resize in one, against both done one after the other in torch."""

from __future__ import annotations

import numpy as np
import pytest

from lensmount.specs import Preprocess
from lensmount_vision.images.loading import load
from lensmount_vision.images.resample import resize
from lensmount_vision.images.transforms import prepare


def reference(pixels, size):
    """Gaussian with mirrored edges, then a bilinear resize, in float64."""
    import torch
    import torch.nn.functional as F

    planes = torch.from_numpy(pixels.astype(np.float64)).permute(2, 0, 1)[None]
    factors = [old / new for old, new in zip(pixels.shape[:2], size, strict=True)]
    sigmas = [max(0.0, (factor - 1) / 2) for factor in factors]
    for axis, sigma in enumerate(sigmas):
        if sigma == 0:
            continue
        radius = int(np.ceil(3 * sigma))
        bell = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=torch.float64) / sigma) ** 2)
        bell /= bell.sum()
        edges = (0, 0, radius, radius) if axis == 0 else (radius, radius, 0, 0)
        kernel = bell.reshape(1, 1, -1, 1) if axis == 0 else bell.reshape(1, 1, 1, -1)
        padded = F.pad(planes, edges, mode="reflect")
        planes = F.conv2d(padded.transpose(0, 1), kernel).transpose(0, 1)
    planes = F.interpolate(planes, size=size, mode="bilinear", align_corners=False)
    return planes[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize(
    ("old", "new"), [((300, 300), (96, 96)), ((97, 97), (96, 96)), ((40, 40), (96, 96)), ((640, 640), (64, 64)),
                     ((96, 96), (96, 96)), ((128, 200), (64, 50))]
)  # fmt: skip
def test_weights(old, new):
    pytest.importorskip("torch")
    pixels = np.random.default_rng(0).uniform(0, 255, (*old, 3)).astype(np.float32)
    got = resize(pixels, new, "gaussian-bilinear")
    assert np.abs(got - reference(pixels, new)).max() <= 255 * 1e-5


def test_a_window_is_part_of_the_whole():
    pixels = np.random.default_rng(0).uniform(0, 255, (200, 150, 3)).astype(np.float32)
    whole = resize(pixels, (50, 60), "gaussian-bilinear")
    part = resize(pixels, (50, 60), "gaussian-bilinear", window=(10, 30, 20, 55))
    assert np.abs(part - whole[10:30, 20:55]).max() <= 1e-3


def test_square_padding_is_smoothed_too():
    """The picture's lower edge bleeds into the padding, as it does in the reference."""
    pytest.importorskip("torch")
    pixels = np.random.default_rng(0).integers(0, 255, (60, 240, 3)).astype(np.uint8)
    square = np.zeros((240, 240, 3), np.float32)
    square[:60] = pixels
    spec = Preprocess(
        size=(48, 48), resize="pad-square", padding_value=0, interpolation="gaussian-bilinear",
        resample_dtype="float32", color="bgr",
    )  # fmt: skip
    batch, (geometry,) = prepare([load(pixels)], spec)
    expected = reference(square, (48, 48)).transpose(2, 0, 1) / 255
    assert np.abs(batch[0] - expected).max() <= 1e-5
    assert geometry.scale == (0.2, 0.2)
