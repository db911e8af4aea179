"""The tensors of two towers, as an architecture hands them over, and what reading them has in common."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lensmount.errors import UnsupportedModelError
from lensmount_vision.models.leftovers import Taken, require_all_used
from lensmount_vision.towers.configs import EPSILON
from lensmount_vision.towers.layouts import strip_names, text_geometry

if TYPE_CHECKING:
    from torch import Tensor, nn

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
        tensors: Float32 tensors in OpenAI's layout; those of the text tower and the scale are read from here.
        image_tower: Makes the image tower; its parameters may be on the meta device.
        image_tensors: The image tower's own parameters by name.
        resolution: Side of the square input in pixels.
        dimension: Length of the image tower's vectors.
        activation: Of the text tower.
        text_heads: Attention heads of the text tower; None for one for each 64 channels.
        image_epsilon: What the image tower's LayerNorms add to the variance.
        text_epsilon: Those of the text tower.
        cleaning: How texts are cleaned before they are cut into tokens; see `ClipTokenizer`.
    """

    tensors: Mapping[str, Tensor]
    image_tower: Callable[[], nn.Module]
    image_tensors: Mapping[str, Tensor]
    resolution: int
    dimension: int
    activation: Activation = "gelu"
    text_heads: int | None = None
    image_epsilon: float = EPSILON
    text_epsilon: float = EPSILON
    cleaning: Cleaning = "openai"

    def image_network(self) -> nn.Module:
        """The image tower with its weights.

        Raises:
            RuntimeError: Names or shapes do not fit.
        """
        from lensmount_vision.towers.transformer import load_module, set_epsilon

        return set_epsilon(load_module(self.image_tower, self.image_tensors), self.image_epsilon)

    def text_network(self) -> tuple[nn.Module, dict[str, int]]:
        """The text tower with its weights, and its sizes (see `text_geometry`).

        Raises:
            ModelFileError: A tensor is missing or of an impossible shape.
            RuntimeError: Names or shapes do not fit.
        """
        from lensmount_vision.towers.transformer import TextTower, load_module, set_epsilon

        sizes = text_geometry({name: tuple(tensor.shape) for name, tensor in self.tensors.items()}, self.text_heads)
        own = {name: tensor for name, tensor in self.tensors.items() if name.startswith(_TEXT)}
        tower = load_module(lambda: TextTower(**sizes, activation=self.activation), own)
        return set_epsilon(tower, self.text_epsilon), sizes

    def require_all(self, where: str) -> None:
        """Refuses tensors that neither tower has.

        Raises:
            UnsupportedModelError: Naming them.
        """
        placed = (name for name in self.tensors if name.startswith(("visual.", *_TEXT)) or name in _SCALES)
        require_all_used(self.tensors, placed, where, harmless=_OPENAI_FACTS)

    def scale_and_bias(self) -> tuple[float, float]:
        """Factor and addend of the calibrated scores.

        Raises:
            KeyError: There is no `logit_scale`.
        """
        return math.exp(float(self.tensors["logit_scale"])), float(self.tensors.get("logit_bias", 0.0))


def read_tensors(
    checkpoint: Checkpoint,
    layout: Callable[[Iterable[str]], str | None],
    *,
    label: str,
    expected: str,
    skipped: tuple[str, ...] = (),
) -> tuple[str, Taken[Tensor]]:
    """All tensors of a checkpoint in float32, wrappers stripped from their names.

    Args:
        checkpoint: What was read.
        layout: Says which layout plain names have; None for another architecture.
        label: The architecture's name in messages: `CLIP`.
        expected: The layouts that are read, for messages.
        skipped: Endings of names that are left out.

    Returns:
        The layout, and copies of the tensors by plain name.

    Raises:
        UnsupportedModelError: The layout is not known, or there are tensors beside the towers'.
    """
    import torch

    from lensmount_reading import tensor_to_torch

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
    return kind, Taken(
        {
            plain: tensor_to_torch(checkpoint.tensors[name]).to(torch.float32, copy=True)
            for plain, name in names.items()
            if not plain.endswith(skipped)
        }
    )


def transpose_text_projection(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Brings a projection that is stored as a linear layer, `(D, W)`, to OpenAI's `(W, D)`, in place."""
    if "text_projection.weight" in tensors:
        tensors["text_projection"] = tensors.pop("text_projection.weight").T.contiguous()
    return tensors
