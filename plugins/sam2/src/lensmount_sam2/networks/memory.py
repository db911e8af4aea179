"""What video adds: frames and their masks to memories, and a new frame that attends to them. It runs in torch alone."""

from __future__ import annotations

from lensmount_networks import Layer, ops
from lensmount_networks.layers import (
    Conv2d,
    LayerNorm,
    Layers,
    Linear,
    Sequential,
    Tensor,
    constant,
    parameter,
)
from lensmount_sam2.geometry import Geometry
from lensmount_sam2.networks.encoder import WIDTH
from lensmount_sam2.networks.layers import Attention, ChannelNorm, Gelu, Perceptron
from lensmount_sam2.networks.positions import rotate, rotations, sine_grid, sine_time

MEMORY = 64
"""Channels of a memory; an object pointer counts as `WIDTH / MEMORY` tokens of it."""
MASK_SCALE, MASK_BIAS = 20.0, -10.0


class RotaryAttention(Attention):
    """Attention of one head whose queries and keys are turned by their place in the map."""

    def __init__(self, source_width: int | None = None) -> None:
        super().__init__(WIDTH, WIDTH, 1, source_width)

    def forward(  # type: ignore[override]  # it needs the turns as well
        self, query: Tensor, key: Tensor, value: Tensor, turns: tuple[Tensor, Tensor], free: int = 0
    ) -> Tensor:
        """Attends.

        Args:
            query: `(B, L, C)`, one per cell of the map.
            key: `(B, S, C')`: maps of `L` cells one behind the other, then `free` tokens without a place.
            value: As `key`.
            turns: From `rotations`.
            free: Tokens at the end of `key` that have no place.
        """
        queries = rotate(self.split(self.q_proj(query)), *turns)
        keys = self.split(self.k_proj(key))
        placed = keys.shape[2] - free
        frames = placed // query.shape[1]
        cosine, sine = (turn.repeat(frames, 1) for turn in turns)
        turned = rotate(keys[:, :, :placed], cosine, sine)
        keys = ops.concat((turned, keys[:, :, placed:]), 2) if free else turned
        return self.attend(queries, keys, self.split(self.v_proj(value)))


class MemoryLayer(Layer):
    """The frame looks at itself, then at its memories."""

    def __init__(self) -> None:
        self.self_attn = RotaryAttention()
        self.cross_attn_image = RotaryAttention(MEMORY)
        self.linear1 = Linear(WIDTH, 2048)
        self.linear2 = Linear(2048, WIDTH)
        self.norm1 = LayerNorm(WIDTH)
        self.norm2 = LayerNorm(WIDTH)
        self.norm3 = LayerNorm(WIDTH)

    def forward(self, x: Tensor, memory: Tensor, placed: Tensor, turns: tuple[Tensor, Tensor], free: int) -> Tensor:
        """`(B or 1, L, C)` frame, `(B, S, M)` memory with and without its encoding of places, to `(B, L, C)`."""
        own = self.norm1(x)
        x = x + self.self_attn(own, own, own, turns)
        query = self.norm2(x).expand(memory.shape[0], -1, -1)
        x = x + self.cross_attn_image(query, placed, memory, turns, free)
        return x + self.linear2(ops.relu(self.linear1(self.norm3(x))))


class MemoryAttention(Layer):
    """Four such layers."""

    def __init__(self, layers: int = 4) -> None:
        self.layers = Layers(MemoryLayer() for _ in range(layers))
        self.norm = LayerNorm(WIDTH)

    def forward(self, x: Tensor, memory: Tensor, placed: Tensor, turns: tuple[Tensor, Tensor], free: int) -> Tensor:
        """See `MemoryLayer`."""
        for layer in self.layers:
            x = layer(x, memory, placed, turns, free)
        return self.norm(x)


