"""From a Hugging Face file's tensors to two networks with names for what goes in and comes out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmount.contracts.model import NetworkContext
from lensmount.contracts.session import GraphNetwork, TensorSpec, TorchNetwork
from lensmount_networks import Network, fitting
from lensmount_owlv2.layout import Layout, Tower, read_json, read_layout
from lensmount_owlv2.settings import environment_flag
from lensmount_vision.models.leftovers import Taken
from lensmount_vision.towers.recognise import CONTEXT, VOCABULARY

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lensmount_networks import Layer

    Arrays = Mapping[str, NDArray[Any]]

#: In the metadata of networks and exported graphs: which network it is.
NETWORK = "lensmount.network"
IMAGE_OUTPUTS = ("objectness_logits", "boxes", "class_embeds", "logit_shift", "logit_scale")
#: What CLIP needs and detection does not: its scale, and the projection of pictures.
UNUSED = (r"^owlv2\.(logit_scale|visual_projection\.weight)$",)
_HEADS = ("class_head.", "box_head.", "objectness_head.", "layer_norm.")


def network(context: NetworkContext) -> dict[str, TorchNetwork]:
    """Both towers as torch modules; raises as `networks`."""
    with fitting(_path(context), "an OWLv2"):
        made = {name: network.torch() for name, network in networks(context).items()}
    if environment_flag("OWLV2_COMPILE_MODEL", False):
        made["image"].module.compile()
    return made


def graph(context: NetworkContext) -> dict[str, GraphNetwork]:
    """Both towers as ONNX graphs; raises as `networks`."""
    with fitting(_path(context), "an OWLv2"):
        return {name: network.graph() for name, network in networks(context).items()}


def _path(context: NetworkContext) -> Path:
    return next(context.files[a.name] for a in context.package.artifacts if a.role == "weights")


def networks(context: NetworkContext) -> dict[str, Network]:
    """Reads the image and the text tower.

    Raises:
        ModelFileError: The file is corrupt.
        UnsupportedModelError: The tensors are not those of an OWLv2.
    """
    from lensmount_reading import as_arrays, read_checkpoint
    from lensmount_vision.towers.transformer import fold_quick_gelu

    path = _path(context)
    checkpoint = read_checkpoint(path)
    config = read_json(context.files["config.json"]) if "config.json" in context.files else {}
    layout = read_layout({name: ref.shape for name, ref in checkpoint.tensors.items()}, config, path.name)
    layout.check(config, "config.json")
    state = Taken(as_arrays(checkpoint, "float32"))
    size, cells = layout.image_size, layout.side**2
    shapes: tuple[tuple[int | str, ...], ...] = (
        ("batch", cells),
        ("batch", cells, 4),
        ("batch", cells, layout.dimension),
        ("batch", cells),
        ("batch", cells),
    )
    with fitting(path, "an OWLv2"):
        image, text = _image_tensors(state, layout), _text_tensors(state, layout)
        metadata = {NETWORK: identify(state), CONTEXT: str(layout.context), VOCABULARY: str(layout.vocabulary)}
        state.require_all(path.name, harmless=UNUSED)
        return {
            "image": Network(
                layer=partial(_image, layout),
                tensors=image,
                inputs=(TensorSpec("images", ("batch", 3, size, size), "float32"),),
                outputs=tuple(TensorSpec(n, s, "float32") for n, s in zip(IMAGE_OUTPUTS, shapes, strict=True)),
                metadata=metadata,
                for_torch=fold_quick_gelu,
            ),
            "text": Network(
                layer=partial(_text, layout),
                tensors=text,
                inputs=(TensorSpec("tokens", ("batch", "length"), "int64"),),
                outputs=(TensorSpec("text_embeds", ("batch", layout.dimension), "float32"),),
                metadata=metadata,
                for_torch=fold_quick_gelu,
            ),
        }


def identify(state: Arrays) -> str:
    """Which network this is: a digest of its heads, the same for every form of it.

    The heads alone (some 12 MB) are read, not the towers: networks whose embeddings are not comparable have others.
    """
    import numpy as np

    digest = hashlib.sha256()
    for name in sorted(name for name in state if name.startswith(_HEADS)):
        digest.update(f"{name} {tuple(state[name].shape)}".encode())
        digest.update(np.ascontiguousarray(state[name]).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()[:40]


def _own(tower: Tower) -> dict[str, Any]:
    names = ("width", "layers", "heads", "hidden", "activation")
    return {name: getattr(tower, name) for name in names}


def _image(layout: Layout) -> Layer:
    from lensmount_owlv2.network import ImageTower
    from lensmount_vision.towers.transformer import set_epsilon

    tower = layout.vision
    made = ImageTower(side=layout.side, patch=layout.patch, dimension=layout.dimension, **_own(tower))
    return set_epsilon(made, tower.epsilon)


def _text(layout: Layout) -> Layer:
    from lensmount_vision.towers.transformer import TextTower, set_epsilon

    tower = layout.text
    sizes = {"vocabulary": layout.vocabulary, "context": layout.context, "dimension": layout.dimension, **_own(tower)}
    return set_epsilon(TextTower(**sizes), tower.epsilon)


def _image_tensors(state: Arrays, layout: Layout) -> dict[str, NDArray[Any]]:
    prefix = "owlv2.vision_model."
    found = {
        "patch_embedding.weight": state[prefix + "embeddings.patch_embedding.weight"],
        "class_embedding": state[prefix + "embeddings.class_embedding"],
        "position_embedding": state[prefix + "embeddings.position_embedding.weight"],
    }
    for norm in ("pre_layernorm", "post_layernorm"):
        found |= {f"{norm}.{part}": state[f"{prefix}{norm}.{part}"] for part in ("weight", "bias")}
    found |= {name: state[name] for name in state if name.startswith(_HEADS)}
    return found | _blocks(state, prefix, layout.vision)


def _text_tensors(state: Arrays, layout: Layout) -> dict[str, NDArray[Any]]:
    import numpy as np

    prefix = "owlv2.text_model."
    found = {
        "token_embedding.weight": state[prefix + "embeddings.token_embedding.weight"],
        "positional_embedding": state[prefix + "embeddings.position_embedding.weight"],
        "text_projection": np.ascontiguousarray(state["owlv2.text_projection.weight"].T),
    }
    found |= {f"ln_final.{part}": state[f"{prefix}final_layer_norm.{part}"] for part in ("weight", "bias")}
    return found | _blocks(state, prefix, layout.text)


def _blocks(state: Arrays, prefix: str, tower: Tower) -> dict[str, NDArray[Any]]:
    """The blocks under the shared names: one projection for queries, keys and values."""
    import numpy as np

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
            found[f"{target}attn.in_proj_{part}"] = np.concatenate(joined)
            found |= {f"{target}{own}.{part}": state[f"{source}{theirs}.{part}"] for own, theirs in names.items()}
    return found
