"""Load options of the Perception Encoder architecture."""

from __future__ import annotations

from dataclasses import dataclass

from lensmount.specs.options import positive


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """What `registry.load` takes for PE-Core, besides the common options, for packages of format `torch`.

    Attributes:
        heads: Attention heads of the image tower; None for those of the released models (width / 64; 16 for G14).
        pool_heads: Heads of its attention pooling; None for 8, as in all released models.
        text_heads: Heads of the text tower; None for width / 64.
    """

    heads: int | None = None
    pool_heads: int | None = None
    text_heads: int | None = None

    def __post_init__(self) -> None:
        for name in ("heads", "pool_heads", "text_heads"):
            value = getattr(self, name)
            if value is not None:
                positive(name, value)
