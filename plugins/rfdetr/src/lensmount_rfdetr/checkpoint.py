"""Official and fine-tuned checkpoints, and Hugging Face's layout, to a network for torch or as an ONNX graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmount.contracts.model import NetworkContext
from lensmount.contracts.session import GraphNetwork, TensorSpec, TorchNetwork
from lensmount.errors import ModelFileError, OptionError, UnsupportedModelError
from lensmount_networks import Network
from lensmount_rfdetr.keys import original_keys
from lensmount_rfdetr.layout import SYNONYMS, VARIANTS, Layout, find_variant, is_rfdetr, read_layout
from lensmount_rfdetr.names import SAID, Said, read_said, said_to_metadata
from lensmount_rfdetr.options import LoadOptions
from lensmount_rfdetr.settings import PREPROCESS, check_args, check_config, preprocess_of
from lensmount_vision.models.leftovers import require_all_used
from lensmount_vision.models.processors import PROCESSOR_FILES, pixels_metadata
from lensmount_vision.models.settings import read_json_object, unknown_note

if TYPE_CHECKING:
    from lensmount_reading import Checkpoint, TensorRef

CONFIG = "config.json"
#: Under which names checkpoints keep a network; the first that is there is used.
_PARTS = ("model", "state_dict", "ema_model")
#: Files next to the weights in a Hugging Face folder.
BESIDE = (CONFIG, *PROCESSOR_FILES)


@dataclass(frozen=True, slots=True)
class Contents:
    """What a weight file holds.

    Attributes:
        tensors: Of the network, under the authors' keys.
        facts: What it says of itself, under the names of the authors' `args`.
        said: What it says of its classes.
        args: The settings of an official checkpoint, each table by its name.
    """

    tensors: Mapping[str, TensorRef]
    facts: Mapping[str, Any]
    said: Said
    args: Mapping[str, Mapping[str, Any]]


def read_contents(checkpoint: Checkpoint, config: Mapping[str, Any] | None = None) -> Contents:
    """Sorts a checkpoint's tree; `config` is a Hugging Face folder's configuration as `read_config` gives it."""
    tree = checkpoint.tree if isinstance(checkpoint.tree, Mapping) else {}
    part = next((name for name in _PARTS if isinstance(tree.get(name), Mapping)), None)
    prefix = f"{part}." if part else ""
    chosen = {key[len(prefix) :]: ref for key, ref in checkpoint.tensors.items() if key.startswith(prefix)}
    tensors = {name: chosen[key] for key, name in original_keys(chosen).items()}
    facts: dict[str, Any] = {}
    counts = []
    args = {}
    # Newer files keep the network's settings apart from the training's.
    for name in ("hyper_parameters", "args", "model_config"):
        settings = _plain(tree.get(name))
        counts.append(settings.get("num_classes"))
        args[name] = settings
        facts.update({key: value for key, value in settings.items() if value is not None})
    facts.update(config or {})
    return Contents(tensors, facts, read_said(facts.get("class_names") or tree.get("class_names"), counts), args)


def _plain(value: Any) -> Mapping[str, Any]:
    """A namespace or dict as a dict."""
    found = getattr(value, "attributes", value)
    return found if isinstance(found, Mapping) else {}


def read_config(files: Mapping[str, Path]) -> dict[str, Any]:
    """A Hugging Face folder's configuration under the names of the authors' `args`.

    Args:
        files: The package's files.

    Raises:
        ModelFileError: A file is not JSON, or of another kind of model.
        UnsupportedModelError: It has settings that are not run here.
    """
    if CONFIG not in files:
        return {}
    config = files[CONFIG]
    raw = read_json_object(config)
    if raw.get("model_type") not in (None, "rf_detr"):
        raise ModelFileError(f"{config} is of another model", found=repr(raw.get("model_type")), expected="rf_detr")
    backbone = _plain(raw.get("backbone_config"))
    check_config(raw, None, str(config))
    stages = backbone.get("out_indices") or [
        int(name.removeprefix("stage")) for name in backbone.get("out_features") or () if str(name).startswith("stage")
    ]
    facts = {
        "patch_size": backbone.get("patch_size"),
        "num_windows": backbone.get("num_windows"),
        "backbone_heads": backbone.get("num_attention_heads"),
        "projector_eps": raw.get("layer_norm_eps"),
        "out_feature_indexes": stages or None,
        "hidden_dim": raw.get("d_model"),
        "dec_layers": raw.get("decoder_layers"),
        "sa_nheads": raw.get("decoder_self_attention_heads"),
        "ca_nheads": raw.get("decoder_cross_attention_heads"),
        "num_queries": raw.get("num_queries"),
        "mask_downsample_ratio": raw.get("mask_downsample_ratio"),
        "resolution": preprocess_of(files)[1],
        "class_names": raw.get("id2label"),
    }
    return {name: value for name, value in facts.items() if value is not None}


def says_rfdetr(config: Path) -> bool:
    """Whether a file is Hugging Face's configuration of an RF-DETR."""
    try:
        return read_json_object(config).get("model_type") == "rf_detr"
    except ModelFileError:
        return False


