"""Weights: from a file's tensors to the networks that they fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmount.contracts.model import NetworkContext
from lensmount.contracts.session import GraphNetwork, TensorSpec, TorchNetwork
from lensmount_networks import Network, fitting
from lensmount_sam2 import meta_yaml
from lensmount_sam2.geometry import IMAGE_SIZE, Geometry, Trunk, read_geometry
from lensmount_sam2.hf_keys import is_hf, official_key, read_config
from lensmount_sam2.options import LoadOptions
from lensmount_sam2.settings import PREPROCESS, check, preprocess_of
from lensmount_vision.models.leftovers import Taken
from lensmount_vision.models.processors import pixels_metadata
from lensmount_vision.models.settings import read_json_object, unknown_note

if TYPE_CHECKING:
    from lensmount.specs import ModelPackage
    from lensmount_networks import Layer

CONFIG = "config.json"
#: In every checkpoint, and used by no released model: frames without a past are marked in another way.
UNUSED = (r"^no_mem_pos_enc$",)
_FOR_VIDEO = (r"^(memory_attention|memory_encoder|maskmem_tpos_enc|no_obj|obj_ptr|mask_downsample)",)


def official_names(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors under the official keys, whichever of the two layouts they came in."""
    if not is_hf(tensors):
        return {key.removeprefix("model."): value for key, value in tensors.items()}
    named = ((official_key(key), value) for key, value in tensors.items())
    return {key: value for key, value in named if key is not None}


def read_config_file(path: Path | None) -> tuple[Trunk, int] | None:
    """Trunk and input size of a `config.json`, or None without one.

    Raises:
        ModelFileError: It is no JSON, or lacks something.
    """
    if path is None or not path.is_file():
        return None
    return read_config(read_json_object(path), str(path))


def check_folder(files: Mapping[str, Path], geometry: Geometry, side: int) -> tuple[str, ...]:
    """Goes through the configuration and the image processor of a folder; see `settings`.

    Args:
        files: The package's files.
        geometry: What the tensors show.
        side: Side of the input in pixels, as the configuration has it.

    Returns:
        Notes about keys that are not known.
    """
    notes = unknown_note(preprocess_of(files, side)[1], "the image processor")
    if CONFIG in files:
        notes += unknown_note(check(read_json_object(files[CONFIG]), geometry, side, str(files[CONFIG])), CONFIG)
    return notes


def read_official(shapes: Mapping[str, Any], path: Path | None) -> tuple[Geometry, tuple[str, ...]]:
    """The geometry of a checkpoint in Meta's layout.

    Args:
        shapes: Shapes of its tensors.
        path: The YAML file that belongs to it; None without one.

    Returns:
        The geometry, and notes about keys that are not known.

    Raises:
        ModelFileError: The file is malformed.
        UnsupportedModelError: It asks for what is not built here, or it does not fit the tensors.
    """
    if path is None:
        return read_geometry(shapes), ()
    model = meta_yaml.read(path)
    geometry = read_geometry(shapes, meta_yaml.trunk_of(model, str(path))[0])
    return geometry, unknown_note(meta_yaml.check(model, geometry, str(path)), path.name)


def image_size(package: ModelPackage, options: Any, configured: int | None) -> int:
    """What the user asked for, else what the package says, else 1024."""
    asked = options.image_size if isinstance(options, LoadOptions) else None
    return int(asked or package.setting("image_size") or configured or IMAGE_SIZE)


def network(context: NetworkContext) -> dict[str, TorchNetwork]:
    """The networks that the package's weights fit, as torch modules.

    Returns:
        `encoder` and `decoder`, and `memory` where the weights hold the parts for video.

    Raises:
        ModelFileError: The file is corrupt.
        UnsupportedModelError: The tensors are not those of a SAM 2.
    """
    with fitting(weights_path(context), "a SAM 2"):
        return {name: made.torch() for name, made in networks(context, for_torch=True).items()}


def graph(context: NetworkContext) -> dict[str, GraphNetwork]:
    """Encoder and decoder as ONNX graphs, made without torch; raises as `network`."""
    with fitting(weights_path(context), "a SAM 2"):
        return {name: made.graph() for name, made in networks(context).items()}


def weights_path(context: NetworkContext) -> Path:
    """The file with the weights."""
    return next(context.files[a.name] for a in context.package.artifacts if a.role == "weights")


