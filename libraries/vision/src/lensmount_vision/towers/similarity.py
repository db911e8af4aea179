"""Similarity of pictures and texts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """Scores of every picture with every text.

    Attributes:
        cosine: float32 `(N, M)`: cosine of picture n and text m, -1..1.
        logits: float32 `(N, M)`: cosine times the model's learned scale (plus its bias): what softmax is taken of.
    """

    cosine: Vectors
    logits: Vectors

    @property
    def probabilities(self) -> Vectors:
        """float32 `(N, M)`: softmax over the texts of each picture, as if exactly one of them were true."""
        return softmax(self.logits)


def softmax(logits: Vectors) -> Vectors:
    """Softmax along the last axis, safe for large logits."""
    if not logits.shape[-1]:
        return logits
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    result: Vectors = shifted / shifted.sum(axis=-1, keepdims=True)
    return result
