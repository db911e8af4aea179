"""Points that no session rounds."""

from __future__ import annotations

from lensmount_networks import Layer
from lensmount_networks.layers import Tensor
from lensmount_sam2.networks.decoder import MaskDecoder


class ExactPoints(Layer):
    """A decoder for torch whose points come as the bits of float32 numbers, in an int32 tensor.

    A session casts what floats to the precision that it computes in, and bfloat16 would move a point by pixels.
    """

    def __init__(self, decoder: MaskDecoder) -> None:
        self.decoder = decoder

    def forward(
        self,
        embedding: Tensor,
        high_res_0: Tensor,
        high_res_1: Tensor,
        points: Tensor,
        labels: Tensor,
        masks: Tensor,
        has_mask: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `MaskDecoder.forward`."""
        import torch

        places = points.view(torch.float32)
        made: tuple[Tensor, Tensor, Tensor] = self.decoder(
            embedding, high_res_0, high_res_1, places, labels, masks, has_mask
        )
        return made
