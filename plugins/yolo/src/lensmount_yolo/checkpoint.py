"""Weights of the torch form: from a file to a network with names for what goes in and comes out.

Official files (a pickled tree of modules) are read by the core's inert reader; nothing of them runs, and ultralytics
is not needed. safetensors files say how their network is built if lensmount wrote them; of others it is worked out
from the tensors' names and shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lensmount.contracts.model import NetworkContext
from lensmount.contracts.session import TensorSpec, TorchNetwork
from lensmount.errors import ModelFileError, UnsupportedModelError
from lensmount.specs import ModelCard, ModelPackage, Preprocess
from lensmount_yolo.cards import bare_card
from lensmount_yolo.metadata import TASKS, parse
from lensmount_yolo.networks.nodes import from_json
from lensmount_yolo.official import (
    TASK_OF_HEAD,
    Described,
    class_count,
    describe_official,
    find_model,
    head_of,
    input_channels,
    is_end_to_end,
)
from lensmount_yolo.options import LoadOptions

if TYPE_CHECKING:
    from pathlib import Path

    from lensmount_reading import Checkpoint, FileFacts, TensorRef
    from lensmount_yolo.networks.assemble import Network

#: Key of a safetensors header under which the tree of the network stands.
NETWORK_KEY = "lensmount.network"
#: What training keeps next to a network, beyond what all checkpoints do.
_BESIDE = (r"^(train_\w+|best_fitness|updates|stride|nc|names)(\.|$)",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A network with its weights, and the output shapes that it gives."""

    module: Network
    described: Described
    outputs: tuple[TensorSpec, ...]

    @property
    def module_channels(self) -> int:
        """Channels of the picture that the network takes."""
        return input_channels(self.described.network)


def network(context: NetworkContext) -> TorchNetwork:
    """Builds the network that the package's weights file describes, folded for use.

    Raises:
        ModelFileError: The file is corrupt, or its parts contradict one another.
        UnsupportedModelError: It holds a network that is not known here.
    """
    from lensmount_yolo.networks.fuse import fuse

    path = next(context.files[a.name] for a in context.package.artifacts if a.role == "weights")
    options = context.options if isinstance(context.options, LoadOptions) else LoadOptions()
    loaded = load_network(path, end_to_end=branches(context.package, options.end_to_end))
    fuse(loaded.module)
    channels = loaded.module_channels
    return TorchNetwork(
        module=loaded.module,
        inputs=(TensorSpec("images", ("batch", channels, "height", "width"), "float32"),),
        outputs=loaded.outputs,
        metadata=loaded.described.metadata,
    )


def load_network(path: Path, *, end_to_end: bool | None = None) -> Loaded:
    """Reads a file and builds its network, in evaluation mode, float32, not folded.

    Args:
        path: An official `.pt`, a state dict, or safetensors.
        end_to_end: Whether a head that has both runs the branches that need no suppression (v10, 26); None for those
            that need it, where the file has them.

    Raises:
        ModelFileError: The file is corrupt, or its parts contradict one another.
        UnsupportedModelError: It holds a network that is not known here.
    """
    import torch

    from lensmount_reading import as_torch_state_dict, read_checkpoint
    from lensmount_yolo.networks.assemble import assemble

    checkpoint = read_checkpoint(path, modules="records")
    described, tensors = describe(checkpoint)
    with torch.device("meta"):  # nothing is drawn or allocated: the file's tensors take the place
        module = assemble(described.network).eval()
        described = _choose_branches(module, described, end_to_end)
    state = as_torch_state_dict(tensors, dtype=torch.float32)
    try:
        if not getattr(module.head, "end_to_end", False):
            state = {name: tensor for name, tensor in state.items() if ".one2one_" not in name}
        module.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise ModelFileError(
            f"the tensors of {path.name} do not fit the network that the file describes",
            found=" ".join(str(error).split())[:300],
            fix="download or save the file again",
        ) from error
    module.requires_grad_(False)
    return Loaded(module=module, described=described, outputs=_probe(module, described))


def describe(checkpoint: Checkpoint) -> tuple[Described, Mapping[str, TensorRef]]:
    """The network of a file, and its tensors under the official names (`model.0.conv.weight`).

    Raises:
        UnsupportedModelError: There is no network that is known here, or it could not be put together.
    """
    from lensmount_yolo.networks.parts import require_parts

    described, tensors = _described(checkpoint)
    require_parts(described.network)
    return described, tensors


