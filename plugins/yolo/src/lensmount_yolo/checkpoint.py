"""Weights of the torch form: from a file's tensors to a network with names for what goes in and comes out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lensmount.backends.base import TensorSpec
from lensmount.errors import UnsupportedModelError
from lensmount.models import NetworkContext, TorchNetwork
from lensmount.specs import ModelCard, Preprocess
from lensmount_yolo.metadata import TASKS, parse

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lensmount.reading import FileFacts


def network(context: NetworkContext) -> TorchNetwork:
    """Builds the network that the package's weights fit.

    Raises:
        ModelFileError: The file is corrupt.
        UnsupportedModelError: The tensors are not those of a version that is known here.
    """
    import torch

    from lensmount.reading import as_torch_state_dict, read_checkpoint
    from lensmount_yolo.networks.build import rebuild_network
    from lensmount_yolo.networks.fuse import fuse_conv_bn
    from lensmount_yolo.networks.v8 import DETECT, SEGMENT

    path = next(context.files[a.name] for a in context.package.artifacts if a.role == "weights")
    checkpoint = read_checkpoint(path)
    shapes = {name: ref.shape for name, ref in checkpoint.tensors.items()}
    rows = SEGMENT if _has_masks(shapes) else DETECT
    try:
        module = rebuild_network(rows, shapes)
        if not any(".bn." in name for name in shapes):  # saved after folding
            fuse_conv_bn(module)
        module.load_state_dict(as_torch_state_dict(checkpoint, dtype=torch.float32))
    except (KeyError, RuntimeError) as error:
        raise UnsupportedModelError(
            f"the tensors of {path.name} are not those of a YOLOv8", found=str(error)
        ) from error
    fuse_conv_bn(module).eval()
    outputs = [TensorSpec("output0", ("batch", 4 + module.classes + 32 * _has_masks(shapes), "cells"), "float32")]
    if _has_masks(shapes):
        outputs.append(TensorSpec("output1", ("batch", 32, "rows", "columns"), "float32"))
    return TorchNetwork(
        module=module,
        inputs=(TensorSpec("images", ("batch", 3, "height", "width"), "float32"),),
        outputs=tuple(outputs),
        metadata=dict(checkpoint.metadata),
    )


def _has_masks(shapes: Mapping[str, Sequence[int]]) -> bool:
    return any(".proto.cv1." in name for name in shapes)


def recognise_weights(facts: FileFacts) -> ModelCard | None:
    """A card for a bare weights file of a YOLO, or None."""
    from lensmount_yolo.recognise import bare_card

    shapes = {name: fact.shape for name, fact in facts.tensors.items()}
    if not any(name.startswith("model.22.cv3.") for name in shapes):
        return None
    metadata = parse(facts.metadata)
    task = metadata.task or TASKS["segment" if _has_masks(shapes) else "detect"]
    return bare_card(facts, metadata, task, "torch", facts.precision, Preprocess(size=metadata.size or (640, 640)))
