"""What all blocks share: they are put together from parts that exist already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from lensmount_networks import Layer
from lensmount_networks.layers import Tensor
from lensmount_reading import printable

B = TypeVar("B", bound="Block")


def halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """Cuts `(B, C, …)` into two along the channels."""
    half = x.shape[1] // 2
    first, second = x.split([half, half], 1)
    return first, second


class Block(Layer):
    """A layer made of given parts. `optional` names those that are None where a file has none."""

    optional: tuple[str, ...] = ()

    @classmethod
    def assembled(cls: type[B], parts: Mapping[str, Layer], settings: Mapping[str, Any]) -> B:
        """The block made of `parts`.

        Which parts each kind needs is in `parts.PARTS`; whoever assembles has seen to it.

        Raises:
            ValueError: A setting makes no sense.
        """
        if odd := [name for name in parts if not name.isidentifier() or hasattr(cls, name)]:
            raise ValueError(f"a part of a name that none can have: {printable(odd[0])}")
        block = cls()
        vars(block).update({**dict.fromkeys(cls.optional), **parts})
        block.configure(settings)
        return block

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Sets what `forward` needs apart from the parts; called when they are in place."""