def _described(checkpoint: Checkpoint) -> tuple[Described, Mapping[str, TensorRef]]:
    from lensmount_reading import module_state_dict

    root = find_model(checkpoint)
    if root is not None:
        return describe_official(checkpoint, root), module_state_dict(root)
    text = checkpoint.metadata.get(NETWORK_KEY)
    if text is not None:
        tree = from_json(text)
        head_of(tree)
        return Described(network=tree, metadata=_without_tree(checkpoint.metadata)), checkpoint.tensors
    from lensmount_vision.models.leftovers import require_all_used
    from lensmount_yolo.networks.tensors import is_of_network, measure, official_names

    tensors = official_names(checkpoint.tensors)
    require_all_used(
        checkpoint.tensors, filter(is_of_network, checkpoint.tensors), checkpoint.path.name, harmless=_BESIDE
    )
    shapes = {name: ref.shape for name, ref in tensors.items()}
    tree = measure(shapes, parse(checkpoint.metadata).keypoints)
    return Described(network=tree, metadata=_completed(checkpoint.metadata, tree)), tensors


def _without_tree(metadata: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in metadata.items() if key != NETWORK_KEY}


def _completed(metadata: Mapping[str, str], tree: Any) -> dict[str, str]:
    """What the tensors themselves tell, below what the header says."""
    from lensmount_yolo.official import description

    head = head_of(tree)
    task = TASK_OF_HEAD[head.kind]
    found = {
        "task": task,
        "stride": str(max(head.settings.get("strides") or (32,))),
        "end2end": str(is_end_to_end(head)),
        "description": description(tree, "", task, class_count(head)),
    }
    if head.kind == "Pose":
        found["kpt_shape"] = str(list(head.settings["kpt_shape"]))
    return {**found, **_without_tree(metadata)}


def branches(package: ModelPackage, asked: bool | None) -> bool | None:
    """Whether the branches without suppression run: as asked for, else as the package says, else None."""
    return package.setting("end_to_end") if asked is None else asked


def _choose_branches(module: Network, described: Described, end_to_end: bool | None) -> Described:
    from lensmount_yolo.networks.heads import Detect

    head = module.head
    able = isinstance(head, Detect) and head.end_to_end
    if end_to_end and not able:
        raise UnsupportedModelError(
            "end_to_end=True was asked for, but the network's head has no branches for it",
            found=type(head).__name__,
            expected="a head of v10 or 26",
        )
    if end_to_end or not isinstance(head, Detect) or not able:
        return described
    if not hasattr(head, "cv2") or not hasattr(head, "cv3"):
        if end_to_end is None:
            return described
        raise UnsupportedModelError(
            "end_to_end=False was asked for, but the file was saved without those branches", fix="leave end_to_end out"
        )
    del head.one2one_cv2, head.one2one_cv3
    head.end_to_end = False
    return Described(
        network=described.network, metadata={**described.metadata, "end2end": "False"}, root=described.root
    )


def _probe(module: Network, described: Described) -> tuple[TensorSpec, ...]:
    """Output shapes, from a run on the smallest picture; finds rows that do not fit one another."""
    import torch

    head = head_of(described.network)
    side = 2 * max(head.settings.get("strides") or (32,))
    try:
        with torch.inference_mode():
            result = module(torch.zeros(1, input_channels(described.network), side, side))
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
        raise ModelFileError(
            "the parts of the network do not fit one another",
            found=" ".join(str(error).split())[:300],
            fix="save the checkpoint again, or export it to ONNX where it was trained and load that",
        ) from error
    results = result if isinstance(result, tuple) else (result,)
    if not all(isinstance(item, torch.Tensor) for item in results):
        raise UnsupportedModelError("the network's last row gives no predictions", found=head.kind)
    main = tuple(results[0].shape)
    if head.kind == "Classify":
        return (TensorSpec("output0", ("batch", main[1]), "float32"),)
    rows = bool(getattr(module.head, "end_to_end", False))
    shape: tuple[int | str, ...] = ("batch", main[1], main[2]) if rows else ("batch", main[1], "cells")
    specs = [TensorSpec("output0", shape, "float32")]
    if len(results) > 1:
        specs.append(TensorSpec("output1", ("batch", results[1].shape[1], "mask_rows", "mask_columns"), "float32"))
    return tuple(specs)


def recognise_weights(facts: FileFacts) -> ModelCard | None:
    """A card for a bare weights file of a YOLO, or None for a file of something else.

    Raises:
        UnsupportedModelError: It is a YOLO's, but of a kind that is not supported.
        ModelFileError: Its parts contradict one another.
    """
    from lensmount_yolo.networks.tensors import looks_official

    pickled = any(name.startswith(("ultralytics.", "models.yolo.", "yolov5.models.")) for name in facts.globals)
    if not (pickled or NETWORK_KEY in facts.metadata or looks_official(facts.tensors)):
        return None
    described, _ = describe(facts.checkpoint)
    metadata = parse(described.metadata)
    task = metadata.task or TASKS[TASK_OF_HEAD[head_of(described.network).kind]]
    preprocess = (
        None
        if task == "classification"
        else Preprocess(size=metadata.size or (640, 640), channels=input_channels(described.network))
    )
    return bare_card(facts, metadata, task, "torch", preprocess, class_count(head_of(described.network)))