def check_folder(files: Mapping[str, Path], contents: Contents, layout: Layout, where: str) -> tuple[str, ...]:
    """Goes through all that a checkpoint, or the folder of one, says of itself.

    Args:
        files: The package's files.
        contents: Of the weights' file.
        layout: Of the network.
        where: The weights' file, for messages.

    Returns:
        Notes about settings that are not known.

    Raises:
        UnsupportedModelError: Naming a setting that is not what is built.
    """
    notes: tuple[str, ...] = ()
    for name, settings in contents.args.items():
        notes += unknown_note(check_args(settings, layout, f"{where} ({name})"), name)
    if CONFIG in files:
        notes += unknown_note(check_config(read_json_object(files[CONFIG]), layout, str(files[CONFIG])), CONFIG)
    return notes + unknown_note(preprocess_of(files)[2], "the image processor")


def layout_of(contents: Contents, where: str) -> Layout:
    """The sizes of a checkpoint's network.

    Raises:
        ModelFileError: Tensors are missing or contradict one another or the settings.
        UnsupportedModelError: It is no RF-DETR, or has parts or sizes that are not run here.
    """
    shapes = {name: ref.shape for name, ref in contents.tensors.items()}
    if not is_rfdetr(shapes):
        raise UnsupportedModelError(
            f"the tensors of {where} are not those of an RF-DETR",
            found=f"{len(shapes)} tensors: {', '.join(list(shapes)[:3])}",
            expected="an official or fine-tuned checkpoint, or a Hugging Face folder",
        )
    return read_layout(shapes, contents.facts, where)


def network(context: NetworkContext) -> TorchNetwork:
    """The network that the package's weights fit, as a torch module.

    Raises:
        ModelFileError: The file is corrupt, or of another variant than its card says.
        OptionError: The input size does not fit.
        UnsupportedModelError: The tensors are not those of an RF-DETR that is run here.
    """
    return build(context, *load(context)).torch()


def graph(context: NetworkContext) -> GraphNetwork:
    """The same as an ONNX graph, made without torch; raises as `network`."""
    return build(context, *load(context)).graph()


def load(context: NetworkContext) -> tuple[Contents, Layout]:
    """Reads the package's weights and their sizes, and compares them with the card; see `network`."""
    from lensmount_reading import read_checkpoint

    path = next(context.files[a.name] for a in context.package.artifacts if a.role == "weights")
    checkpoint = read_checkpoint(path)
    contents = read_contents(checkpoint, read_config(context.files))
    if isinstance(checkpoint.tree, Mapping) and not set(_PARTS).isdisjoint(checkpoint.tree):
        parts = tuple(f"{name}." for name in _PARTS)
        require_all_used(checkpoint.tensors, (n for n in checkpoint.tensors if n.startswith(parts)), path.name)
    layout = layout_of(contents, path.name)
    check_folder(context.files, contents, layout, path.name)
    promised = context.package.setting("variant") or context.card.setting("variant")
    promised = SYNONYMS.get(promised, promised)
    variant = find_variant(layout)
    known = any(release.name == promised for release in VARIANTS)
    if known and variant is not None and variant.name != promised:
        raise ModelFileError(
            f"{path.name} is of another variant than its card says",
            found=variant.name,
            expected=promised,
            fix="load the file by its path, or name its own model id",
        )
    return contents, layout


def build(context: NetworkContext, contents: Contents, layout: Layout) -> Network:
    """The network for the input size that was asked for; see `network`."""
    from lensmount_reading import as_arrays
    from lensmount_rfdetr.networks.detector import RFDETR
    from lensmount_rfdetr.networks.weights import fit

    options = context.options or LoadOptions()
    package = context.package.preprocess
    size = options.size or (package.size if package else None) or (layout.resolution, layout.resolution)
    check_size(size, layout)
    layer = partial(RFDETR, layout, size)
    batch = "batch"
    outputs = [
        TensorSpec("dets", (batch, layout.queries, 4), "float32"),
        TensorSpec("labels", (batch, layout.queries, layout.columns), "float32"),
    ]
    if layout.mask_blocks:
        masks = (size[0] // layout.mask_ratio, size[1] // layout.mask_ratio)
        outputs.append(TensorSpec("masks", (batch, layout.queries, *masks), "float32"))
    return Network(
        layer=layer,
        tensors=fit(layer(), layout, as_arrays(contents.tensors, "float32"), context.card.id),
        inputs=(TensorSpec("input", (batch, 3, *size), "float32"),),
        outputs=tuple(outputs),
        metadata={
            **metadata_of(layout),
            **pixels_metadata(preprocess_of(context.files)[0], PREPROCESS),
            SAID: said_to_metadata(contents.said),
        },
    )


def check_size(size: tuple[int, int], layout: Layout) -> None:
    """Whether an input size can be cut into patches and windows.

    Raises:
        OptionError: It cannot.
    """
    if any(side % layout.divisor for side in size):
        near = max(layout.divisor, round(size[0] / layout.divisor) * layout.divisor)
        raise OptionError(
            "input_size does not fit the network",
            found=f"{size[0]}x{size[1]}",
            expected=f"multiples of {layout.divisor} (patches of {layout.patch} pixels, {layout.windows} windows)",
            fix=f"input_size={near}",
        )


def metadata_of(layout: Layout) -> dict[str, str]:
    """What a graph of the network embeds: architecture and variant."""
    variant = find_variant(layout)
    metadata = {"lensmount.architecture": "rfdetr", "lensmount.resolution": str(layout.resolution)}
    if variant is not None:
        metadata["lensmount.variant"] = variant.name
    return metadata
