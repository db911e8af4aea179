"""A torch module of a network that is to be trained: the layers of its tree, with fresh weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from lensmount_networks import torch_module
from lensmount_networks.layers import declared
from lensmount_yolo.networks.assemble import assemble
from lensmount_yolo.networks.tensors import measure


def build_network(shapes: Mapping[str, Sequence[int]]) -> Any:
    """A network that tensors of these shapes fit, in training mode.

    Its tensors bear the official names. Weights are drawn as torch draws those of its own layers, by its generator;
    bins of distances are 0, 1, 2, ….

    Args:
        shapes: By official name, as `v8.v8` gives them, or those of a file.

    Returns:
        A `torch.nn.Module`; in training mode its head gives `RawOutputs`.

    Raises:
        UnsupportedModelError: The shapes are those of no version that is known here.
    """
    layer = assemble(measure(shapes))
    module = torch_module(layer, {name: _fresh(name, d.shape, shapes) for name, _, _, d in declared(layer)})
    for name, weight in module.named_parameters():
        weight.requires_grad_(".dfl." not in name)
    return module.train()


def _fresh(name: str, shape: Sequence[int], shapes: Mapping[str, Sequence[int]]) -> torch.Tensor:
    owner, _, last = name.rpartition(".")
    if ".dfl." in name:
        return torch.arange(shape[1]).float().reshape(tuple(shape))
    if len(shapes.get(f"{owner}.weight", ())) > 1:  # a convolution or a linear layer
        bound = 1 / math.sqrt(math.prod(shapes[f"{owner}.weight"][1:]))
        return torch.empty(tuple(shape)).uniform_(-bound, bound)
    return torch.ones(tuple(shape)) if last in ("weight", "running_var") else torch.zeros(tuple(shape))
