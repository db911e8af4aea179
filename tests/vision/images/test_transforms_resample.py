"""Resampling against Pillow (bit for bit) and torch (to float rounding)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from lensmount_vision.images.resample import resize

FILTERS = {
    "bilinear": Pillow.Resampling.BILINEAR,
    "bicubic": Pillow.Resampling.BICUBIC,
    "area": Pillow.Resampling.BOX,
    "lanczos": Pillow.Resampling.LANCZOS,
}


def pillow(pixels: np.ndarray, size: tuple[int, int], name: str) -> np.ndarray:
    """Pillow's result, horizontal pass first: Pillow 13 turns the order round for some shapes, older ones never."""
    image = Pillow.fromarray(pixels).resize((size[1], pixels.shape[0]), FILTERS[name])
    return np.asarray(image.resize((size[1], size[0]), FILTERS[name]))


NOISE = np.random.default_rng(0).integers(0, 256, (233, 310, 3), np.uint8)


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("size", [(64, 64), (24, 310), (233, 24), (500, 400), (300, 50), (1, 1), (3, 700), (233, 310)])
def test_antialias_equals_pillow_bit_for_bit(name: str, size: tuple[int, int]):
    expected = pillow(NOISE, size, name)
    np.testing.assert_array_equal(resize(NOISE, size, name, antialias=True), expected)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(list(FILTERS)), st.integers(1, 90), st.integers(1, 90), st.integers(1, 120), st.integers(1, 120),
    st.integers(0, 2**31), st.booleans(),
)  # fmt: skip
def test_antialias_equals_pillow_everywhere(name, height, width, rows, columns, seed, extreme):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    if extreme:  # overshoot and clipping
        pixels = (pixels > 127).astype(np.uint8) * 255
    expected = pillow(pixels, (rows, columns), name)
    np.testing.assert_array_equal(resize(pixels, (rows, columns), name, antialias=True), expected)


def test_grey_and_strided():
    expected = pillow(NOISE[..., 0], (40, 50), "bicubic")
    grey = np.ascontiguousarray(NOISE[..., 0])
    np.testing.assert_array_equal(resize(grey, (40, 50), "bicubic", antialias=True), expected)
    expected = pillow(NOISE[10:200, 20:300], (40, 50), "bicubic")
    np.testing.assert_array_equal(resize(NOISE[10:200, 20:300], (40, 50), "bicubic", antialias=True), expected)


def test_long_shrink_leaves_the_exact_split():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 20000, 3), np.uint8)
    expected = np.asarray(Pillow.fromarray(pixels).resize((8, 4), FILTERS["lanczos"])).astype(int)
    # Beyond 1,024 taps float32 sums stand in for the fixed-point ones.
    np.testing.assert_allclose(resize(pixels, (4, 8), "lanczos", antialias=True), expected, atol=1)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("name", ["nearest", *FILTERS])
def test_window_is_a_part_of_the_whole(name: str, antialias: bool):
    for size in ((64, 80), (150, 200), (233, 100)):
        whole = resize(NOISE, size, name, antialias=antialias)
        part = resize(NOISE, size, name, antialias=antialias, window=(10, 60, 7, 71))
        np.testing.assert_array_equal(part, whole[10:60, 7:71])


@pytest.mark.parametrize("name", ["nearest", "bilinear"])
def test_small_window_of_a_huge_enlargement(name: str):
    # 16-fold waste switches to the windowed kernels: OpenCV's uint8 weights have 11 bits, hence the tolerance.
    whole = resize(NOISE[:20, :40], (800, 1600), name).astype(int)
    part = resize(NOISE[:20, :40], (800, 1600), name, window=(300, 350, 700, 760))
    np.testing.assert_allclose(part, whole[300:350, 700:760], atol=0 if name == "nearest" else 1)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(64, 64), (500, 400), (100, 700)])
def test_float_equals_torch(name: str, antialias: bool, size: tuple[int, int]):
    torch = pytest.importorskip("torch")
    values = NOISE.astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(values).permute(2, 0, 1)[None], size, mode=name, antialias=antialias, align_corners=False
    )[0].permute(1, 2, 0)
    # torch computes source coordinates in float32: an error of 1e-5 pixels on steps of up to 255.
    np.testing.assert_allclose(resize(values, size, name, antialias=antialias), expected.numpy(), atol=2e-2)


def test_same_size_is_not_copied():
    assert resize(NOISE, NOISE.shape[:2], "bicubic", antialias=True).base is NOISE or np.shares_memory(
        resize(NOISE, NOISE.shape[:2]), NOISE
    )