class FuserBlock(Layer):
    """A ConvNeXt block (arXiv 2201.03545)."""

    def __init__(self) -> None:
        self.dwconv = Conv2d(WIDTH, WIDTH, 7, padding=3, groups=WIDTH)
        self.norm = ChannelNorm(WIDTH)
        self.pwconv1 = Linear(WIDTH, 4 * WIDTH)
        self.pwconv2 = Linear(4 * WIDTH, WIDTH)
        self.gamma = parameter(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape out."""
        inner = self.norm(self.dwconv(x)).permute(0, 2, 3, 1)
        inner = self.gamma * self.pwconv2(ops.gelu(self.pwconv1(inner)))
        return x + inner.permute(0, 3, 1, 2)


class Fuser(Layer):
    """Blocks one after the other, under the checkpoint's name for them."""

    def __init__(self, blocks: int = 2) -> None:
        self.layers = Layers(FuserBlock() for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape out."""
        for layer in self.layers:
            x = layer(x)
        return x


class MaskDownsampler(Layer):
    """Masks at input size to maps at 16 pixels per cell."""

    def __init__(self) -> None:
        parts: list[Layer] = []
        for inner, outer in ((1, 4), (4, 16), (16, 64), (64, 256)):
            parts += [Conv2d(inner, outer, 3, 2, 1), ChannelNorm(outer), Gelu()]
        self.encoder = Sequential(*parts, Conv2d(256, WIDTH, 1))

    def forward(self, masks: Tensor) -> Tensor:
        """`(B, 1, S, S)` to `(B, 256, S/16, S/16)`."""
        return self.encoder(masks)


class MemoryEncoder(Layer):
    """A frame's map and an object's mask to a memory."""

    def __init__(self) -> None:
        self.mask_downsampler = MaskDownsampler()
        self.pix_feat_proj = Conv2d(WIDTH, WIDTH, 1)
        self.fuser = Fuser()
        self.out_proj = Conv2d(WIDTH, MEMORY, 1)

    def forward(self, embedding: Tensor, masks: Tensor) -> Tensor:
        """`(1, 256, h, w)` and `(B, 1, S, S)` to `(B, 64, h, w)`."""
        mixed = self.pix_feat_proj(embedding) + self.mask_downsampler(masks)
        return self.out_proj(self.fuser(mixed))


class Memory(Layer):
    """All that tracking adds to the image encoder and the mask decoder.

    Args:
        geometry: What the checkpoint has.
        image_size: Side of the encoder's square input in pixels.
    """

    def __init__(self, geometry: Geometry, image_size: int) -> None:
        cells = image_size // 16
        self._image_size = image_size
        self.memory_attention = MemoryAttention()
        self.memory_encoder = MemoryEncoder()
        self.maskmem_tpos_enc = parameter(geometry.memories, 1, 1, MEMORY)
        self.no_obj_ptr = parameter(1, WIDTH)
        self.mask_downsample = Conv2d(1, 1, 4, 4)
        self.obj_ptr_proj = Perceptron(WIDTH, WIDTH, WIDTH, WIDTH)
        self.no_obj_embed_spatial = parameter(1, MEMORY) if geometry.occlusion else None
        self.obj_ptr_tpos_proj = Linear(WIDTH, MEMORY) if geometry.pointer_time else None
        cosines, sines = rotations(cells, cells, WIDTH)
        self.frame_places = constant(sine_grid(cells, cells, WIDTH)[None])
        self.memory_places = constant(sine_grid(cells, cells, MEMORY))
        self.cosines, self.sines = constant(cosines), constant(sines)

    @property
    def reach(self) -> int:
        """Memories that count: the conditioning ones, and this many minus 1 of the last frames."""
        return int(self.maskmem_tpos_enc.shape[0])

    def condition(
        self, embedding: Tensor, memories: Tensor, ages: list[int], pointers: Tensor, times: Tensor
    ) -> Tensor:
        """Lets a frame attend to the memories of each of B objects.

        Args:
            embedding: `(1, 256, h, w)`, as `ImageEncoder.maps` gives it.
            memories: `(B, M, h * w, 64)`.
            ages: Frames since each memory; 0 for the conditioning ones, whenever they were.
            pointers: `(B, N, 256)`; N may be 0.
            times: float32 `(N,)`: frames since each pointer, over the longest that counts.

        Returns:
            `(B, 256, h, w)`.
        """
        count, dtype = memories.shape[0], embedding.dtype
        frame = embedding.flatten(2).transpose(1, 2) + 0.1 * self.frame_places
        age = self.maskmem_tpos_enc[[a - 1 for a in ages], 0]  # the last row is for conditioning frames
        places = (self.memory_places + age).flatten(0, 1).expand(count, -1, -1)
        tokens = pointers.reshape(count, -1, MEMORY).to(dtype)
        split = WIDTH // MEMORY
        if self.obj_ptr_tpos_proj is None:
            when = tokens.new_zeros(count, tokens.shape[1], MEMORY)
        else:
            waves = self.obj_ptr_tpos_proj(sine_time(times, WIDTH).to(dtype))
            when = waves.repeat_interleave(split, dim=0).expand(count, -1, -1)
        memory = ops.concat((memories.flatten(1, 2).to(dtype), tokens), 1)
        placed = memory + ops.concat((places, when), 1)
        turns = (self.cosines, self.sines)
        seen = self.memory_attention(frame, memory, placed, turns, tokens.shape[1])
        return seen.transpose(1, 2).reshape(count, *embedding.shape[1:])

    def remember(self, embedding: Tensor, logits: Tensor, presence: Tensor, prompted: bool) -> Tensor:
        """Encodes what was found on a frame.

        Args:
            embedding: `(1, 256, h, w)`, as `ImageEncoder.maps` gives it.
            logits: `(B, 1, 4h, 4w)`.
            presence: `(B, 1)` logits of the objects' being there.
            prompted: Whether a prompt made the masks: then they count as certain.

        Returns:
            bfloat16 `(B, h * w, 64)`, as the reference keeps it, on the CPU as well.
        """
        side = (self._image_size, self._image_size)
        large = ops.resize(logits.float(), side, mode="bilinear")
        share = (large > 0).float() if prompted else large.sigmoid()
        memory = self.memory_encoder(embedding, (share * MASK_SCALE + MASK_BIAS).to(embedding.dtype))
        if self.no_obj_embed_spatial is not None:
            absent = (presence <= 0).to(memory.dtype)[..., None, None]
            memory = memory + absent * self.no_obj_embed_spatial[..., None, None]
        return ops.cast(memory.flatten(2).transpose(1, 2), "bfloat16")

    def pointer(self, token: Tensor, presence: Tensor) -> Tensor:
        """`(B, 256)` mask tokens and `(B, 1)` presence logits to object pointers `(B, 256)`."""
        return ops.where(presence > 0, self.obj_ptr_proj(token), self.no_obj_ptr)
