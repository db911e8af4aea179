"""PE-Core models on any backend: building them, their torch networks, and their export to a pair of graphs."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lensmount.errors import UnsupportedModelError
from lensmount.specs import Preprocess
from lensmount_perception_encoder.options import LoadOptions
from lensmount_vision.towers.build import build_model, text_network, visual_network
from lensmount_vision.towers.model import EmbeddingModel, tower
from lensmount_vision.towers.recognise import BIAS, SCALE
from lensmount_vision.towers.vocabulary import OPEN_CLIP_SPECIALS

if TYPE_CHECKING:
    from lensmount.contracts.model import BuildContext, ExportContext, NetworkContext
    from lensmount.contracts.session import TorchNetwork

#: For graphs that do not say; our exports do. The released models' own factor is in their weights.
USUAL_SCALE = 100.0


class PerceptionEncoder(EmbeddingModel):
    """Embeds pictures and texts with PE-Core; see `lensmount_vision.towers.model.EmbeddingModel`."""


def build(context: BuildContext) -> PerceptionEncoder:
    """Makes the model.

    Raises:
        UnsupportedModelError: The task is not `embedding`.
        ModelFileError: The graphs are not those of two towers.
        OptionError: An option that a graph cannot follow.
    """
    return build_model(
        PerceptionEncoder,
        context,
        preprocess=preprocess_of(context),
        vocabulary_package="lensmount_perception_encoder",
        specials=OPEN_CLIP_SPECIALS,
        context_length=32,
        logit_scale=USUAL_SCALE,
        defaults=LoadOptions(),
    )


def preprocess_of(context: BuildContext) -> Preprocess:
    """The package's own geometry, else PE's: squashed bilinearly with antialias, mean and std 0.5."""
    if context.package.preprocess is not None:
        return context.package.preprocess
    spec = Preprocess(
        size=None,
        resize="stretch",
        interpolation="bilinear",
        antialias=True,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )
    height, width = tower(context, "visual").inputs[0].shape[-2:]
    return replace(spec, size=(height, width) if isinstance(height, int) and isinstance(width, int) else (224, 224))


def network(context: NetworkContext) -> dict[str, TorchNetwork]:
    """Builds both towers from the package's weights.

    Raises:
        ModelFileError: The file is corrupt, or its tensors contradict one another.
        UnsupportedModelError: The tensors are not those of a PE-Core.
    """
    from lensmount_perception_encoder.checkpoint import to_meta, vision_geometry, vision_tensors
    from lensmount_perception_encoder.network import VisionTower
    from lensmount_reading import read_checkpoint
    from lensmount_vision.towers.layouts import text_geometry
    from lensmount_vision.towers.transformer import TextTower, load

    options = context.options or LoadOptions()
    path = next(context.files[a.name] for a in context.package.artifacts if a.role == "weights")
    tensors = to_meta(read_checkpoint(path))
    try:
        geometry = vision_geometry(tensors, options)
        words = text_geometry({n: tuple(t.shape) for n, t in tensors.items()}, options.text_heads)
        pictures = load(lambda: VisionTower(**geometry), vision_tensors(tensors, geometry))
        held = ("transformer.", "ln_final.", "token_embedding.", "positional_embedding", "text_projection")
        text = {n: t for n, t in tensors.items() if n.startswith(held)}
        texts = load(lambda: TextTower(**words, activation="gelu"), text)
        scale = math.exp(float(tensors["logit_scale"]))
        metadata = {SCALE: repr(scale), BIAS: repr(float(tensors.get("logit_bias", 0.0)))}
    except (KeyError, ValueError, IndexError, RuntimeError) as error:
        raise UnsupportedModelError(
            f"the tensors of {path.name} are not those of a PE-Core",
            found=str(error)[:500],
            fix="lensmount inspect FILE shows what is in it",
        ) from error
    architecture = "perception_encoder"
    return {
        "visual": visual_network(pictures, architecture, geometry["resolution"], geometry["dimension"], metadata),
        "textual": text_network(texts, architecture, words, metadata),
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

    return export_pair(context, network, LoadOptions, vocabulary_package="lensmount_perception_encoder")
