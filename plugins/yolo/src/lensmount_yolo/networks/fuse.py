"""Folding batch normalisation into the convolution before it."""

from __future__ import annotations

import torch
from torch import nn

from .blocks import Conv


def fuse_conv_bn(network: nn.Module) -> nn.Module:
    """Folds every `Conv`'s batch normalisation into its convolution, in place.

    In evaluation mode batch normalisation is `y = gamma * (x - mean) / sqrt(var + eps) + beta`, an affine map per
    channel, so the convolution's weights take the factor and its bias the rest. The products are taken in float64.

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
        weight = conv.weight.double() * gain.view(-1, 1, 1, 1)
        bias = bn.bias.double() - bn.running_mean.double() * gain
        if conv.bias is not None:
            bias += conv.bias.double() * gain
        conv.weight = nn.Parameter(weight.to(conv.weight.dtype), requires_grad=False)
        conv.bias = nn.Parameter(bias.to(conv.weight.dtype), requires_grad=False)
    return conv
