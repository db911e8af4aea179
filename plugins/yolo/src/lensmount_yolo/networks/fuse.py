"""Folding for use: batch normalisation into the convolution before it, parallel convolutions into one."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from .blocks import Conv
from .elan import RepConv
from .heads import Detect
from .lean import RepVGGDW


def fuse(network: nn.Module) -> nn.Module:
    """Makes a network as small and quick as its function allows, in place; outputs stay the same up to rounding.

    Folds batch normalisation, merges the parallel convolutions of `RepConv` and `RepVGGDW`, and drops the training
    branches of heads that need no suppression.

    Args:
        network: In evaluation mode; what is folded already is left as it is.

    Returns:
        The same module.
    """
    fuse_conv_bn(network)
    for module in network.modules():
        if isinstance(module, RepConv) and module.conv is None:
            _merge_rep_conv(module)
        elif isinstance(module, RepVGGDW) and module.conv1 is not None:
            module.conv = _merged(_plain(module.conv), _plain(module.conv1))
            module.conv1 = None
        elif isinstance(module, Detect) and module.end_to_end:
            drop_training_branches(module)
    return network


def drop_training_branches(head: Detect) -> None:
    """Removes what a head without suppression uses in training alone."""
    for name in ("cv2", "cv3"):
        if hasattr(head, name):
            delattr(head, name)


def fuse_conv_bn(network: nn.Module) -> nn.Module:
    """Folds every `Conv`'s batch normalisation into its convolution, in place.

    In evaluation mode batch normalisation is `y = gamma * (x - mean) / sqrt(var + eps) + beta`, an affine map per
    channel, so the convolution's weights take the factor and its bias the rest. Both are worked out in float64.

    Args:
        network: Any module; already folded `Conv`s are left as they are.

    Returns:
        The same module. `Conv.bn` is an Identity thereafter; tensors are `conv.weight` and `conv.bias`, as in the
        official exports.
    """
    for module in network.modules():
        if isinstance(module, Conv) and isinstance(module.bn, nn.BatchNorm2d):
            module.conv = _folded(module.conv, module.bn)
            module.bn = nn.Identity()
    return network


def _folded(conv: nn.Conv2d, bn: nn.BatchNorm2d) -> nn.Conv2d:
    assert bn.running_mean is not None
    assert bn.running_var is not None
    with torch.no_grad():
        gain = bn.weight.double() / torch.sqrt(bn.running_var.double() + bn.eps)
        weight = conv.weight * gain.to(conv.weight.dtype).view(-1, 1, 1, 1)
        bias = bn.bias.double() - bn.running_mean.double() * gain
        if conv.bias is not None:
            bias += conv.bias.double() * gain
        conv.weight = nn.Parameter(weight, requires_grad=False)
        conv.bias = nn.Parameter(bias.to(weight.dtype), requires_grad=False)
    return conv


def _plain(branch: nn.Module) -> nn.Conv2d:
    """The convolution of a folded branch without activation."""
    conv = branch.conv if isinstance(branch, Conv) else branch
    if not isinstance(conv, nn.Conv2d) or (isinstance(branch, Conv) and not isinstance(branch.act, nn.Identity)):
        raise ValueError("a branch to be merged is not a plain convolution")
    return conv


def _merge_rep_conv(block: RepConv) -> None:
    block.conv = _merged(_plain(block.conv1), _plain(block.conv2), block.bn)
    block.bn = None
    del block.conv1, block.conv2


def _merged(large: nn.Conv2d, small: nn.Conv2d, identity: nn.Module | None = None) -> nn.Conv2d:
    """The sum of two convolutions, and of a normalised input where there is one, as one: sums of kernels and biases."""
    margin = (large.kernel_size[0] - small.kernel_size[0]) // 2
    if (large.stride, large.groups) != (small.stride, small.groups) or margin < 0:
        raise ValueError("branches to be merged have other strides or groups")
    with torch.no_grad():
        weight = large.weight.double() + F.pad(small.weight.double(), [margin] * 4)
        bias = sum((c.bias.double() for c in (large, small) if c.bias is not None), torch.zeros(len(weight)).double())
        if isinstance(identity, nn.BatchNorm2d):
            assert identity.running_mean is not None
            assert identity.running_var is not None
            gain = identity.weight.double() / torch.sqrt(identity.running_var.double() + identity.eps)
            middle = large.kernel_size[0] // 2
            rows = torch.arange(len(weight))
            weight[rows, rows % weight.shape[1], middle, middle] += gain
            bias = bias + identity.bias.double() - identity.running_mean.double() * gain
        dtype = large.weight.dtype
        large.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
        large.bias = nn.Parameter(bias.to(dtype), requires_grad=False)
    return large
