"""Weights that need not be stored: seeded by name, the same wherever numpy runs."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import numpy as np


def weights(shapes: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
    """float32 tensors for names and shapes."""
    made = {}
    for name, shape in shapes.items():
        random = np.random.default_rng(zlib.crc32(name.encode()))
        if name.endswith("logit_scale"):
            made[name] = np.full(shape, 2.5, np.float32)
            continue
        values = random.standard_normal(shape)
        if name.endswith("running_var"):
            values = 0.5 + np.abs(values)
        elif len(shape) == 1:
            values = 0.1 * values + (1 if name.endswith("weight") else 0)
        else:
            values = values / np.sqrt(np.prod(shape[1:]))
        made[name] = values.astype(np.float32)
    return made


def images(count: int, side: int) -> np.ndarray:
    return np.random.default_rng(side).standard_normal((count, 3, side, side)).astype(np.float32)


def tokens(vocabulary: int, context: int) -> np.ndarray:
    """int64 `(5, context)`: the end token is the highest id, behind it zeros; the last text fills the context."""
    random = np.random.default_rng(vocabulary)
    made = np.zeros((5, context), np.int64)
    for row, length in zip(made, (2, 3, 7, 5, context), strict=True):
        row[:length] = random.integers(1, vocabulary - 2, length)
        row[0], row[length - 1] = vocabulary - 2, vocabulary - 1
    return made
