"""Load options of the CLIP architecture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lensmount.specs.options import one_of, positive

#: Scalars that OpenAI's own archives hold among the tensors.
OPENAI_MARKS = frozenset(("input_resolution", "context_length", "vocab_size"))


class GuessWarning(UserWarning):
    """Something that the weights depend on is said nowhere, and was taken as usual; a load option says it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """What `registry.load` takes for a CLIP model, besides the common options, for packages of format `torch`.

    Attributes:
        activation: `quick_gelu` (OpenAI's models) or `gelu` (most that open_clip trained); None for what the files say.
            State dicts do not say: without a configuration next to them they are taken as OpenAI's.
        heads: Attention heads of the image tower; None for its width / 64, or what the files say.
        text_heads: Attention heads of the text tower; None likewise.
    """

    activation: Literal["quick_gelu", "gelu"] | None = None
    heads: int | None = None
    text_heads: int | None = None

    def __post_init__(self) -> None:
        if self.activation is not None:
            one_of("activation", self.activation, ("quick_gelu", "gelu"))
        for name in ("heads", "text_heads"):
            value = getattr(self, name)
            if value is not None:
                positive(name, value)
