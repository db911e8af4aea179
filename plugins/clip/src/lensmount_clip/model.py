"""CLIP models on any backend: building them, their torch networks, and their export to a pair of graphs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmount.errors import UnsupportedModelError
from lensmount.specs import Preprocess
from lensmount_clip.options import LoadOptions
from lensmount_vision.towers.build import build_model, text_network, visual_network
from lensmount_vision.towers.layouts import read_config, table, triple
from lensmount_vision.towers.model import EmbeddingModel, tower
from lensmount_vision.towers.recognise import BIAS, SCALE
from lensmount_vision.towers.vocabulary import OPENAI_SPECIALS

if TYPE_CHECKING:
    from lensmount.contracts.model import BuildContext, ExportContext, NetworkContext
    from lensmount.contracts.session import TorchNetwork

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
#: exp(logit_scale) of all nine models that OpenAI released (it was clipped there); for graphs that do not say.
SCALE_OF_OPENAI = 100.0


class ClipModel(EmbeddingModel):
    """Embeds pictures and texts with CLIP; see `lensmount_vision.towers.model.EmbeddingModel`."""


def build(context: BuildContext) -> ClipModel:
    """Makes the model.

    Raises:
        UnsupportedModelError: The task is not `embedding`.
        ModelFileError: The graphs are not those of two towers.
        OptionError: An option that a graph cannot follow.
    """
    return build_model(
        ClipModel,
        context,
        preprocess=preprocess_of(context),
        vocabulary_package="lensmount_clip",
        specials=OPENAI_SPECIALS,
        context_length=77,
        logit_scale=SCALE_OF_OPENAI,
        defaults=LoadOptions(),
    )


def preprocess_of(context: BuildContext) -> Preprocess:
    """The package's own geometry, else CLIP's at the size that the image tower takes."""
    if context.package.preprocess is not None:
        return context.package.preprocess
    spec = Preprocess(
        size=None,
        resize="short-side-crop",
        interpolation="bicubic",
        antialias=True,
        mean=MEAN,
        std=STD,
    )
    spec = _as_configured(spec, context.files)
    height, width = tower(context, "visual").inputs[0].shape[-2:]
    return replace(spec, size=(height, width) if isinstance(height, int) and isinstance(width, int) else (224, 224))


def _as_configured(spec: Preprocess, files: Mapping[str, Path]) -> Preprocess:
    """Mean and std of the configuration next to the weights; refuses what is resized otherwise."""
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


def network(context: NetworkContext) -> dict[str, TorchNetwork]:
    """Builds both towers from the package's weights.

    Raises:
        ModelFileError: The file is corrupt, or its tensors contradict one another.
        UnsupportedModelError: The tensors are not those of a CLIP.
    """
    from lensmount_clip.checkpoint import read_settings, to_openai, vision_geometry
    from lensmount_clip.network import ModifiedResNet, VisionTransformer
    from lensmount_reading import read_checkpoint
    from lensmount_vision.towers.layouts import text_geometry
    from lensmount_vision.towers.transformer import TextTower, fold_quick_gelu, load

    path = next(context.files[a.name] for a in context.package.artifacts if a.role == "weights")
    checkpoint = read_checkpoint(path)
    settings = read_settings(context.files, checkpoint, context.options or LoadOptions())
    tensors = to_openai(checkpoint)
    try:
        kind, resolution, arguments = vision_geometry(tensors, settings)
        words = text_geometry({n: tuple(t.shape) for n, t in tensors.items()}, settings.text_heads)
        scale = math.exp(float(tensors["logit_scale"]))
        metadata = {SCALE: repr(scale), BIAS: repr(float(tensors.get("logit_bias", 0.0)))}
        if settings.activation == "quick_gelu":
            tensors = fold_quick_gelu(tensors)
        visual = {n.removeprefix("visual."): t for n, t in tensors.items() if n.startswith("visual.")}
        tower_type: Any = ModifiedResNet if kind == "resnet" else VisionTransformer
        text = {n: t for n, t in tensors.items() if n.startswith(("transformer.", "ln_final.", "token_embedding."))}
        text |= {name: tensors[name] for name in ("positional_embedding", "text_projection")}
        pictures = load(lambda: tower_type(**arguments), visual)
        texts = load(lambda: TextTower(**words, activation=settings.activation), text)
    except (KeyError, ValueError, IndexError, RuntimeError) as error:
        raise UnsupportedModelError(
            f"the tensors of {path.name} are not those of a CLIP",
            found=str(error)[:500],
            fix="lensmount inspect FILE shows what is in it",
        ) from error
    return {
        "visual": visual_network(pictures, "clip", resolution, arguments["dimension"], metadata),
        "textual": text_network(texts, "clip", words, metadata),
    }


def export(context: ExportContext) -> Path:
    """Writes `visual.onnx`, `textual.onnx`, the tokeniser and a manifest into a folder, checked against torch.

    Settings are those load options that say what the files leave open.

    Raises:
        UnknownOptionError: A setting that is no load option.
        OptionError: A setting has a wrong value.
        UnsupportedModelError: Another target than `onnx`, or a precision that is not exported.
        ModelFileError: The graphs do not give what the networks give.
    """
    from lensmount_vision.towers.export import export_pair

    return export_pair(context, network, LoadOptions, vocabulary_package="lensmount_clip")