def networks(context: NetworkContext, *, for_torch: bool = False) -> dict[str, Network]:
    """Encoder and decoder; `for_torch` also the memory, where there is one, and a decoder that rounds no points."""
    from lensmount_networks.layers import declared
    from lensmount_reading import as_arrays, read_checkpoint
    from lensmount_sam2.networks.decoder import MaskDecoder
    from lensmount_sam2.networks.encoder import ImageEncoder
    from lensmount_sam2.networks.exact import ExactPoints
    from lensmount_sam2.networks.memory import Memory

    path = weights_path(context)
    configured, yaml = read_config_file(context.files.get(CONFIG)), context.files.get(meta_yaml.YAML)
    if yaml is not None:
        configured = meta_yaml.trunk_of(meta_yaml.read(yaml), str(yaml))
    tensors = official_names(read_checkpoint(path).tensors)
    side = image_size(context.package, context.options, configured[1] if configured else None)
    with fitting(path, "a SAM 2"):
        shapes = {key: ref.shape for key, ref in tensors.items()}
        geometry = read_geometry(shapes, configured[0] if configured else None)
        if yaml is not None:
            read_official(shapes, yaml)
        elif configured:
            check_folder(context.files, geometry, configured[1])
        weights = Taken(as_arrays(tensors, "float32"))
        metadata = {"image_size": str(side), "version": geometry.version}
        metadata |= pixels_metadata(preprocess_of(context.files, None)[0], PREPROCESS)

        def named(name: str, layer: Callable[[], Layer], arrays: Mapping[str, Any]) -> Network:
            inputs, outputs = specs(name, side)
            return Network(layer=layer, tensors=arrays, inputs=inputs, outputs=outputs, metadata=metadata)

        made = {
            "encoder": named("encoder", lambda: ImageEncoder(geometry.trunk, side), _encoder_weights(weights, side)),
            "decoder": named("decoder", lambda: MaskDecoder(side), _decoder_weights(weights, side)),
        }
        if for_torch:
            decoder = made["decoder"]
            made["decoder"] = replace(
                decoder,
                layer=lambda: ExactPoints(MaskDecoder(side)),
                tensors={f"decoder.{name}": array for name, array in decoder.tensors.items()},
                inputs=tuple(replace(s, dtype="int32") if s.name == "points" else s for s in decoder.inputs),
            )
        if geometry.tracking:
            own = [name for name, _, _, part in declared(Memory(geometry, side)) if part.array is None]
            memory = {name: weights[name] for name in own}
            if for_torch:
                made["memory"] = named("memory", lambda: Memory(geometry, side), memory)
        weights.require_all(path.name, harmless=UNUSED if geometry.tracking else (*UNUSED, *_FOR_VIDEO))
        return made


def _encoder_weights(weights: Taken[Any], side: int) -> dict[str, Any]:
    import numpy as np

    from lensmount_sam2.networks.positions import bicubic

    trunk = "image_encoder.trunk."
    made = {f"blocks.{key}": value for key, value in weights.under(trunk + "blocks.").items()}
    made["patch_embed.weight"] = weights[trunk + "patch_embed.proj.weight"]
    made["patch_embed.bias"] = weights[trunk + "patch_embed.proj.bias"]
    window, table, cells = weights[trunk + "pos_embed_window"], weights[trunk + "pos_embed"], side // 4
    stretched = bicubic(table.shape[2], cells) @ table @ bicubic(table.shape[3], cells).T
    tiled = np.tile(window, (1, 1, cells // window.shape[2], cells // window.shape[3]))
    made["positions"] = np.ascontiguousarray((stretched + tiled).transpose(0, 2, 3, 1))
    made["no_mem_embed"] = weights["no_mem_embed"]
    for level in range(4):  # the neck counts from the coarsest
        name = f"image_encoder.neck.convs.{3 - level}.conv."
        weight, bias = weights[name + "weight"], weights[name + "bias"]
        weight = weight.reshape(len(weight), -1)
        if level < 2:
            second = weights[f"sam_mask_decoder.conv_s{level}.weight"]
            second = second.reshape(len(second), -1)
            weight, bias = second @ weight, second @ bias + weights[f"sam_mask_decoder.conv_s{level}.bias"]
        made[f"levels.{level}.weight"], made[f"levels.{level}.bias"] = weight, bias
    return made


def _decoder_weights(weights: Taken[Any], side: int) -> dict[str, Any]:
    import numpy as np

    from lensmount_sam2.networks.positions import fourier_grid

    prefix, prompts = "sam_mask_decoder.", "sam_prompt_encoder."
    made = {key: value for key, value in weights.under(prefix).items() if not key.startswith("conv_s")}
    for key in ("obj_score_token", "iou_token", "mask_tokens"):
        made[key] = made.pop(f"{key}.weight")
    for key, value in weights.under(prompts + "mask_downscaling.").items():
        made[f"prompts.mask_downscaling.{key}"] = value
    made["prompts.fourier_matrix"] = weights[prompts + "pe_layer.positional_encoding_gaussian_matrix"]
    made["prompts.grid"] = fourier_grid(side // 16, made["prompts.fourier_matrix"])
    made["prompts.not_a_point_embed"] = weights[prompts + "not_a_point_embed.weight"]
    made["prompts.no_mask_embed"] = weights[prompts + "no_mask_embed.weight"]
    if prompts + "point_embed.weight" in weights:  # transformers keeps the four in one
        made["prompts.point_embeddings"] = weights[prompts + "point_embed.weight"]
    else:
        rows = [weights[f"{prompts}point_embeddings.{index}.weight"] for index in range(4)]
        made["prompts.point_embeddings"] = np.concatenate(rows)
    return made


def specs(name: str, side: int) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of the encoder and the decoder, the same on every backend; the memory is no session's."""
    if name == "memory":  # the tracker calls its parts
        return (), ()
    cells = side // 16
    maps = (("embedding", 256, cells), ("high_res_0", 32, 4 * cells), ("high_res_1", 64, 2 * cells))

    def tensor(name: str, *shape: int | str, dtype: str = "float32") -> TensorSpec:
        return TensorSpec(name, shape, dtype)

    if name == "encoder":
        outputs = tuple(tensor(n, "batch", channels, size, size) for n, channels, size in maps)
        return (tensor("images", "batch", 3, side, side),), outputs
    inputs = (
        *(tensor(n, 1, channels, size, size) for n, channels, size in maps),
        tensor("points", "prompts", "points", 2),
        tensor("labels", "prompts", "points", dtype="int64"),
        tensor("masks", "mask_prompts", 1, 4 * cells, 4 * cells),
        tensor("has_mask", "mask_prompts", dtype="int64"),
    )
    outputs = (
        tensor("logits", "prompts", 4, 4 * cells, 4 * cells),
        tensor("scores", "prompts", 4),
        tensor("presence", "prompts", 1),
    )
    return inputs, outputs
