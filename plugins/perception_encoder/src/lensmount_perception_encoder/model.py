"""PE-Core models on any backend: what Perception Encoder has of its own among architectures of two towers."""

from __future__ import annotations

from lensmount.specs import Preprocess
from lensmount_perception_encoder.options import LoadOptions
from lensmount_vision.towers.build import TwoTowers
from lensmount_vision.towers.configs import open_clip_preprocess
from lensmount_vision.towers.model import EmbeddingModel
from lensmount_vision.towers.vocabulary import OPEN_CLIP_SPECIALS


class PerceptionEncoder(EmbeddingModel):
    """Embeds pictures and texts with PE-Core; see `lensmount_vision.towers.EmbeddingModel`."""


PE_CORE = TwoTowers(
    architecture="perception_encoder",
    label="PE-Core",
    model=PerceptionEncoder,
    options=LoadOptions,
    weights="lensmount_perception_encoder.checkpoint:read_weights",
    preprocess=Preprocess(
        size=None,
        resize="stretch",
        interpolation="bilinear",
        antialias=True,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    ),
    configured=open_clip_preprocess,
    specials=OPEN_CLIP_SPECIALS,
    context_length=32,
    logit_scale=100.0,  # the exported graphs say their own, which is in the weights
)
build, network, graph, export = PE_CORE.build, PE_CORE.network, PE_CORE.graph, PE_CORE.export
