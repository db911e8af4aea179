"""The torch form: from a Hugging Face file's tensors to two networks with names for what goes in and comes out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from lensmount.contracts.model import NetworkContext
from lensmount.contracts.session import TensorSpec, TorchNetwork
from lensmount.errors import UnsupportedModelError
from lensmount_owlv2.layout import Layout, Tower, read_json, read_layout
from lensmount_owlv2.settings import environment_flag
from lensmount_vision.models.leftovers import Taken
from lensmount_vision.towers.recognise import CONTEXT, VOCABULARY

if TYPE_CHECKING:
    import torch

    from lensmount_vision.towers.transformer import Activation

#: In the metadata of networks and exported graphs: which network it is.
NETWORK = "lensmount.network"
IMAGE_OUTPUTS = ("objectness_logits", "boxes", "class_embeds", "logit_shift", "logit_scale")
#: What CLIP needs and detection does not: its scale, and the projection of pictures.
UNUSED = (r"^owlv2\.(logit_scale|visual_projection\.weight)$",)
_HEADS = ("class_head.", "box_head.", "objectness_head.", "layer_norm.")


def network(context: NetworkContext) -> dict[str, TorchNetwork]:
    """Builds the image and the text tower.

    Raises:
        ModelFileError: The file is corrupt.
        UnsupportedModelError: The tensors are not those of an OWLv2.
    """
    import torch

    from lensmount_reading import as_torch_state_dict, read_checkpoint
    from lensmount_vision.towers.transformer import load_module

    path = next(context.files[a.name] for a in context.package.artifacts if a.role == "weights")
    checkpoint = read_checkpoint(path)
    config = read_json(context.files["config.json"]) if "config.json" in context.files else {}
    layout = read_layout({name: ref.shape for name, ref in checkpoint.tensors.items()}, config, path.name)
    layout.check(config, "config.json")
    state = Taken(as_torch_state_dict(checkpoint, dtype=torch.float32))
    try:
        image = load_module(lambda: _image_module(layout), _image_tensors(state, layout))
        text = load_module(lambda: _text_module(layout), _text_tensors(state, layout))
    except (KeyError, RuntimeError) as error:
        raise UnsupportedModelError(
            f"the tensors of {path.name} are not those of an OWLv2",
            found=str(error)[:500],
            fix="lensmount inspect FILE shows what is in it",
        ) from error
    state.require_all(path.name, harmless=UNUSED)
    if environment_flag("OWLV2_COMPILE_MODEL", False):
        image.compile()
    metadata = {
        NETWORK: identify(state),
        CONTEXT: str(layout.context),
        VOCABULARY: str(layout.vocabulary),
    }
    return {"image": _image_network(image, layout, metadata), "text": _text_network(text, layout, metadata)}


def identify(state: Mapping[str, torch.Tensor]) -> str:
    """Which network this is: a digest of its heads, the same for every form of it.

    The heads alone (some 12 MB) are read, not the towers: networks whose embeddings are not comparable have others.
    """
    digest = hashlib.sha256()
    for name in sorted(name for name in state if name.startswith(_HEADS)):
        digest.update(f"{name} {tuple(state[name].shape)}".encode())
        digest.update(state[name].contiguous().numpy().data)
    return digest.hexdigest()[:40]


def _image_network(module: Any, layout: Layout, metadata: Mapping[str, str]) -> TorchNetwork:
    size, cells = layout.image_size, layout.side**2
    shapes: tuple[tuple[int | str, ...], ...] = (
        ("batch", cells),
        ("batch", cells, 4),
        ("batch", cells, layout.dimension),
        ("batch", cells),
        ("batch", cells),
    )
    return TorchNetwork(
        module=module,
        inputs=(TensorSpec("images", ("batch", 3, size, size), "float32"),),
        outputs=tuple(TensorSpec(n, s, "float32") for n, s in zip(IMAGE_OUTPUTS, shapes, strict=True)),
        metadata=metadata,
    )


def _text_network(module: Any, layout: Layout, metadata: Mapping[str, str]) -> TorchNetwork:
    return TorchNetwork(
        module=module,
        inputs=(TensorSpec("tokens", ("batch", "length"), "int64"),),
        outputs=(TensorSpec("text_embeds", ("batch", layout.dimension), "float32"),),
        metadata=metadata,
    )


def _image_module(layout: Layout) -> Any:
    from lensmount_owlv2.network import ImageTower
    from lensmount_vision.towers.transformer import set_epsilon

    tower = layout.vision
    module = ImageTower(
        side=layout.side, patch=layout.patch, dimension=layout.dimension, **_sizes(tower), activation=_activation(tower)
    )
    return set_epsilon(module, tower.epsilon)


def _text_module(layout: Layout) -> Any:
    from lensmount_vision.towers.transformer import TextTower, set_epsilon

    tower = layout.text
    module = TextTower(
        vocabulary=layout.vocabulary,
        context=layout.context,
        dimension=layout.dimension,
        **_sizes(tower),
        activation=_activation(tower),
    )
    return set_epsilon(module, tower.epsilon)


def _sizes(tower: Tower) -> dict[str, int]:
    return {"width": tower.width, "layers": tower.layers, "heads": tower.heads, "hidden": tower.hidden}


def _activation(tower: Tower) -> Activation:
    return cast("Activation", tower.activation)


def _image_tensors(state: Mapping[str, torch.Tensor], layout: Layout) -> dict[str, torch.Tensor]:
    from lensmount_owlv2.network import box_bias

    prefix = "owlv2.vision_model."
    found = {
        "patch_embedding.weight": state[prefix + "embeddings.patch_embedding.weight"],
        "class_embedding": state[prefix + "embeddings.class_embedding"],
        "position_embedding": state[prefix + "embeddings.position_embedding.weight"],
        "box_bias": box_bias(layout.side),
    }
    for norm in ("pre_layernorm", "post_layernorm"):
        found |= {f"{norm}.{part}": state[f"{prefix}{norm}.{part}"] for part in ("weight", "bias")}
    found |= {name: state[name] for name in state if name.startswith(_HEADS)}
    return found | _blocks(state, prefix, layout.vision)


def _text_tensors(state: Mapping[str, torch.Tensor], layout: Layout) -> dict[str, torch.Tensor]:
    prefix = "owlv2.text_model."
    found = {
        "token_embedding.weight": state[prefix + "embeddings.token_embedding.weight"],
        "positional_embedding": state[prefix + "embeddings.position_embedding.weight"],
        "text_projection": state["owlv2.text_projection.weight"].T.contiguous(),
    }
    found |= {f"ln_final.{part}": state[f"{prefix}final_layer_norm.{part}"] for part in ("weight", "bias")}
    return found | _blocks(state, prefix, layout.text)


def _blocks(state: Mapping[str, torch.Tensor], prefix: str, tower: Tower) -> dict[str, torch.Tensor]:
    """The blocks under the shared names: one projection for queries, keys and values."""
    import torch

    from lensmount_vision.towers.transformer import fold_quick_gelu

    names = {
        "attn.out_proj": "self_attn.out_proj",
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
    }
    found = {}
    for number in range(tower.layers):
        source, target = f"{prefix}encoder.layers.{number}.", f"transformer.resblocks.{number}."
        for part in ("weight", "bias"):
            joined = [state[f"{source}self_attn.{kind}_proj.{part}"] for kind in "qkv"]
            found[f"{target}attn.in_proj_{part}"] = torch.cat(joined)
            found |= {f"{target}{own}.{part}": state[f"{source}{theirs}.{part}"] for own, theirs in names.items()}
    return fold_quick_gelu(found) if tower.activation == "quick_gelu" else found
