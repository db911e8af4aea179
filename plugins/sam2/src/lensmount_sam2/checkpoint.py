"""Weights: from a file's tensors to the networks that they fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmount.contracts.model import NetworkContext
from lensmount.contracts.session import TensorSpec, TorchNetwork
from lensmount.errors import ModelFileError, UnsupportedModelError
from lensmount_sam2 import meta_yaml
from lensmount_sam2.geometry import IMAGE_SIZE, Geometry, Trunk, read_geometry
from lensmount_sam2.hf_keys import is_hf, official_key, read_config
from lensmount_sam2.options import LoadOptions
from lensmount_sam2.settings import PREPROCESS, check, preprocess_of
from lensmount_vision.models.leftovers import Taken
from lensmount_vision.models.processors import pixels_metadata
from lensmount_vision.models.settings import read_json_object, unknown_note

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lensmount.specs import ModelPackage
    from lensmount_reading import TensorRef

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
    """Builds the networks that the package's weights fit.

    Returns:
        `encoder` and `decoder`, and `memory` where the weights hold the parts for video.

    Raises:
        ModelFileError: The file is corrupt.
        UnsupportedModelError: The tensors are not those of a SAM 2.
    """
    from lensmount_reading import read_checkpoint

    path = next(context.files[a.name] for a in context.package.artifacts if a.role == "weights")
    configured, yaml = read_config_file(context.files.get(CONFIG)), context.files.get(meta_yaml.YAML)
    if yaml is not None:
        configured = meta_yaml.trunk_of(meta_yaml.read(yaml), str(yaml))
    tensors = official_names(read_checkpoint(path).tensors)
    side = image_size(context.package, context.options, configured[1] if configured else None)
    try:
        shapes = {key: ref.shape for key, ref in tensors.items()}
        geometry = read_geometry(shapes, configured[0] if configured else None)
        if yaml is not None:
            read_official(shapes, yaml)
        elif configured:
            check_folder(context.files, geometry, configured[1])
        modules = build(tensors, geometry, side, path.name)
    except (KeyError, RuntimeError) as error:
        if isinstance(error, ModelFileError):
            raise
        raise UnsupportedModelError(
            f"the tensors of {path.name} are not those of a SAM 2",
            found=str(error),
            fix="lensmount inspect FILE shows what is in it",
        ) from error
    metadata = {"image_size": str(side), "version": geometry.version}
    metadata |= pixels_metadata(preprocess_of(context.files, None)[0], PREPROCESS)
    return {name: describe(name, module, side, metadata) for name, module in modules.items()}


def build(tensors: Mapping[str, TensorRef], geometry: Geometry, side: int, where: str) -> dict[str, nn.Module]:
    """The modules, on the CPU in float32, weights loaded.

    Raises:
        UnsupportedModelError: There are tensors that none of them has; `where` names the file.
    """
    import torch

    from lensmount_reading import as_torch_state_dict
    from lensmount_sam2.networks.decoder import MaskDecoder
    from lensmount_sam2.networks.encoder import ImageEncoder
    from lensmount_sam2.networks.memory import Memory

    weights = Taken(as_torch_state_dict(tensors, dtype=torch.float32))
    with torch.device("meta"):
        made: dict[str, nn.Module] = {"encoder": ImageEncoder(geometry.trunk, side)}
    decoder = MaskDecoder(side)
    made["decoder"] = decoder
    made["encoder"].load_state_dict(_encoder_weights(weights, side), assign=True)
    decoder.load_state_dict(_decoder_weights(weights), assign=True)
    decoder.prompts.prepare()
    if geometry.tracking:
        memory = Memory(geometry, side)
        own = memory.state_dict().keys()
        memory.load_state_dict({key: weights[key] for key in own}, assign=True)
        made["memory"] = memory
    weights.require_all(where, harmless=UNUSED if geometry.tracking else (*UNUSED, *_FOR_VIDEO))
    for module in made.values():
        module.eval().requires_grad_(False)
    return made


def _encoder_weights(weights: Taken[Tensor], side: int) -> dict[str, Tensor]:
    from torch.nn import functional as F

    trunk = "image_encoder.trunk."
    made = {f"blocks.{key}": value for key, value in weights.under(trunk + "blocks.").items()}
    made["patch_embed.weight"] = weights[trunk + "patch_embed.proj.weight"]
    made["patch_embed.bias"] = weights[trunk + "patch_embed.proj.bias"]
    window = weights[trunk + "pos_embed_window"]
    cells = side // 4
    stretched = F.interpolate(weights[trunk + "pos_embed"], size=(cells, cells), mode="bicubic")
    tiled = window.tile(1, 1, cells // window.shape[2], cells // window.shape[3])
    made["positions"] = (stretched + tiled).permute(0, 2, 3, 1).contiguous()
    made["no_mem_embed"] = weights["no_mem_embed"]
    for level in range(4):  # the neck counts from the coarsest
        name = f"image_encoder.neck.convs.{3 - level}.conv."
        weight, bias = weights[name + "weight"].flatten(1), weights[name + "bias"]
        if level < 2:
            second = weights[f"sam_mask_decoder.conv_s{level}.weight"].flatten(1)
            weight, bias = second @ weight, second @ bias + weights[f"sam_mask_decoder.conv_s{level}.bias"]
        made[f"levels.{level}.weight"], made[f"levels.{level}.bias"] = weight, bias
    return made


def _decoder_weights(weights: Taken[Tensor]) -> dict[str, Tensor]:
    import torch

    prefix, prompts = "sam_mask_decoder.", "sam_prompt_encoder."
    made = {key: value for key, value in weights.under(prefix).items() if not key.startswith("conv_s")}
    for key in ("obj_score_token", "iou_token", "mask_tokens"):
        made[key] = made.pop(f"{key}.weight")
    for key, value in weights.under(prompts + "mask_downscaling.").items():
        made[f"prompts.mask_downscaling.{key}"] = value
    made["prompts.fourier_matrix"] = weights[prompts + "pe_layer.positional_encoding_gaussian_matrix"]
    made["prompts.not_a_point_embed"] = weights[prompts + "not_a_point_embed.weight"]
    made["prompts.no_mask_embed"] = weights[prompts + "no_mask_embed.weight"]
    if prompts + "point_embed.weight" in weights:  # transformers keeps the four in one
        made["prompts.point_embeddings"] = weights[prompts + "point_embed.weight"]
    else:
        rows = [weights[f"{prompts}point_embeddings.{index}.weight"] for index in range(4)]
        made["prompts.point_embeddings"] = torch.cat(rows)
    return made


def specs(name: str, side: int) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of the encoder and the decoder, the same on every backend."""
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


def describe(name: str, module: Any, side: int, metadata: Mapping[str, str]) -> TorchNetwork:
    """A module with the names that sessions use."""
    if name == "memory":  # never run as a session: the tracker calls its parts
        return TorchNetwork(module=module, inputs=(), outputs=(), metadata=metadata)
    inputs, outputs = specs(name, side)
    if name == "decoder":
        from lensmount_sam2.networks.exact import ExactPoints

        module = ExactPoints(module)
        inputs = tuple(TensorSpec(s.name, s.shape, "int32") if s.name == "points" else s for s in inputs)
    return TorchNetwork(module=module, inputs=inputs, outputs=outputs, metadata=metadata)
