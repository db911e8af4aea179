"""What RF-DETR's files say of themselves: each setting is read, or must be what is built.

`args` are those of the authors' checkpoints, a configuration that of a Hugging Face folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lensmount.specs import Preprocess
from lensmount_rfdetr.layout import Layout
from lensmount_vision.models.processors import read_image_processor
from lensmount_vision.models.settings import HARMLESS, READ, TRANSFORMERS, Only, Rule, Table, check_settings

#: The training transform: squashed to the input without antialias, ImageNet's mean and deviation.
PREPROCESS = Preprocess(
    size=None,
    resize="stretch",
    interpolation="bilinear",
    antialias=False,
    resample_dtype="float32",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
#: Of training, evaluation, logging and data (rfdetr 1.1 to 1.11): they change no result of trained weights.
_TRAINING = (
    "accelerator", "amp", "amp_dtype", "aug_config", "augmentation_backend", "auto_batch_ema_headroom",
    "auto_batch_max_targets_per_image", "auto_batch_target_effective", "aux_loss", "batch_size", "bbox_loss_coef",
    "best_model_metric", "callbacks", "checkpoint_interval", "class_names", "clearml", "clip_max_norm",
    "cls_loss_coef", "coco_path", "compact_train_metrics", "compile", "compute_test_loss", "compute_train_metrics",
    "compute_val_loss", "cuda_graphs", "cutoff_epoch", "dataset_dir", "dataset_file", "device", "devices",
    "dist_backend", "dist_url", "distributed", "do_benchmark", "dont_save_weights", "do_random_resize_via_padding",
    "drop_mode", "drop_path", "drop_schedule", "dropout", "early_stopping", "early_stopping_min_delta",
    "early_stopping_patience", "early_stopping_use_ema", "ema_decay", "ema_tau", "ema_update_interval", "epochs",
    "eval", "eval_backend", "eval_base_model", "eval_batch_size", "eval_ema_only", "eval_interval",
    "eval_masks_head_resolution", "eval_max_dets", "expanded_scales", "focal_alpha", "focal_loss",
    "force_no_pretrain", "fp16_eval", "freeze_batch_norm", "freeze_encoder", "fused_optimizer", "giou_loss_coef",
    "gpu", "grad_accum_steps", "gradient_checkpointing", "group_detr", "ia_bce_loss", "keypoint_findable_loss_coef",
    "keypoint_flip_pairs", "keypoint_l1_loss_coef", "keypoint_nll_loss_coef", "keypoint_oks_sigmas",
    "keypoint_visible_loss_coef", "license", "log_per_class_metrics", "lr", "lr_component_decay", "lr_drop",
    "lr_encoder", "lr_min_factor", "lr_scheduler", "lr_scheduler_interval", "lr_scheduler_kwargs",
    "lr_scheduler_monitor", "lr_vit_layer_decay", "mask_ce_loss_coef", "mask_dice_loss_coef",
    "mask_point_sample_ratio", "mlflow", "model_config", "model_name", "multi_scale", "notes", "num_classes",
    "num_nodes", "num_sanity_val_steps", "num_select", "num_workers", "optimizer", "optimizer_kwargs", "output_dir",
    "pack_targets", "pad_targets_to", "persistent_workers", "pin_memory", "postprocess_trace_alpha",
    "prefetch_factor", "pretrain_exclude_keys", "pretrain_keys_modify_to_load", "pretrain_weights",
    "pretrained_distiller", "pretrained_encoder", "print_freq", "progress_bar", "project", "rank", "resume", "run",
    "run_test", "save_dataset_grids", "scale_jitter", "seed", "set_cost_bbox", "set_cost_class", "set_cost_giou",
    "set_loss", "shape", "skip_best_epochs", "smooth_alpha", "square_resize", "square_resize_div_64", "start_epoch",
    "strategy", "subcommand", "sum_group_losses", "sync_bn", "tensorboard", "train_log_on_step",
    "train_log_sync_dist", "use_ema", "use_position_supervised_loss", "use_varifocal_loss", "wandb", "warmup_epochs",
    "weight_decay", "world_size",
)  # fmt: skip
#: Keypoints, adapters and other parts that no network here has.
_OFF = (
    "use_grouppose_keypoints", "dual_projector", "dual_projector_kp_only", "encoder_only", "backbone_only",
    "use_cls_token", "rms_norm",
)  # fmt: skip
#: Of keypoints alone, which `use_grouppose_keypoints` turns on.
_OF_KEYPOINTS = (
    "keypoint_cross_attn", "inter_instance_kp_attn", "grouppose_keypoint_dim_downscale", "num_keypoints_per_class",
)  # fmt: skip
_SCALES = {2.0: "P3", 1.0: "P4", 0.5: "P5"}


def windowed(layout: Layout) -> list[int]:
    """Blocks that attend within windows: all that are run but those whose features are used."""
    return [block for block in range(layout.stages[-1] + 1) if block not in layout.stages]


def check_args(args: Mapping[str, Any], layout: Layout, where: str) -> tuple[str, ...]:
    """Goes through the settings of an official checkpoint; see `check_settings`.

    Args:
        args: They.
        layout: What is built.
        where: Names the file in messages.

    Returns:
        Keys that are not known.
    """
    rules: Table = {
        **dict.fromkeys(_TRAINING, HARMLESS),
        **dict.fromkeys(_OFF, Only((False,))),
        **dict.fromkeys(_OF_KEYPOINTS, HARMLESS),
        # Read, or compared with the tensors, by `read_layout`.
        **dict.fromkeys(
            ("patch_size", "hidden_dim", "dec_layers", "num_queries", "segmentation_head", "num_windows",
             "out_feature_indexes", "resolution", "sa_nheads", "ca_nheads", "mask_downsample_ratio"),
            READ,
        ),
        "encoder": READ,  # its size shows in the tensors
        "backbone_lora": HARMLESS,  # of training: adapters that are left in the weights are refused
        "vit_encoder_num_layers": HARMLESS,  # blocks behind the last stage are not run
        "window_block_indexes": Only((windowed(layout),)),
        "positional_encoding_size": Only((layout.grid,)),
        "position_embedding": Only(("sine",)),
        "projector_scale": Only(([_SCALES[level] for level in layout.levels],)),
        "num_feature_levels": Only((len(layout.levels),)),
        "dec_n_points": Only((layout.points,)),
        "dim_feedforward": Only((layout.feedforward,)),
        "decoder_norm": Only(("LN",)),
        "layer_norm": Only((True,)),
        "two_stage": Only((True,)),
        "bbox_reparam": Only((True,)),
        "lite_refpoint_refine": Only((True,)),
        "num_channels": Only((3,)),
        "num_decoder_registers": Only((0,)),
    }  # fmt: skip
    return check_settings(args, rules, where)


def check_config(config: Mapping[str, Any], layout: Layout | None, where: str) -> tuple[str, ...]:
    """Goes through a `config.json` of RfDetrForObjectDetection or RfDetrForInstanceSegmentation; see `check_args`.

    Args:
        config: Its contents.
        layout: What is built; None before the tensors are known.
        where: Names the file in messages.
    """

    def built(name: str, *others: Any) -> Rule:
        return READ if layout is None else Only((getattr(layout, name), *others))

    backbone: Table = {
        **TRANSFORMERS,
        **dict.fromkeys(("patch_size", "num_windows", "num_attention_heads", "out_indices", "out_features"), READ),
        # Blocks behind the last stage are not run; of the table of positions its own size counts.
        **dict.fromkeys(
            ("num_hidden_layers", "stage_names", "image_size", "layerscale_value", "use_mask_token"), HARMLESS
        ),
        "hidden_size": built("width"),
        "mlp_ratio": READ if layout is None else Only((layout.mlp / layout.width,)),
        "window_block_indexes": READ if layout is None else Only((windowed(layout),)),
        "hidden_act": Only(("gelu",)),
        "layer_norm_eps": Only((1e-6,)),
        "apply_layernorm": Only((True,)),
        "reshape_hidden_states": Only((True,)),
        "num_channels": Only((3,)),
        "qkv_bias": Only((True,)),
        "use_swiglu_ffn": Only((False,)),
        "num_register_tokens": Only((0,)),
    }
    whole: Table = {
        **TRANSFORMERS,
        **dict.fromkeys(
            ("class_cost", "bbox_cost", "giou_cost", "class_loss_coefficient", "dice_loss_coefficient",
             "bbox_loss_coefficient", "giou_loss_coefficient", "eos_coefficient", "focal_alpha", "auxiliary_loss",
             "mask_loss_coefficient", "mask_point_sample_ratio", "mask_class_loss_coefficient",
             "mask_dice_loss_coefficient", "activation_dropout", "disable_custom_kernels", "group_detr",
             "hidden_expansion", "c2f_num_blocks", "intermediate_size"),
            HARMLESS,
        ),
        **dict.fromkeys(
            ("d_model", "decoder_layers", "num_queries", "decoder_self_attention_heads",
             "decoder_cross_attention_heads", "mask_downsample_ratio", "layer_norm_eps"),
            READ,
        ),
        "backbone_config": backbone,
        "decoder_ffn_dim": built("feedforward"),
        "decoder_n_points": built("points"),
        "num_feature_levels": READ if layout is None else Only((len(layout.levels),)),
        "activation_function": Only(("silu",)),
        "decoder_activation_function": Only(("relu",)),
        "segmentation_head_activation_function": Only(("gelu",)),
        "attention_bias": Only((True,)),
        "two_stage": Only((True,)),
        "with_box_refine": READ,
    }  # fmt: skip
    return check_settings(config, whole, where)


def preprocess_of(files: Mapping[str, Path]) -> tuple[Preprocess, int | None, tuple[str, ...]]:
    """Preprocessing as the files of an image processor say, where there are some.

    Args:
        files: The package's files.

    Returns:
        The preprocessing without a size; the side of the square input, where they say one; keys that are not known.

    Raises:
        ModelFileError: A file is malformed.
        UnsupportedModelError: It prepares pictures in another way than RF-DETR.
    """
    processor = read_image_processor(files)
    unknown = processor.check(
        ("RfDetrImageProcessor", "DetrImageProcessor", "DeformableDetrImageProcessor"),
        {
            "size": READ,
            "resample": Only((2,)),
            "do_pad": HARMLESS,  # pictures all have one size, so there is nothing to pad
            **dict.fromkeys(("format", "do_convert_annotations", "pad_size", "crop_size"), HARMLESS),
        },
    )
    sides = processor.sides("size")
    if sides is not None and sides[0] != sides[1]:
        raise processor.refuse_size("size", "a square")
    return processor.values(PREPROCESS), None if sides is None else sides[0], unknown
