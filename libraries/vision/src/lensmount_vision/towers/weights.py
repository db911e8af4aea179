"""The tensors of two towers, as an architecture hands them over, and what reading them has in common."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lensmount.contracts import TensorSpec
from lensmount.errors import UnsupportedModelError
from lensmount_networks import Network
from lensmount_vision.models.leftovers import Taken, require_all_used
from lensmount_vision.towers.configs import EPSILON
from lensmount_vision.towers.layouts import strip_names, text_geometry
from lensmount_vision.towers.recognise import ARCHITECTURE, BIAS, CLEANING, CONTEXT, SCALE, VOCABULARY

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lensmount_networks import Layer
    from lensmount_reading import Checkpoint
    from lensmount_vision.towers.tokens import Cleaning
    from lensmount_vision.towers.transformer import Activation

_SCALES = ("logit_scale", "logit_bias")
#: Numbers that OpenAI's archives hold among the tensors; all show in the shapes too.
_OPENAI_FACTS = (r"^(input_resolution|context_length|vocab_size)$",)
_TEXT = ("transformer.", "ln_final.", "token_embedding.", "positional_embedding", "text_projection")


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerWeights:
    """The weights of two towers, and how the image tower is built from them.

    Attributes:
        tensors: Float32 arrays in OpenAI's layout; those of the text tower and the scale are read from here.
        image_tower: Makes the image tower.
        image_tensors: The image tower's own parameters by name.
        resolution: Side of the square input in pixels.
        dimension: Length of the image tower's vectors.
        activation: Of the text tower.
        text_heads: Attention heads of the text tower; None for one for each 64 channels.
        image_epsilon: What the image tower's LayerNorms add to the variance.
        text_epsilon: Those of the text tower.
        cleaning: How texts are cleaned before they are cut into tokens; see `ClipTokenizer`.
    """

    tensors: Mapping[str, NDArray[Any]]
    image_tower: Callable[[], Layer]
    image_tensors: Mapping[str, NDArray[Any]]
    resolution: int
    dimension: int
    activation: Activation = "gelu"
    text_heads: int | None = None
    image_epsilon: float = EPSILON
    text_epsilon: float = EPSILON
    cleaning: Cleaning = "openai"

    def networks(self, architecture: str) -> dict[str, Network]:
        """Both towers, `visual` and `textual`.

        Args:
            architecture: For the metadata.

        Raises:
            ModelFileError: A tensor is missing or of an impossible shape.
            KeyError: There is no `logit_scale`.
        """
        from lensmount_vision.towers.transformer import TextTower, fold_quick_gelu, set_epsilon

        sizes = text_geometry({name: tuple(tensor.shape) for name, tensor in self.tensors.items()}, self.text_heads)
        # Single numbers, which some files keep in arrays of one.
        scale, shift = math.exp(float(self.tensors["logit_scale"].reshape(()))), self.tensors.get("logit_bias")
        bias = 0.0 if shift is None else float(shift.reshape(()))
        lengths = {CONTEXT: str(sizes["context"]), VOCABULARY: str(sizes["vocabulary"]), CLEANING: self.cleaning}
        facts = {ARCHITECTURE: architecture, SCALE: repr(scale), BIAS: repr(bias)}
        side = self.resolution
        return {
            "visual": Network(
                layer=lambda: set_epsilon(self.image_tower(), self.image_epsilon),
                tensors=self.image_tensors,
                inputs=(TensorSpec("images", ("batch", 3, side, side), "float32"),),
                outputs=(TensorSpec("image_embeddings", ("batch", self.dimension), "float32"),),
                metadata=facts,
                for_torch=fold_quick_gelu,
            ),
            "textual": Network(
                layer=lambda: set_epsilon(TextTower(**sizes, activation=self.activation), self.text_epsilon),
                tensors={name: tensor for name, tensor in self.tensors.items() if name.startswith(_TEXT)},
                inputs=(TensorSpec("tokens", ("batch", "length"), "int64"),),
                outputs=(TensorSpec("text_embeddings", ("batch", sizes["dimension"]), "float32"),),
                metadata={**facts, **lengths},
                for_torch=fold_quick_gelu,
            ),
        }

    def require_all(self, where: str) -> None:
        """Refuses tensors that neither tower has.

        Raises:
            UnsupportedModelError: Naming them.
        """
        placed = (name for name in self.tensors if name.startswith(("visual.", *_TEXT)) or name in _SCALES)
        require_all_used(self.tensors, placed, where, harmless=_OPENAI_FACTS)


def read_tensors(
    checkpoint: Checkpoint,
    layout: Callable[[Iterable[str]], str | None],
    *,
    label: str,
    expected: str,
    skipped: tuple[str, ...] = (),
) -> tuple[str, Taken[NDArray[Any]]]:
    """All tensors of a checkpoint in float32, wrappers stripped from their names.

    Args:
        checkpoint: What was read.
        layout: Says which layout plain names have; None for another architecture.
        label: The architecture's name in messages: `CLIP`.
        expected: The layouts that are read, for messages.
        skipped: Endings of names that are left out.

    Returns:
        The layout, and arrays by plain name: views of the mapped file where it holds float32.

    Raises:
        UnsupportedModelError: The layout is not known, or there are tensors beside the towers'.
    """
    from lensmount_reading import as_arrays

    names = strip_names(checkpoint.tensors)
    kind = layout(names)
    if kind is None:
        raise UnsupportedModelError(
            f"{checkpoint.path.name} does not hold a {label}",
            found=", ".join(list(checkpoint.tensors)[:3]) or "no tensors",
            expected=f"image and text towers in the layout of {expected}",
            fix="lensmount inspect says what the file is",
        )
    require_all_used(checkpoint.tensors, names.values(), checkpoint.path.name)
    taken = {plain: checkpoint.tensors[name] for plain, name in names.items() if not plain.endswith(skipped)}
    return kind, Taken(as_arrays(taken, "float32"))


def transpose_text_projection(tensors: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Brings a projection that is stored as a linear layer, `(D, W)`, to OpenAI's `(W, D)`, in place."""
    import numpy as np

    if "text_projection.weight" in tensors:
        tensors["text_projection"] = np.ascontiguousarray(tensors.pop("text_projection.weight").T)
    return tensors
