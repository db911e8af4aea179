"""bfloat16 and float8 against ml_dtypes, which is an implementation of its own."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from lensmount_tensorrt.narrow_floats import from_bfloat16, from_float8, to_bfloat16, to_float8

RANDOM = np.random.default_rng(0)
SPREAD = (RANDOM.normal(size=50_000) * 10 ** RANDOM.uniform(-40, 38, 50_000)).astype(np.float32)
EDGES = np.array([0, -0.0, np.inf, -np.inf, 3.4028235e38, -3.4028235e38, 1e-45, 1.0, 1.00390625], np.float32)


def test_bfloat16_rounds_as_ml_dtypes_does():
    values = np.concatenate([SPREAD, EDGES])
    np.testing.assert_array_equal(to_bfloat16(values), values.astype(ml_dtypes.bfloat16).view(np.uint16))


def test_every_bfloat16_comes_back():
    bits = np.arange(1 << 16, dtype=np.uint16)
    np.testing.assert_array_equal(from_bfloat16(bits), bits.view(ml_dtypes.bfloat16).astype(np.float32))
    numbers = ~np.isnan(from_bfloat16(bits))
    np.testing.assert_array_equal(to_bfloat16(from_bfloat16(bits[numbers])), bits[numbers])


def test_float8_rounds_as_ml_dtypes_does():
    values = RANDOM.uniform(-448, 448, 50_000).astype(np.float32) * 10 ** RANDOM.uniform(-6, 0, 50_000).astype(
        np.float32
    )
    middles = (from_float8(np.arange(126, dtype=np.uint8)) + from_float8(np.arange(1, 127, dtype=np.uint8))) / 2
    values = np.concatenate([values, middles, -middles, np.array([0, -0.0], np.float32)])
    np.testing.assert_array_equal(to_float8(values), values.astype(ml_dtypes.float8_e4m3fn).view(np.uint8))


def test_every_float8_comes_back():
    bits = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(from_float8(bits), bits.view(ml_dtypes.float8_e4m3fn).astype(np.float32))


def test_float8_saturates():
    assert from_float8(to_float8(np.array([1e9, -1e9, np.inf], np.float32))).tolist() == [448, -448, 448]


@pytest.mark.parametrize(("to", "back"), [(to_bfloat16, from_bfloat16), (to_float8, from_float8)])
def test_nan_stays_nan(to, back):
    assert np.isnan(back(to(np.array([np.nan, -np.nan], np.float32)))).all()
