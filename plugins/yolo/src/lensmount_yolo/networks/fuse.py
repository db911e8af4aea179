"""Folding for use: batch normalisation into the convolution before it, parallel convolutions into one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lensmount_yolo.networks.nodes import Node

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[Any]]


def fuse(network: Node, tensors: Mapping[str, NDArray[Any]]) -> tuple[Node, Arrays]:
    """Makes a network as small and quick as its function allows; outputs stay the same up to rounding.

    Folds batch normalisation, merges the parallel convolutions of `RepConv` and `RepVGGDW`, and drops the training
    branches of heads that need no suppression. In evaluation mode batch normalisation is
    `y = gamma * (x - mean) / sqrt(var + eps) + beta`, an affine map per channel, so the convolution's weights take the
    factor and its bias the rest. Both are worked out in float64.

    Args:
        network: Its tree; what is folded already is left as it is.
        tensors: By official name. They are not changed.

    Returns:
        The tree and the tensors of the folded network: `conv.weight` and `conv.bias`, as in the official exports.

    Raises:
        ValueError: Branches to be merged are not those of one convolution.
    """
    made = dict(tensors)
    return _fused(network, "model." if network.kind == "Network" else "", made), made


def _fused(node: Node, prefix: str, tensors: Arrays) -> Node:
    node = replace(node, parts={name: _fused(part, f"{prefix}{name}.", tensors) for name, part in node.parts.items()})
    parts = dict(node.parts)
    if node.kind in ("Conv", "DWConv") and _is_norm(parts.get("bn")):
        gain, shift = _affine(parts.pop("bn"), f"{prefix}bn.", tensors)
        weight = tensors[f"{prefix}conv.weight"]
        tensors[f"{prefix}conv.weight"] = weight * gain.astype(weight.dtype).reshape(-1, 1, 1, 1)
        if f"{prefix}conv.bias" in tensors:
            shift += tensors[f"{prefix}conv.bias"] * gain
        tensors[f"{prefix}conv.bias"] = shift.astype(weight.dtype)
        parts["conv"] = _with_bias(parts["conv"])
    elif node.kind == "RepConv" and "conv" not in parts:
        branches = [_plain(parts.pop(name), f"{prefix}{name}.", tensors) for name in ("conv1", "conv2")]
        parts["conv"] = _merged(branches, f"{prefix}conv.", tensors, (parts.pop("bn", None), f"{prefix}bn."))
    elif node.kind == "RepVGGDW" and "conv1" in parts:
        branches = [_plain(parts.pop(name), f"{prefix}{name}.", tensors) for name in ("conv", "conv1")]
        parts["conv"] = _merged(branches, f"{prefix}conv.", tensors)
    elif {"one2one_cv2", "one2one_cv3"} <= set(parts):
        for name in {"cv2", "cv3"} & set(parts):
            del parts[name]
            for key in [key for key in tensors if key.startswith(f"{prefix}{name}.")]:
                del tensors[key]
    return replace(node, parts=parts)


def _is_norm(node: Node | None) -> bool:
    return node is not None and node.kind == "BatchNorm2d"


def _affine(norm: Node, prefix: str, tensors: Arrays) -> tuple[NDArray[Any], NDArray[Any]]:
    """Factor and addend of a normalisation in float64; its tensors are taken out."""
    weight, bias, mean, variance = (
        tensors.pop(prefix + name).astype(np.float64) for name in ("weight", "bias", "running_mean", "running_var")
    )
    gain = weight / np.sqrt(variance + norm.settings["eps"])
    return gain, bias - mean * gain


def _with_bias(conv: Node) -> Node:
    return replace(conv, settings={**conv.settings, "bias": True})


def _plain(branch: Node, prefix: str, tensors: Arrays) -> tuple[Node, NDArray[Any], NDArray[Any] | float]:
    """The convolution of a folded branch without activation, its weight and bias, which are taken out."""
    if branch.kind == "Conv":
        bare = branch.parts.get("act", Node("Identity")).kind == "Identity" and "bn" not in branch.parts
        branch, prefix = branch.parts["conv"] if bare else branch, f"{prefix}conv."
    if branch.kind != "Conv2d":
        raise ValueError("a branch to be merged is not a plain convolution")
    return branch, tensors.pop(f"{prefix}weight"), tensors.pop(f"{prefix}bias", 0.0)


def _merged(branches: Any, prefix: str, tensors: Arrays, identity: tuple[Node | None, str] = (None, "")) -> Node:
    """The sum of two convolutions, and of a normalised input where there is one, as one: sums of kernels and biases."""
    (large, kernel, shift), (small, inner, other) = branches
    margin = (kernel.shape[2] - inner.shape[2]) // 2
    if any(large.settings[name] != small.settings[name] for name in ("stride", "groups")) or margin < 0:
        raise ValueError("branches to be merged have other strides or groups")
    weight = kernel.astype(np.float64)
    middle = slice(margin, margin + inner.shape[2])
    weight[:, :, middle, middle] += inner
    bias = np.zeros(len(weight)) + shift + other
    norm, place = identity
    if norm is not None and _is_norm(norm):
        gain, addend = _affine(norm, place, tensors)
        rows, centre = np.arange(len(weight)), kernel.shape[2] // 2
        weight[rows, rows % weight.shape[1], centre, centre] += gain
        bias += addend
    tensors[f"{prefix}weight"], tensors[f"{prefix}bias"] = weight.astype(kernel.dtype), bias.astype(kernel.dtype)
    return _with_bias(large)
