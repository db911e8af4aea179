"""CLIP models on any backend: what CLIP has of its own among architectures of two towers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lensmount.specs import Preprocess
from lensmount_clip.options import LoadOptions
from lensmount_vision.models.processors import read_image_processor
from lensmount_vision.towers.build import TwoTowers
from lensmount_vision.towers.configs import open_clip_preprocess, processed
from lensmount_vision.towers.model import EmbeddingModel

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
#: exp(logit_scale) of all nine models that OpenAI released, which was clipped there.
SCALE_OF_OPENAI = 100.0


class ClipModel(EmbeddingModel):
    """Embeds pictures and texts with CLIP; see `lensmount_vision.towers.EmbeddingModel`."""


def _as_configured(spec: Preprocess, files: Mapping[str, Path]) -> Preprocess:
    """Preprocessing as the files next to the weights say; an image processor of transformers counts more.

    Raises:
        ModelFileError: A configuration is malformed.
        UnsupportedModelError: It resizes in a way that is not supported.
    """
    return processed(open_clip_preprocess(spec, files), read_image_processor(files))


CLIP = TwoTowers(
    architecture="clip",
    label="CLIP",
    model=ClipModel,
    options=LoadOptions,
    weights="lensmount_clip.checkpoint:read_weights",
    preprocess=Preprocess(
        size=None, resize="short-side-crop", interpolation="bicubic", antialias=True, mean=MEAN, std=STD
    ),
    configured=_as_configured,
    context_length=77,
    logit_scale=SCALE_OF_OPENAI,
)
build, network, graph, export = CLIP.build, CLIP.network, CLIP.graph, CLIP.export
