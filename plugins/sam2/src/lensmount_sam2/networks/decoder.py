"""The mask decoder: prompts and an embedding to masks (SAM's decoder, with the maps of high resolution)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lensmount_sam2.networks.encoder import HIGH_RESOLUTION, WIDTH
from lensmount_sam2.networks.layers import Attention, ChannelNorm, Perceptron
from lensmount_sam2.networks.positions import fourier

MASKS = 4
"""Masks that come out: one for a prompt without doubt, three for one with."""


class PromptEncoder(nn.Module):
    """Points and an earlier mask to what the decoder attends to."""

    fourier_matrix: Tensor
    grid: Tensor

    def __init__(self, image_size: int) -> None:
        super().__init__()
        self._image_size = image_size
        self._cells = image_size // 16
        self.register_buffer("fourier_matrix", torch.zeros(2, WIDTH // 2))
        # Rows: negative and positive point, a box's first and second corner.
        self.point_embeddings = nn.Parameter(torch.zeros(4, WIDTH))
        self.not_a_point_embed = nn.Parameter(torch.zeros(1, WIDTH))
        self.no_mask_embed = nn.Parameter(torch.zeros(1, WIDTH))
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, 4, 2, 2), ChannelNorm(4), nn.GELU(), nn.Conv2d(4, 16, 2, 2), ChannelNorm(16), nn.GELU(),
            nn.Conv2d(16, WIDTH, 1),
        )  # fmt: skip
        self.register_buffer("grid", torch.zeros(1, self._cells**2, WIDTH), persistent=False)

    def prepare(self) -> None:
        """Works out the encoding of the grid once the Fourier matrix is loaded."""
        steps = (torch.arange(self._cells, dtype=torch.float32) + 0.5) / self._cells
        rows, columns = torch.meshgrid(steps, steps, indexing="ij")
        self.grid = fourier(torch.stack((columns, rows), dim=2).reshape(1, -1, 2), self.fourier_matrix.float())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PromptEncoder:
        # Places stay in float32 whatever the precision: bfloat16 would round a point by pixels.
        matrix = self.fourier_matrix
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.fourier_matrix = matrix.to(self.fourier_matrix.device)
        return self

    def sparse(self, points: Tensor, labels: Tensor) -> Tensor:
        """float32 `(P, N, 2)` network pixels and `(P, N)` labels (-1 for no point) to `(P, N, C)`."""
        kinds = self.point_embeddings[labels.clamp(min=0)]
        places = fourier((points + 0.5) / self._image_size, self.fourier_matrix).to(kinds.dtype)
        return torch.where((labels >= 0).unsqueeze(2), places + kinds, self.not_a_point_embed)

    def dense(self, masks: Tensor, given: Tensor) -> Tensor:
        """`(P, 1, 4h, 4w)` logits and a flag `(P,)` for those that count to `(P, C, h, w)`."""
        absent = self.no_mask_embed.reshape(1, -1, 1, 1)
        return torch.where(given.reshape(-1, 1, 1, 1) > 0, self.mask_downscaling(masks), absent)


class TwoWayBlock(nn.Module):
    """Tokens look at each other and at the image, then the image at the tokens."""

    def __init__(self, first: bool) -> None:
        super().__init__()
        self._first = first
        self.self_attn = Attention(WIDTH, WIDTH, 8)
        self.norm1 = nn.LayerNorm(WIDTH)
        self.cross_attn_token_to_image = Attention(WIDTH, WIDTH // 2, 8)
        self.norm2 = nn.LayerNorm(WIDTH)
        self.mlp = Perceptron(WIDTH, 2048, WIDTH)
        self.norm3 = nn.LayerNorm(WIDTH)
        self.norm4 = nn.LayerNorm(WIDTH)
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
        image = self.norm4(image + self._look_back(keys, tokens + prompts, tokens))
        return tokens, image

    def _look_back(self, image: Tensor, keys: Tensor, tokens: Tensor) -> Tensor:
        attention = self.cross_attn_image_to_token
        query = attention.split(attention.q_proj(image))  # once for all prompts, while the image is the same
        query = query.expand(tokens.shape[0], *query.shape[1:])
        return attention.attend(
            query, attention.split(attention.k_proj(keys)), attention.split(attention.v_proj(tokens))
        )


class TwoWayTransformer(nn.Module):
    """Two such blocks, and a last look of the tokens at the image."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([TwoWayBlock(first=True), TwoWayBlock(first=False)])
        self.final_attn_token_to_image = Attention(WIDTH, WIDTH // 2, 8)
        self.norm_final_attn = nn.LayerNorm(WIDTH)

    def forward(self, prompts: Tensor, image: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens `(P, N, C)` and image `(P or 1, H * W, C)` to both, refined."""
        tokens = prompts
        for layer in self.layers:
            tokens, image = layer(tokens, image, prompts, grid)
        seen = self.final_attn_token_to_image(tokens + prompts, image + grid, image)
        return self.norm_final_attn(tokens + seen), image


class MaskDecoder(nn.Module):
    """Prompts and an image's maps to masks.

    Args:
        image_size: Side of the encoder's square input in pixels.
    """

    def __init__(self, image_size: int) -> None:
        super().__init__()
        fine, middle = HIGH_RESOLUTION
        self._cells = image_size // 16
        self.prompts = PromptEncoder(image_size)
        self.transformer = TwoWayTransformer()
        self.obj_score_token = nn.Parameter(torch.zeros(1, WIDTH))
        self.iou_token = nn.Parameter(torch.zeros(1, WIDTH))
        self.mask_tokens = nn.Parameter(torch.zeros(MASKS, WIDTH))
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(WIDTH, middle, 2, 2), ChannelNorm(middle), nn.GELU(),
            nn.ConvTranspose2d(middle, fine, 2, 2),
        )  # fmt: skip
        self.output_hypernetworks_mlps = nn.ModuleList(Perceptron(WIDTH, WIDTH, WIDTH, fine) for _ in range(MASKS))
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
        own = torch.cat((self.obj_score_token, self.iou_token, self.mask_tokens))
        tokens = torch.cat((own.unsqueeze(0).expand(sparse.shape[0], -1, -1), sparse), dim=1)
        tokens, image = self.transformer(tokens, image, self.prompts.grid)
        image = image.transpose(1, 2).reshape(-1, WIDTH, self._cells, self._cells)
        up, norm, act, last = self.output_upscaling
        large = last(act(norm(up(image) + middle))) + fine
        large = F.gelu(large)
        found = tokens[:, 2 : 2 + MASKS]
        weights = torch.stack([mlp(found[:, index]) for index, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1)
        side = 4 * self._cells
        logits = (weights @ large.flatten(2)).reshape(-1, MASKS, side, side)
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
