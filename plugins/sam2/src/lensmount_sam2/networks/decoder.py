"""The mask decoder: prompts and an embedding to masks (SAM's decoder, with the maps of high resolution)."""

from __future__ import annotations

from typing import Any

from lensmount_networks import Layer, ops
from lensmount_networks.layers import (
    Conv2d,
    ConvTranspose2d,
    LayerNorm,
    Layers,
    Sequential,
    Tensor,
    buffer,
    parameter,
)
from lensmount_sam2.networks.encoder import HIGH_RESOLUTION, WIDTH
from lensmount_sam2.networks.layers import Attention, ChannelNorm, Gelu, Perceptron
from lensmount_sam2.networks.positions import fourier

MASKS = 4
"""Masks that come out: one for a prompt without doubt, three for one with."""


class PromptEncoder(Layer):
    """Points and an earlier mask to what the decoder attends to."""

    def __init__(self, image_size: int) -> None:
        self._image_size = image_size
        self.fourier_matrix = buffer(2, WIDTH // 2)
        # Rows: negative and positive point, a box's first and second corner.
        self.point_embeddings = parameter(4, WIDTH)
        self.not_a_point_embed = parameter(1, WIDTH)
        self.no_mask_embed = parameter(1, WIDTH)
        self.mask_downscaling = Sequential(
            Conv2d(1, 4, 2, 2), ChannelNorm(4), Gelu(), Conv2d(4, 16, 2, 2), ChannelNorm(16), Gelu(),
            Conv2d(16, WIDTH, 1),
        )  # fmt: skip
        self.grid = buffer(1, (image_size // 16) ** 2, WIDTH)  # the encoding of the cells; see `checkpoint`

    def _apply(self, fn: Any, recurse: bool = True) -> PromptEncoder:
        # Of torch's module. Places stay in float32 whatever the precision: bfloat16 would round a point by pixels.
        matrix = self.fourier_matrix
        super()._apply(fn, recurse)  # type: ignore[misc]  # the torch form's class has it
        self.fourier_matrix = matrix.to(self.fourier_matrix.device)
        return self

    def sparse(self, points: Tensor, labels: Tensor) -> Tensor:
        """float32 `(P, N, 2)` network pixels and `(P, N)` labels (-1 for no point) to `(P, N, C)`."""
        kinds = ops.embedding(ops.clamp(labels, 0), self.point_embeddings)
        places = fourier((points + 0.5) / self._image_size, self.fourier_matrix).to(kinds.dtype)
        return ops.where((labels >= 0)[..., None], places + kinds, self.not_a_point_embed)

    def dense(self, masks: Tensor, given: Tensor) -> Tensor:
        """`(P, 1, 4h, 4w)` logits and a flag `(P,)` for those that count to `(P, C, h, w)`."""
        absent = self.no_mask_embed.reshape(1, -1, 1, 1)
        return ops.where(given.reshape(-1, 1, 1, 1) > 0, self.mask_downscaling(masks), absent)


class TwoWayBlock(Layer):
    """Tokens look at each other and at the image, then the image at the tokens."""

    def __init__(self, first: bool) -> None:
        self._first = first
        self.self_attn = Attention(WIDTH, WIDTH, 8)
        self.norm1 = LayerNorm(WIDTH)
        self.cross_attn_token_to_image = Attention(WIDTH, WIDTH // 2, 8)
        self.norm2 = LayerNorm(WIDTH)
        self.mlp = Perceptron(WIDTH, 2048, WIDTH)
        self.norm3 = LayerNorm(WIDTH)
        self.norm4 = LayerNorm(WIDTH)
        self.cross_attn_image_to_token = Attention(WIDTH, WIDTH // 2, 8)

    def forward(self, tokens: Tensor, image: Tensor, prompts: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
        """`(P, N, C)` tokens and `(P or 1, H * W, C)` image, each with its encoding of places."""
        if self._first:
            tokens = self.self_attn(tokens, tokens, tokens)
        else:
            placed = tokens + prompts
            tokens = tokens + self.self_attn(placed, placed, tokens)
        tokens = self.norm1(tokens)
        keys = image + grid
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + prompts, keys, image))
        tokens = self.norm3(tokens + self.mlp(tokens))
        image = self.norm4(self._look_back(keys, tokens + prompts, tokens) + image)
        return tokens, image

    def _look_back(self, image: Tensor, keys: Tensor, tokens: Tensor) -> Tensor:
        attention = self.cross_attn_image_to_token
        query = attention.split(attention.q_proj(image))  # once for all prompts, while the image is the same
        query = query.expand(tokens.shape[0], *query.shape[1:])
        return attention.attend(
            query, attention.split(attention.k_proj(keys)), attention.split(attention.v_proj(tokens))
        )


class TwoWayTransformer(Layer):
    """Two such blocks, and a last look of the tokens at the image."""

    def __init__(self) -> None:
        self.layers = Layers([TwoWayBlock(first=True), TwoWayBlock(first=False)])
        self.final_attn_token_to_image = Attention(WIDTH, WIDTH // 2, 8)
        self.norm_final_attn = LayerNorm(WIDTH)

    def forward(self, prompts: Tensor, image: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens `(P, N, C)` and image `(P or 1, H * W, C)` to both, refined."""
        tokens = prompts
        for layer in self.layers:
            tokens, image = layer(tokens, image, prompts, grid)
        seen = self.final_attn_token_to_image(tokens + prompts, image + grid, image)
        return self.norm_final_attn(tokens + seen), image


class MaskDecoder(Layer):
    """Prompts and an image's maps to masks.

    Args:
        image_size: Side of the encoder's square input in pixels.
    """

    def __init__(self, image_size: int) -> None:
        fine, middle = HIGH_RESOLUTION
        self._cells = image_size // 16
        self.prompts = PromptEncoder(image_size)
        self.transformer = TwoWayTransformer()
        self.obj_score_token = parameter(1, WIDTH)
        self.iou_token = parameter(1, WIDTH)
        self.mask_tokens = parameter(MASKS, WIDTH)
        self.output_upscaling = Sequential(
            ConvTranspose2d(WIDTH, middle, 2, 2), ChannelNorm(middle), Gelu(), ConvTranspose2d(middle, fine, 2, 2)
        )  # fmt: skip
        self.output_hypernetworks_mlps = Layers(Perceptron(WIDTH, WIDTH, WIDTH, fine) for _ in range(MASKS))
        self.iou_prediction_head = Perceptron(WIDTH, WIDTH, WIDTH, MASKS, sigmoid=True)
        self.pred_obj_score_head = Perceptron(WIDTH, WIDTH, WIDTH, 1)

    def decode(
        self, maps: tuple[Tensor, Tensor, Tensor], sparse: Tensor, dense: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Decodes encoded prompts.

        Args:
            maps: Embedding `(P or 1, 256, h, w)` and the two maps of high resolution.
            sparse: `(P, N, C)`.
            dense: `(P or 1, C, h, w)`.

        Returns:
            Logits `(P, 4, 4h, 4w)`, estimated IoU `(P, 4)`, presence logits `(P, 1)` and mask tokens `(P, 4, C)`.
        """
        embedding, fine, middle = maps
        image = (embedding + dense).flatten(2).transpose(1, 2)
        own = ops.concat((self.obj_score_token, self.iou_token, self.mask_tokens))
        tokens = ops.concat((own[None].expand(sparse.shape[0], -1, -1), sparse), 1)
        tokens, image = self.transformer(tokens, image, self.prompts.grid)
        count = image.shape[0]
        image = image.transpose(1, 2).reshape(count, WIDTH, self._cells, self._cells)
        up, norm, act, last = self.output_upscaling
        large = ops.gelu(last(act(norm(up(image) + middle))) + fine)
        found = tokens[:, 2 : 2 + MASKS]
        weights = ops.stack([mlp(found[:, index]) for index, mlp in enumerate(self.output_hypernetworks_mlps)], 1)
        side = 4 * self._cells
        logits = (weights @ large.flatten(2)).reshape(count, MASKS, side, side)
        return logits, self.iou_prediction_head(tokens[:, 1]), self.pred_obj_score_head(tokens[:, 0]), found

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
        """Decodes P prompts on one image.

        Args:
            embedding: `(1, 256, h, w)`.
            high_res_0: `(1, 32, 4h, 4w)`.
            high_res_1: `(1, 64, 2h, 2w)`.
            points: `(P, N, 2)` x, y in network pixels; a box is two points.
            labels: int64 `(P, N)`: 0 negative, 1 positive, 2 and 3 a box's corners, -1 none.
            masks: `(P, 1, 4h, 4w)` logits of earlier masks.
            has_mask: `(P,)`: 0 where `masks` is to be ignored.

        Returns:
            Logits `(P, 4, 4h, 4w)`, estimated IoU `(P, 4)` and presence logits `(P, 1)`.
        """
        sparse = self.prompts.sparse(points, labels)
        dense = self.prompts.dense(masks, has_mask)
        logits, scores, presence, _ = self.decode((embedding, high_res_0, high_res_1), sparse, dense)
        return logits, scores, presence
