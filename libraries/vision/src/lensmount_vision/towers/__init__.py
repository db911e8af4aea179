"""Pairs of an image tower and a text tower, as CLIP's: networks, tokeniser, files, embeddings, export.

Any plugin for such a model may import it; CLIP, Perception Encoder and OWLv2 do. It imports `models`, `results`,
`images`, `lensmount_reading` and the core. Public are the names below and, as modules, `layouts` (names and shapes in
weight files), `recognise` (cards of bare files, keys of metadata) and `transformer` (blocks that the towers are
made of).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lensmount.lazy import lazy_names

_LAZY = {
    "lensmount_vision.towers.build": ("TwoTowers",),
    "lensmount_vision.towers.export": ("export_graphs",),
    "lensmount_vision.towers.model": ("EmbeddingModel",),
    "lensmount_vision.towers.recognise": ("companions", "metadata_number", "pair_card", "weights_card"),
    "lensmount_vision.towers.similarity": ("Comparison",),
    "lensmount_vision.towers.stream": ("EmbeddedBatch",),
    "lensmount_vision.towers.tokens": ("ClipTokenizer", "pad"),
    "lensmount_vision.towers.vectors": ("VectorTable", "read_vectors", "write_vectors"),
    "lensmount_vision.towers.vocabulary": (
        "OPENAI_SPECIALS",
        "OPEN_CLIP_SPECIALS",
        "Vocabulary",
        "load_vocabulary",
        "packaged_vocabulary",
        "read_vocabulary",
    ),
    "lensmount_vision.towers.weights": ("TowerWeights", "read_tensors", "transpose_text_projection"),
}

if TYPE_CHECKING:
    from lensmount_vision.towers.build import TwoTowers
    from lensmount_vision.towers.export import export_graphs
    from lensmount_vision.towers.model import EmbeddingModel
    from lensmount_vision.towers.recognise import companions, metadata_number, pair_card, weights_card
    from lensmount_vision.towers.similarity import Comparison
    from lensmount_vision.towers.stream import EmbeddedBatch
    from lensmount_vision.towers.tokens import ClipTokenizer, pad
    from lensmount_vision.towers.vectors import VectorTable, read_vectors, write_vectors
    from lensmount_vision.towers.vocabulary import (
        OPEN_CLIP_SPECIALS,
        OPENAI_SPECIALS,
        Vocabulary,
        load_vocabulary,
        packaged_vocabulary,
        read_vocabulary,
    )
    from lensmount_vision.towers.weights import TowerWeights, read_tensors, transpose_text_projection

__all__ = [
    "OPENAI_SPECIALS", "OPEN_CLIP_SPECIALS", "ClipTokenizer", "Comparison", "EmbeddedBatch", "EmbeddingModel",
    "TowerWeights", "TwoTowers", "VectorTable", "Vocabulary", "companions", "export_graphs", "load_vocabulary",
    "metadata_number", "packaged_vocabulary", "pad", "pair_card", "read_tensors", "read_vectors", "read_vocabulary",
    "transpose_text_projection", "weights_card", "write_vectors",
]  # fmt: skip

__getattr__, __dir__ = lazy_names(__name__, _LAZY)
