"""Weights of the torch form: from a file to a network with names for what goes in and comes out.

Official files (a pickled tree of modules) are read by the core's inert reader; nothing of them runs, and ultralytics
is not needed. safetensors files say how their network is built if lensmount wrote them; of others it is worked out
from the tensors' names and shapes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lensmount.contracts.model import NetworkContext
from lensmount.contracts.session import GraphNetwork, TensorSpec, TorchNetwork
from lensmount.errors import ModelFileError, UnsupportedModelError
from lensmount.specs import ModelCard, ModelPackage, Preprocess
from lensmount_networks import Network
from lensmount_networks.layers import check
from lensmount_yolo.cards import bare_card
from lensmount_yolo.metadata import TASKS, parse
from lensmount_yolo.networks.nodes import Node, from_json
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

    from numpy.typing import NDArray

    from lensmount_reading import Checkpoint, FileFacts, TensorRef
    from lensmount_yolo.networks.assemble import Network as Layers

#: Key of a safetensors header under which the tree of the network stands.
NETWORK_KEY = "lensmount.network"
#: What training keeps next to a network, beyond what all checkpoints do.
_BESIDE = (r"^(train_\w+|best_fitness|updates|stride|nc|names)(\.|$)",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A network with its weights, and the output shapes that it gives.

    Attributes:
        described: What the file says.
        tree: Its network, with the branches that were asked for alone.
        tensors: float32 by official name.
        outputs: Names and shapes; words stand for free sizes.
    """

    described: Described
    tree: Node
    tensors: Mapping[str, NDArray[Any]]
    outputs: tuple[TensorSpec, ...]

    @property
    def channels(self) -> int:
        """Channels of the picture that the network takes."""
        return input_channels(self.tree)

    @property
    def head(self) -> Node:
        """The last row."""
        return head_of(self.tree)

    @property
    def end_to_end(self) -> bool:
        """Whether the head gives final rows."""
        return is_end_to_end(self.head)

    def folded(self) -> Loaded:
        """The same, as small and quick as its function allows.

        Raises:
            ModelFileError: Parallel branches are not those of one convolution.
        """
        from lensmount_yolo.networks.fuse import fuse

        with _together():
            tree, tensors = fuse(self.tree, self.tensors)
        return replace(self, tree=tree, tensors=tensors)

    def network(self) -> Network:
        """The network in the forms of torch and of ONNX, batch and size free."""
        return Network(
            layer=self.layer,
            tensors=self.tensors,
            inputs=(TensorSpec("images", ("batch", self.channels, "height", "width"), "float32"),),
            outputs=self.outputs,
            metadata=self.described.metadata,
        )

    def layer(self) -> Layers:
        """The layers, without tensors."""
        from lensmount_yolo.networks.assemble import assemble

        return assemble(self.tree)


def network(context: NetworkContext) -> TorchNetwork:
    """Builds the network that the package's weights file describes, folded for use.

    Raises:
        ModelFileError: The file is corrupt, or its parts contradict one another.
        UnsupportedModelError: It holds a network that is not known here.
    """
    return _loaded(context).folded().network().torch()


def graph(context: NetworkContext) -> GraphNetwork:
    """The same network as an ONNX graph, made without torch; raises as `network`."""
    return _loaded(context).folded().network().graph()


def _loaded(context: NetworkContext) -> Loaded:
    path = next(context.files[a.name] for a in context.package.artifacts if a.role == "weights")
    options = context.options if isinstance(context.options, LoadOptions) else LoadOptions()
    return load_network(path, end_to_end=branches(context.package, options.end_to_end))


def load_network(path: Path, *, end_to_end: bool | None = None) -> Loaded:
    """Reads a file and the network that it describes, not folded.

    Args:
        path: An official `.pt`, a state dict, or safetensors.
        end_to_end: Whether a head that has both runs the branches that need no suppression (v10, 26); None for those
            that need it, where the file has them.

    Raises:
        ModelFileError: The file is corrupt, or its parts contradict one another.
        UnsupportedModelError: It holds a network that is not known here.
    """
    from lensmount_reading import as_arrays, read_checkpoint
    from lensmount_yolo.networks.assemble import assemble

    described, references = describe(read_checkpoint(path, modules="records"))
    assemble(described.network)  # all of it, before parts are left out
    described, tree = _choose_branches(described, end_to_end)
    single = is_end_to_end(head_of(tree))
    wanted = {
        name: reference
        for name, reference in references.items()
        if not name.endswith(".num_batches_tracked") and (single or ".one2one_" not in name)
    }
    loaded = Loaded(described=described, tree=tree, tensors=as_arrays(wanted, "float32"), outputs=())
    try:
        check(loaded.layer(), loaded.tensors)
    except ValueError as error:
        raise ModelFileError(
            f"the tensors of {path.name} do not fit the network that the file describes",
            found=str(error)[:300],
            fix="download or save the file again",
        ) from error
    return replace(loaded, outputs=_outputs(loaded))


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


def _choose_branches(described: Described, end_to_end: bool | None) -> tuple[Described, Node]:
    tree = described.network
    head = head_of(tree)
    able = is_end_to_end(head)
    if end_to_end and not able:
        raise UnsupportedModelError(
            "end_to_end=True was asked for, but the network's head has no branches for it",
            found=head.kind,
            expected="a head of v10 or 26",
        )
    if end_to_end or not able:
        return described, tree
    if not {"cv2", "cv3"} <= set(head.parts):
        if end_to_end is None:
            return described, tree
        raise UnsupportedModelError(
            "end_to_end=False was asked for, but the file was saved without those branches", fix="leave end_to_end out"
        )
    plain = replace(head, parts={name: part for name, part in head.parts.items() if not name.startswith("one2one_")})
    rows = {**tree.parts, list(tree.parts)[-1]: plain}
    return replace(described, metadata={**described.metadata, "end2end": "False"}), replace(tree, parts=rows)


@contextlib.contextmanager
def _together() -> Iterator[None]:
    """Turns what arithmetic on parts that do not fit one another raises into the error that says so."""
    try:
        yield
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise ModelFileError(
            "the parts of the network do not fit one another",
            found=" ".join(str(error).split())[:300],
            fix="save the checkpoint again, or export it to ONNX where it was trained and load that",
        ) from error


def _outputs(loaded: Loaded) -> tuple[TensorSpec, ...]:
    """Output shapes, worked out for the smallest picture; finds rows that do not fit one another."""
    side = 2 * max(loaded.head.settings.get("strides") or (32,))
    with _together():
        main, *more = loaded.network().shapes({"batch": 1, "height": side, "width": side})
    if loaded.head.kind == "Classify":
        return (TensorSpec("output0", ("batch", main[1]), "float32"),)
    cells = main[2] if loaded.end_to_end else "cells"
    specs = [TensorSpec("output0", ("batch", main[1], cells), "float32")]
    if more:
        specs.append(TensorSpec("output1", ("batch", more[0][1], "mask_rows", "mask_columns"), "float32"))
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
