"""CLIP models on any backend: what CLIP has of its own among architectures of two towers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from lensmount.errors import UnsupportedModelError
from lensmount.specs import Preprocess
from lensmount_clip.options import LoadOptions
from lensmount_vision.towers.build import TwoTowers
from lensmount_vision.towers.layouts import read_config, table, triple
from lensmount_vision.towers.model import EmbeddingModel

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
#: exp(logit_scale) of all nine models that OpenAI released, which was clipped there.
SCALE_OF_OPENAI = 100.0


class ClipModel(EmbeddingModel):
    """Embeds pictures and texts with CLIP; see `lensmount_vision.towers.EmbeddingModel`."""


def _as_configured(spec: Preprocess, files: Mapping[str, Path]) -> Preprocess:
    """Mean, std and resizing as the configuration next to the weights says.

    Raises:
        ModelFileError: A configuration is malformed.
        UnsupportedModelError: It resizes in a way that is not supported.
    """
    hf = read_config(files, "preprocessor_config.json")
    open_clip = table(read_config(files, "open_clip_config.json"), "preprocess_cfg")
    mean = triple(hf, "image_mean", "preprocessor_config.json") or triple(open_clip, "mean", "open_clip_config.json")
    std = triple(hf, "image_std", "preprocessor_config.json") or triple(open_clip, "std", "open_clip_config.json")
    mode, kernel = open_clip.get("resize_mode", "shortest"), open_clip.get("interpolation", "bicubic")
    if mode not in ("shortest", "squash") or kernel not in ("bicubic", "bilinear"):
        raise UnsupportedModelError(
            "open_clip_config.json resizes in a way that is not supported", found=f"{mode}, {kernel}"
        )
    return replace(
        spec,
        mean=mean or spec.mean,
        std=std or spec.std,
        resize="stretch" if mode == "squash" else spec.resize,
        interpolation=kernel,
    )


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
