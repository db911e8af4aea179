"""Pairs of an image tower and a text tower, as CLIP's: networks, tokeniser, files, embeddings, export.

Any plugin for such a model may import it; CLIP, Perception Encoder and OWLv2 do. It imports `models`, `results`,
`images`, `lensmount_reading` and the core. Public are the names below and, as modules, `layouts` (names and shapes in
weight files), `recognise` (cards of bare files, keys of metadata) and `transformer` (torch blocks that the towers are
made of).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lensmount.lazy import lazy_names

_LAZY = {
    "ClipTokenizer": "lensmount_vision.towers.tokens",
    "Comparison": "lensmount_vision.towers.similarity",
    "EmbeddedBatch": "lensmount_vision.towers.stream",
    "EmbeddingModel": "lensmount_vision.towers.model",
    "OPENAI_SPECIALS": "lensmount_vision.towers.vocabulary",
    "OPEN_CLIP_SPECIALS": "lensmount_vision.towers.vocabulary",
    "TowerWeights": "lensmount_vision.towers.weights",
    "TwoTowers": "lensmount_vision.towers.build",
    "VectorTable": "lensmount_vision.towers.vectors",
    "Vocabulary": "lensmount_vision.towers.vocabulary",
    "companions": "lensmount_vision.towers.recognise",
    "export_graphs": "lensmount_vision.towers.export",
    "load_vocabulary": "lensmount_vision.towers.vocabulary",
    "metadata_number": "lensmount_vision.towers.recognise",
    "packaged_vocabulary": "lensmount_vision.towers.vocabulary",
    "pad": "lensmount_vision.towers.tokens",
    "pair_card": "lensmount_vision.towers.recognise",
    "read_tensors": "lensmount_vision.towers.weights",
    "read_vectors": "lensmount_vision.towers.vectors",
    "read_vocabulary": "lensmount_vision.towers.vocabulary",
    "transpose_text_projection": "lensmount_vision.towers.weights",
    "weights_card": "lensmount_vision.towers.recognise",
    "write_vectors": "lensmount_vision.towers.vectors",
}

if TYPE_CHECKING:
    from lensmount_vision.towers.build import TwoTowers as TwoTowers
    from lensmount_vision.towers.export import export_graphs as export_graphs
    from lensmount_vision.towers.model import EmbeddingModel as EmbeddingModel
    from lensmount_vision.towers.recognise import companions as companions
    from lensmount_vision.towers.recognise import metadata_number as metadata_number
    from lensmount_vision.towers.recognise import pair_card as pair_card
    from lensmount_vision.towers.recognise import weights_card as weights_card
    from lensmount_vision.towers.similarity import Comparison as Comparison
    from lensmount_vision.towers.stream import EmbeddedBatch as EmbeddedBatch
    from lensmount_vision.towers.tokens import ClipTokenizer as ClipTokenizer
    from lensmount_vision.towers.tokens import pad as pad
    from lensmount_vision.towers.vectors import VectorTable as VectorTable
    from lensmount_vision.towers.vectors import read_vectors as read_vectors
    from lensmount_vision.towers.vectors import write_vectors as write_vectors
    from lensmount_vision.towers.vocabulary import OPEN_CLIP_SPECIALS as OPEN_CLIP_SPECIALS
    from lensmount_vision.towers.vocabulary import OPENAI_SPECIALS as OPENAI_SPECIALS
    from lensmount_vision.towers.vocabulary import Vocabulary as Vocabulary
    from lensmount_vision.towers.vocabulary import load_vocabulary as load_vocabulary
    from lensmount_vision.towers.vocabulary import packaged_vocabulary as packaged_vocabulary
    from lensmount_vision.towers.vocabulary import read_vocabulary as read_vocabulary
    from lensmount_vision.towers.weights import TowerWeights as TowerWeights
    from lensmount_vision.towers.weights import read_tensors as read_tensors
    from lensmount_vision.towers.weights import transpose_text_projection as transpose_text_projection

__all__ = [
    "OPENAI_SPECIALS",
    "OPEN_CLIP_SPECIALS",
    "ClipTokenizer",
    "Comparison",
    "EmbeddedBatch",
    "EmbeddingModel",
    "TowerWeights",
    "TwoTowers",
    "VectorTable",
    "Vocabulary",
    "companions",
    "export_graphs",
    "load_vocabulary",
    "metadata_number",
    "packaged_vocabulary",
    "pad",
    "pair_card",
    "read_tensors",
    "read_vectors",
    "read_vocabulary",
    "transpose_text_projection",
    "weights_card",
    "write_vectors",
]

__getattr__, __dir__ = lazy_names(__name__, _LAZY)
