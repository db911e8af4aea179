"""What all blocks share: they can be put together from parts that exist already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

B = TypeVar("B", bound="Block")


def halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """Cuts `(B, C, …)` into two along the channels.

    One split of fixed sizes in exported graphs: `chunk` becomes two slices of one tensor there, which OpenVINO puts
    together again, and wrongly if one of them has no end.
    """
    half = int(x.shape[1]) // 2
    first, second = torch.split(x, [half, half], 1)
    return first, second


class Block(nn.Module):
    """A module that is either constructed with fresh weights, or assembled from given parts."""

    @classmethod
    def assembled(cls: type[B], parts: Mapping[str, nn.Module], settings: Mapping[str, Any]) -> B:
        """The block made of `parts`, with what its constructor would have derived taken from `settings`.

        Which parts each kind needs is in `parts.PARTS`; whoever assembles has seen to it.

        Raises:
            ValueError: A setting makes no sense.
        """
        block = cls.__new__(cls)
        nn.Module.__init__(block)
        for name, part in parts.items():
            block.add_module(name, part)
        block.configure(settings)
        return block

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Sets what `forward` needs apart from the parts; called when they are in place."""
