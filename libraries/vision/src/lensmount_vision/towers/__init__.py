"""Pairs of an image tower and a text tower, as CLIP's: tokenisers, networks, layouts of files, embeddings and streams.

CLIP, Perception Encoder and OWLv2 import it. It imports `models`, `results`, `images`, `lensmount_reading` and
the core.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lensmount.lazy import lazy_names

_LAZY = {
    "ClipTokenizer": "lensmount_vision.towers.tokens",
    "Comparison": "lensmount_vision.towers.similarity",
    "EmbeddingModel": "lensmount_vision.towers.model",
}

if TYPE_CHECKING:
    from lensmount_vision.towers.model import EmbeddingModel as EmbeddingModel
    from lensmount_vision.towers.similarity import Comparison as Comparison
    from lensmount_vision.towers.tokens import ClipTokenizer as ClipTokenizer

__all__ = ["ClipTokenizer", "Comparison", "EmbeddingModel"]

__getattr__, __dir__ = lazy_names(__name__, _LAZY)
