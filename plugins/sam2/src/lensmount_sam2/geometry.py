"""Sizes of the networks: read from tensors where they show, from a table of the released networks where they do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lensmount.errors import UnsupportedModelError

IMAGE_SIZE = 1024
STRIDE = 16
"""Pixels per cell of the image embedding; low-resolution masks have one value per 4 pixels."""
POINTERS = 16
"""Frames that object pointers reach back, the present one counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trunk:
    """Hiera (arXiv 2306.00989): four stages of windowed attention, each halving the map and doubling the width.

    Attributes:
        width: Channels of the first stage.
        heads: Attention heads of the first stage; doubled from stage to stage.
        blocks: Blocks of each stage.
        windows: Window sides of each stage; a stage's first block still has the one before.
        global_blocks: Blocks that attend over the whole map.
        background: Size of the position encoding that is stretched over the map.
    """

    width: int
    heads: int
    blocks: tuple[int, ...]
    windows: tuple[int, ...]
    global_blocks: tuple[int, ...]
    background: tuple[int, int]

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each stage."""
        return tuple(self.width << stage for stage in range(len(self.blocks)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """What a checkpoint's networks look like.

    Attributes:
        trunk: Of the image encoder.
        tracking: Whether the parts for video are there.
        occlusion: 2.1: memory of a frame without the object is marked as such.
        pointer_time: 2.1: object pointers carry how long ago they were made.
        memories: Frames that the memory reaches back.
    """

    trunk: Trunk
    tracking: bool = True
    occlusion: bool = False
    pointer_time: bool = False
    memories: int = 7

    @property
    def version(self) -> str:
        """`2.1` or `2`, by the parts that 2.1 added; `2` where only the parts for images are there."""
        return "2.1" if self.pointer_time or self.occlusion else "2"


_WINDOWS = (8, 4, 14, 7)
#: (width, blocks) -> name, heads, windows, global blocks: what tensors do not show. sam2's configuration files.
RELEASED: dict[tuple[int, tuple[int, ...]], tuple[str, int, tuple[int, ...], tuple[int, ...]]] = {
    (96, (1, 2, 7, 2)): ("tiny", 1, _WINDOWS, (5, 7, 9)),
    (96, (1, 2, 11, 2)): ("small", 1, _WINDOWS, (7, 10, 13)),
    (112, (2, 3, 16, 3)): ("b_plus", 2, _WINDOWS, (12, 16, 20)),
    (144, (2, 6, 36, 4)): ("large", 2, (8, 4, 16, 8), (23, 33, 43)),
}

_BLOCK = "image_encoder.trunk.blocks.{}.attn.proj.weight"


def read_geometry(shapes: Mapping[str, Sequence[int]], trunk: Trunk | None = None) -> Geometry:
    """The geometry of a checkpoint.

    Args:
        shapes: Shapes of its tensors under the official keys.
        trunk: What a configuration file says of the trunk; None to infer it.

    Raises:
        UnsupportedModelError: The trunk is none of the released ones, or the configuration contradicts the tensors.
    """
    width, blocks, background = _stages(shapes)
    if trunk is None:
        known = RELEASED.get((width, blocks))
        if known is None:
            raise UnsupportedModelError(
                "the image encoder is none of the released ones, and its windows and heads do not show in its tensors",
                found=f"width {width}, blocks {blocks}",
                expected="; ".join(f"{name}: {w}, {b}" for (w, b), (name, *_) in RELEASED.items()),
                fix="load the folder with the config.json that belongs to it",
            )
        _, heads, windows, global_blocks = known
        trunk = Trunk(
            width=width,
            heads=heads,
            blocks=blocks,
            windows=windows,
            global_blocks=global_blocks,
            background=background,
        )
    elif (trunk.width, trunk.blocks, trunk.background) != (width, blocks, background):
        raise UnsupportedModelError(
            "the configuration and the tensors contradict each other",
            found=f"tensors: width {width}, blocks {blocks}, positions {background}",
            expected=f"width {trunk.width}, blocks {trunk.blocks}, positions {trunk.background}",
        )
    tracking = "memory_attention.norm.weight" in shapes
    return Geometry(
        trunk=trunk,
        tracking=tracking,
        occlusion=tracking and "no_obj_embed_spatial" in shapes,
        pointer_time=tracking and "obj_ptr_tpos_proj.weight" in shapes,
        memories=int(shapes["maskmem_tpos_enc"][0]) if tracking else 7,
    )


def variant(shapes: Mapping[str, Sequence[int]]) -> str | None:
    """`tiny`, `small`, `b_plus` or `large`; None for another size."""
    width, blocks, _ = _stages(shapes)
    return RELEASED[width, blocks][0] if (width, blocks) in RELEASED else None


def _stages(shapes: Mapping[str, Sequence[int]]) -> tuple[int, tuple[int, ...], tuple[int, int]]:
    position = shapes["image_encoder.trunk.pos_embed"]
    width, counts, index = int(position[1]), [0, 0, 0, 0], 0
    while _BLOCK.format(index) in shapes:
        stage = (int(shapes[_BLOCK.format(index)][0]) // width).bit_length() - 1
        if not 0 <= stage < 4:
            raise UnsupportedModelError("the image encoder has more than four stages", found=_BLOCK.format(index))
        counts[stage] += 1
        index += 1
    return width, tuple(counts), (int(position[2]), int(position[3]))
