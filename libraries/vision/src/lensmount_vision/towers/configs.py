"""Tables of what transformers and open_clip say of two towers in `config.json` and `open_clip_config.json`.

Each key is obeyed, or must be what is built, or changes nothing; see `lensmount_vision.models.settings`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lensmount.errors import ModelFileError, UnsupportedModelError
from lensmount_reading import printable
from lensmount_vision.models.processors import ImageProcessor
from lensmount_vision.models.settings import HARMLESS, READ, TRANSFORMERS, Only, Rule, Table, check_settings
from lensmount_vision.towers.layouts import read_config, refuse_open_clip_variants, table, triple

if TYPE_CHECKING:
    from lensmount.specs import Preprocess

#: LayerNorms add this to the variance where nothing says otherwise: torch's default, which all authors kept.
EPSILON = 1e-5
OPEN_CLIP = "open_clip_config.json"
_KERNELS: Mapping[int, Literal["lanczos", "bilinear", "bicubic"]] = {1: "lanczos", 2: "bilinear", 3: "bicubic"}
_CUSTOM_BLOCKS = ("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc")


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerSizes:
    """What the tensors show of a tower; None where it is not known.

    Attributes:
        width: Channels.
        layers: Blocks.
        hidden: Channels in the MLPs.
        side: Side of the square input in pixels, of an image tower.
        patch: Side of a patch in pixels, of an image tower.
        vocabulary: Rows of the table of tokens, of a text tower.
        context: Most tokens of a text, of a text tower.
        dimension: Length of the vectors.
    """

    width: int | None = None
    layers: int | None = None
    hidden: int | None = None
    side: int | None = None
    patch: int | None = None
    vocabulary: int | None = None
    context: int | None = None
    dimension: int | None = None


UNKNOWN = TowerSizes()


def built(value: Any, *others: Any) -> Rule:
    """The rule of a setting that must be what is built; `value` None where that is not known."""
    return READ if value is None else Only((value, *others))


def check_transformers(
    config: Mapping[str, Any],
    where: str,
    *,
    image: TowerSizes = UNKNOWN,
    text: TowerSizes = UNKNOWN,
    by_id: bool = True,
) -> tuple[str, ...]:
    """Goes through the `config.json` of a model of two towers: CLIP's, OWLv2's.

    Args:
        config: Its contents.
        where: Names the file in messages.
        image: Of the image tower, where its tensors are at hand.
        text: Of the text tower.
        by_id: Whether texts are read at the token that `eos_token_id` names; else at the highest of their ids.

    Returns:
        Keys that are not known.

    Raises:
        UnsupportedModelError: Naming a setting that is not what is built.
        ModelFileError: It is malformed.
    """
    last = None if text.vocabulary is None or not by_id else text.vocabulary - 1
    common: Table = {
        **TRANSFORMERS,
        **dict.fromkeys(("num_attention_heads", "hidden_act", "layer_norm_eps"), READ),
        "projection_dim": HARMLESS,  # of one tower alone it is not used
    }
    vision: Table = {
        **common,
        "hidden_size": built(image.width),
        "intermediate_size": built(image.hidden),
        "num_hidden_layers": built(image.layers),
        "image_size": built(image.side, [image.side, image.side]),
        "patch_size": built(image.patch, [image.patch, image.patch]),
        "num_channels": Only((3,)),
    }
    words: Table = {
        **common,
        "hidden_size": built(text.width),
        "intermediate_size": built(text.hidden),
        "num_hidden_layers": built(text.layers),
        "vocab_size": built(text.vocabulary),
        "max_position_embeddings": built(text.context),
        # 2 is what configurations before transformers 4.29 said of all models: the highest id is meant.
        "eos_token_id": HARMLESS if last is None else Only((last, 2)),
    }
    whole: Table = {
        **TRANSFORMERS,
        "text_config": words,
        "vision_config": vision,
        "text_config_dict": words,
        "vision_config_dict": vision,
        "projection_dim": built(image.dimension),
    }
    return check_settings(config, whole, where)


def tower_table(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """`text_config` or `vision_config`; old files say the same again under `…_dict`, which counts more."""
    return {**table(config, name), **{k: v for k, v in table(config, f"{name}_dict").items() if v is not None}}


def epsilon_of(config: Mapping[str, Any], key: str, where: str) -> float:
    """What LayerNorms add to the variance.

    Raises:
        ModelFileError: It is no positive number.
    """
    value = config.get(key)
    if value is None:
        return EPSILON
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise ModelFileError(f"{where} is malformed at {key}", found=printable(value, 80), expected="a small number")
    return float(value)


def check_open_clip(
    config: Mapping[str, Any],
    where: str,
    *,
    image: TowerSizes = UNKNOWN,
    text: TowerSizes = UNKNOWN,
    timm: str | None = None,
) -> tuple[str, ...]:
    """Goes through an `open_clip_config.json`.

    Args:
        config: Its contents.
        where: Names the file in messages.
        image: Of the image tower, where its tensors are at hand.
        text: Of the text tower.
        timm: What the names of timm's models begin with that the image tower may be; None for open_clip's own towers.

    Returns:
        Keys that are not known.

    Raises:
        UnsupportedModelError: Naming a setting that is not what is built.
        ModelFileError: It is malformed.
    """
    refuse_open_clip_variants(config, where)
    common: Table = {
        **dict.fromkeys(("mlp_ratio", "norm_kwargs"), READ),
        **dict.fromkeys(("output_tokens", "timm_drop", "timm_drop_path", "timm_model_pretrained"), HARMLESS),
        **dict.fromkeys(_CUSTOM_BLOCKS, Only((False,))),
        "ls_init_value": Only((None,)),
        "act_kwargs": Only(({},)),
        "block_type": Only(("default",)),
        "final_ln_after_pool": Only((False,)),
    }
    vision: Table = {
        **common,
        "layers": built(image.layers) if timm is None else HARMLESS,
        "width": built(image.width) if timm is None else HARMLESS,
        "head_width": READ if timm is None else HARMLESS,
        "image_size": built(image.side, [image.side, image.side]),
        "patch_size": built(image.patch, [image.patch, image.patch]) if timm is None else HARMLESS,
        **dict.fromkeys(("patch_dropout", "attn_pooler_queries", "attn_pooler_heads"), HARMLESS),
        "attentional_pool": Only((False,)),
        "no_ln_pre": Only((False,)),
        "global_average_pool": Only((False,)),
        "pos_embed_type": Only(("learnable",)),
        "pool_type": Only(("tok",)) if timm is None else HARMLESS,
        "timm_model_name": Only((None,)) if timm is None else READ,
        "timm_pool": HARMLESS if timm is None else Only(("map",)),
        "timm_proj": HARMLESS if timm is None else Only(("", "none")),
        "timm_proj_bias": HARMLESS if timm is None else READ,
    }
    words: Table = {
        **common,
        "context_length": built(text.context),
        "vocab_size": built(text.vocabulary),
        "width": built(text.width),
        "heads": READ,
        "layers": built(text.layers),
        # Texts are read at their highest id, and open_clip asks for these two with other poolings alone.
        **dict.fromkeys(("pad_id", "eos_id", "tokenizer_mode"), HARMLESS),
        **dict.fromkeys(("hf_model_pretrained", "hf_proj_type", "hf_pooler_type", "hf_tokenizer_pretrained"), HARMLESS),
        **dict.fromkeys(("hf_model_name", "hf_tokenizer_name"), Only(("",))),
        "tokenizer_kwargs": Only(({}, {"clean": "lower"})),
        "embed_cls": Only((False,)),
        "no_causal_mask": Only((False,)),
        "no_ln_final": Only((False,)),
        "pool_type": Only(("argmax",)),
        "proj_bias": Only((False,)),
        "proj_type": Only(("linear",)),
    }
    model: Table = {
        "embed_dim": built(image.dimension),
        "vision_cfg": vision,
        "text_cfg": words,
        "quick_gelu": READ if timm is None else Only((False,)),
        **dict.fromkeys(("custom_text", "init_logit_scale", "init_logit_bias", "cast_dtype", "output_dict"), HARMLESS),
        "nonscalar_logit_scale": Only((False,)),
        "multimodal_cfg": Only((None,)),
        "use_mobileclip": Only((False,)),
    }
    inner = config.get("model_cfg")
    name = table(inner if isinstance(inner, dict) else config, "vision_cfg").get("timm_model_name")
    if name is not None and timm is not None and not str(name).startswith(timm):
        raise UnsupportedModelError(
            f"{where} has a setting that is not run here",
            found=f"model_cfg.vision_cfg.timm_model_name {printable(name, 80)}",
            expected=f"{timm}…",
        )
    if inner is None:  # a file of open_clip's model_configs
        _check_ratios(config, where, image, text)
        return check_settings(config, {**model, "preprocess_cfg": READ}, where)
    rest: Table = {"model_cfg": model, "preprocess_cfg": READ}
    unknown = check_settings(config, rest, where)
    _check_ratios(table(config, "model_cfg"), where, image, text)
    return unknown


def _check_ratios(model: Mapping[str, Any], where: str, image: TowerSizes, text: TowerSizes) -> None:
    for name, sizes in (("vision_cfg", image), ("text_cfg", text)):
        ratio, width = table(model, name).get("mlp_ratio"), sizes.width
        if ratio is None or width is None or sizes.hidden is None or (sizes.patch is None and name == "vision_cfg"):
            continue
        if isinstance(ratio, bool) or not isinstance(ratio, int | float) or int(width * ratio) != sizes.hidden:
            raise UnsupportedModelError(
                f"{where} has a setting that is not run here",
                found=f"model_cfg.{name}.mlp_ratio {printable(ratio, 80)}",
                expected=f"{sizes.hidden / width:g}, as the tensors have it",
            )


def open_clip_epsilon(tower: Mapping[str, Any], name: str, where: str) -> float:
    """`eps` of a tower's `norm_kwargs`.

    Raises:
        UnsupportedModelError: There are others.
        ModelFileError: It is no positive number.
    """
    settings = tower.get("norm_kwargs")
    if settings is None:
        return EPSILON
    if not isinstance(settings, Mapping):
        raise ModelFileError(f"{where} is malformed at {name}.norm_kwargs", found=printable(settings, 80))
    others = {key: value for key, value in settings.items() if key != "eps"}
    if others:
        raise UnsupportedModelError(
            f"{where} has a setting that is not run here",
            found=f"model_cfg.{name}.norm_kwargs {printable(others, 80)}",
            expected="eps alone",
        )
    return epsilon_of(settings, "eps", where)


def open_clip_preprocess(spec: Preprocess, files: Mapping[str, Path]) -> Preprocess:
    """Preprocessing as the `preprocess_cfg` of an `open_clip_config.json` has it, with its size where it says one.

    Raises:
        ModelFileError: It is malformed.
        UnsupportedModelError: It prepares pictures in a way that is not supported.
    """
    config = table(read_config(files, OPEN_CLIP), "preprocess_cfg")
    rules: Table = {
        **dict.fromkeys(("mean", "std", "size"), READ),
        "mode": Only(("RGB",)),
        "interpolation": Only(("bicubic", "bilinear", "random")),
        "resize_mode": Only(("shortest", "squash")),
        "fill_color": HARMLESS,  # of the resize mode "longest" alone
    }
    where = str(files.get(OPEN_CLIP, OPEN_CLIP))
    check_settings(config, rules, where, inside="preprocess_cfg.")
    kernel, mode = config.get("interpolation") or spec.interpolation, config.get("resize_mode")
    size = config.get("size")
    sides = [size, size] if isinstance(size, int) else size
    if isinstance(sides, list) and len(sides) == 3:  # timm's input_size
        sides = sides[1:]
    if size is not None and not (
        isinstance(sides, list) and len(sides) == 2 and all(isinstance(s, int) for s in sides)
    ):
        raise ModelFileError(f"{where} is malformed at size", found=printable(size, 80), expected="one or two numbers")
    return replace(
        spec,
        size=(sides[0], sides[1]) if sides is not None else spec.size,
        mean=triple(config, "mean", where) or spec.mean,
        std=triple(config, "std", where) or spec.std,
        resize=spec.resize if mode is None else "stretch" if mode == "squash" else "short-side-crop",
        interpolation="bicubic" if kernel == "random" else kernel,  # random in training; bicubic in use
    )


def processed(spec: Preprocess, processor: ImageProcessor) -> Preprocess:
    """Preprocessing as a `CLIPImageProcessor` has it, with the size that it makes where it says one.

    Raises:
        ModelFileError: A setting is malformed.
        UnsupportedModelError: It prepares pictures in a way that is not supported.
    """
    processor.check(
        ("CLIPImageProcessor", "CLIPFeatureExtractor"),
        {
            **dict.fromkeys(("size", "crop_size", "do_center_crop"), READ),
            "resample": Only(tuple(_KERNELS)),
            "use_square_size": Only((False,)),
            "pad_size": Only((None,)),
        },
    )
    spec = processor.values(spec)
    kernel = processor.get("resample")
    if kernel is not None:
        spec = replace(spec, interpolation=_KERNELS[int(kernel)])
    crops = processor.get("do_center_crop", True) is not False
    crop = processor.sides("crop_size") if crops else None
    size = processor.get("size")
    if isinstance(size, int) and not isinstance(size, bool):
        size = {"shortest_edge": size}  # what files before transformers 4.20 say
    if size is None:
        return replace(spec, size=crop or spec.size) if crops else _whole(spec, processor)
    edge = size.get("shortest_edge") if isinstance(size, dict) else None
    if edge is None:
        sides = processor.sides("size")
        if crop is not None and crop != sides:
            raise processor.refuse_size("size", "the same as crop_size")
        return replace(spec, size=sides, resize="stretch")
    if not crops:
        return _whole(spec, processor)
    if not isinstance(edge, int) or size.get("longest_edge") is not None or crop not in (None, (edge, edge)):
        raise processor.refuse_size("size", "a shortest edge as long as crop_size")
    return replace(spec, size=(edge, edge), rounding="truncate")


def _whole(spec: Preprocess, processor: ImageProcessor) -> Preprocess:
    raise UnsupportedModelError(
        f"{processor.where} has a setting that is not run here",
        found="do_center_crop False, with a size by the shortest edge: pictures keep their shape",
        expected="do_center_crop True, or a size by height and width",
        fix="run it in transformers, or save it with this setting",
    )


def require_size(spec: Preprocess, side: tuple[int, int], where: str) -> None:
    """Refuses files that make pictures of another size than the network takes.

    Raises:
        UnsupportedModelError: They do.
    """
    if spec.size is not None and spec.size != side:
        raise UnsupportedModelError(
            f"the files next to the weights of {where} make pictures of another size than the network takes",
            found=f"{spec.size[0]}x{spec.size[1]}",
            expected=f"{side[0]}x{side[1]}",
            fix="put the preprocessing files of this very model next to its weights",
        )
