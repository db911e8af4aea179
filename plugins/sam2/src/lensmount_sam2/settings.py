"""What a Hugging Face folder says of a SAM 2: each setting is read, or must be what is built."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lensmount.errors import UnsupportedModelError
from lensmount.specs import Preprocess
from lensmount_sam2.geometry import POINTERS, STRIDE, Geometry
from lensmount_vision.models.processors import ImageProcessor, read_image_processor
from lensmount_vision.models.settings import (
    HARMLESS,
    READ,
    TRANSFORMERS,
    Only,
    Table,
    check_settings,
)

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: How pictures become the input, before the files next to the weights are asked.
PREPROCESS = Preprocess(size=None, resize="stretch", resample_dtype="float32", antialias=True, mean=MEAN, std=STD)
_EPSILON = 1e-6
_WIDTH, _MEMORY, _HIDDEN = 256, 64, 2048


def check(config: Mapping[str, Any], geometry: Geometry, side: int, where: str) -> tuple[str, ...]:
    """Goes through a `config.json` of Sam2Model or Sam2VideoModel.

    Args:
        config: Its contents.
        geometry: What the tensors show.
        side: Side of the input in pixels, as the file has it.
        where: Names the file in messages.

    Returns:
        Keys that are not known.

    Raises:
        UnsupportedModelError: Naming a setting that is not what is built.
        ModelFileError: It is malformed.
    """
    usual: Table = {**TRANSFORMERS, "hidden_act": Only(("gelu",)), "layer_norm_eps": Only((_EPSILON,))}
    square = Only((side, [side, side]))
    trunk: Table = {
        **usual,
        # `read_config` and `read_geometry` compare these with the tensors.
        **dict.fromkeys(
            ("hidden_size", "blocks_per_stage", "embed_dim_per_stage", "num_attention_heads_per_stage",
             "window_size_per_stage", "global_attention_blocks", "window_positional_embedding_background_size"),
            READ,
        ),
        "num_attention_heads": Only((geometry.trunk.heads,)),
        "num_channels": Only((3,)),
        "image_size": square,
        "patch_kernel_size": Only(([7, 7],)),
        "patch_stride": Only(([4, 4],)),
        "patch_padding": Only(([3, 3],)),
        "query_stride": Only(([2, 2],)),
        "num_query_pool_stages": Only((3,)),
        "mlp_ratio": Only((4,)),
    }  # fmt: skip
    vision: Table = {
        **usual,
        "backbone_config": trunk,
        "backbone_channel_list": Only((list(reversed(geometry.trunk.widths)),)),
        "backbone_feature_sizes": Only(([[side // 4] * 2, [side // 8] * 2, [side // 16] * 2],)),
        **dict.fromkeys(("fpn_hidden_size", "fpn_top_down_levels", "num_feature_levels"), READ),
        "fpn_kernel_size": Only((1,)),
        "fpn_stride": Only((1,)),
        "fpn_padding": Only((0,)),
    }
    prompts: Table = {
        **usual,
        "hidden_size": Only((_WIDTH,)),
        "image_size": square,
        "patch_size": Only((STRIDE,)),
        "mask_input_channels": Only((16,)),
        "num_point_embeddings": Only((4,)),
        "scale": HARMLESS,  # of the random matrix, which is among the tensors
    }
    decoder: Table = {
        **usual,
        "hidden_size": Only((_WIDTH,)),
        "mlp_dim": Only((_HIDDEN,)),
        "num_hidden_layers": Only((2,)),
        "num_attention_heads": Only((8,)),
        "attention_downsample_rate": Only((2,)),
        "num_multimask_outputs": Only((3,)),
        "iou_head_depth": Only((3,)),
        "iou_head_hidden_dim": Only((_WIDTH,)),
        "dynamic_multimask_via_stability": Only((True,)),
        "dynamic_multimask_stability_delta": Only((0.05,)),
        "dynamic_multimask_stability_thresh": Only((0.98,)),
    }
    whole: Table = {
        **TRANSFORMERS,
        "vision_config": vision,
        "prompt_encoder_config": prompts,
        "mask_decoder_config": decoder,
        "image_size": square,
        **_video(geometry, side),
    }
    return check_settings(config, whole, where)


def _video(geometry: Geometry, side: int) -> Table:
    """The rules of what tracking adds; without its tensors nothing tracks, and they say nothing."""
    cells = side // STRIDE
    rules: Table = {
        "num_maskmem": Only((geometry.memories,)),
        "sigmoid_scale_for_mem_enc": Only((20,)),
        "sigmoid_bias_for_mem_enc": Only((-10,)),
        "enable_occlusion_spatial_embedding": Only((geometry.occlusion,)),
        "enable_temporal_pos_encoding_for_object_pointers": Only((geometry.pointer_time,)),
        "multimask_output_in_sam": Only((True,)),
        "multimask_min_pt_num": Only((0,)),
        "multimask_max_pt_num": Only((1,)),
        "multimask_output_for_tracking": Only((True,)),
        "max_object_pointers_in_encoder": Only((POINTERS,)),
        # Of the call: `Sam2.track(max_conditioning_frames=)`; -1 is for all.
        "max_cond_frame_num": Only((-1,)),
        "memory_attention_hidden_size": Only((_WIDTH,)),
        "memory_attention_num_layers": Only((4,)),
        "memory_attention_num_attention_heads": Only((1,)),
        "memory_attention_downsample_rate": Only((1,)),
        "memory_attention_feed_forward_hidden_size": Only((_HIDDEN,)),
        "memory_attention_feed_forward_hidden_act": Only(("relu",)),
        "memory_attention_dropout": HARMLESS,
        "memory_attention_rope_dropout": HARMLESS,
        "memory_attention_rope_feat_sizes": Only(([cells, cells],)),
        "memory_attention_rope_theta": Only((10_000,)),
        "rope_theta": Only((10_000,)),
        "rope_parameters": {"rope_theta": Only((10_000,)), "rope_type": Only(("axial", "default"))},
        "memory_encoder_hidden_size": Only((_WIDTH,)),
        "memory_encoder_output_channels": Only((_MEMORY,)),
        "mask_downsampler_embed_dim": Only((_WIDTH,)),
        "mask_downsampler_kernel_size": Only((3,)),
        "mask_downsampler_stride": Only((2,)),
        "mask_downsampler_padding": Only((1,)),
        "mask_downsampler_total_stride": Only((STRIDE,)),
        "mask_downsampler_hidden_act": Only(("gelu",)),
        "memory_fuser_num_layers": Only((2,)),
        "memory_fuser_embed_dim": Only((_WIDTH,)),
        "memory_fuser_intermediate_dim": Only((4 * _WIDTH,)),
        "memory_fuser_kernel_size": Only((7,)),
        "memory_fuser_padding": Only((3,)),
        "memory_fuser_layer_scale_init_value": HARMLESS,
        "memory_fuser_hidden_act": Only(("gelu",)),
    }
    return rules if geometry.tracking else dict.fromkeys(rules, HARMLESS)


def preprocess_of(files: Mapping[str, Path], side: int | None) -> tuple[Preprocess, tuple[str, ...]]:
    """How pictures become the input, as the files of an image processor say where there are some.

    Args:
        files: The package's files.
        side: Side of the input that the weights were made for; None where it is not known.

    Returns:
        The preprocessing, without a size, and the keys that are not known.

    Raises:
        ModelFileError: A file is malformed.
        UnsupportedModelError: It prepares pictures in another way than SAM 2.
    """
    processor = read_image_processor(files)
    spec, unknown = _spec(processor, side)
    video = processor.beyond.get("video_processor")
    if isinstance(video, dict):
        frames, more = _spec(ImageProcessor(video, processor.where, {}), side)
        if frames != spec:
            raise UnsupportedModelError(
                f"{processor.where} prepares frames in another way than pictures",
                found="a video_processor with other mean, std or scale",
                expected="the same as image_processor",
            )
        unknown += tuple(f"video_processor.{name}" for name in more)
    rules: Table = {
        "target_size": READ if side is None else Only((side,)),
        "point_pad_value": HARMLESS,
        "processor_class": HARMLESS,
        "video_processor": READ,
    }
    return spec, unknown + check_settings(processor.beyond, rules, processor.where)


def _spec(processor: ImageProcessor, side: int | None) -> tuple[Preprocess, tuple[str, ...]]:
    unknown = processor.check(
        ("Sam2ImageProcessor", "Sam2VideoVideoProcessor", "Sam2VideoProcessor"),
        {
            "size": READ,
            "resample": Only((2,)),
            **dict.fromkeys(("mask_size", "mask_pad_size", "pad_size", "crop_size", "video_processor_type"), HARMLESS),
            # Of reading videos, which is done here as the caller says.
            **dict.fromkeys(("do_sample_frames", "fps", "num_frames", "video_metadata"), HARMLESS),
        },
    )
    sides = processor.sides("size")
    if sides is not None and side is not None and sides != (side, side):
        raise processor.refuse_size("size", f"{side}x{side}, as config.json has it")
    return processor.values(PREPROCESS), unknown
