"""Operations of networks: on torch tensors they call torch, on values of a graph they append ONNX nodes.

Names, arguments and results are torch's. What is not here is an operator or a method of the tensor itself:
`+ - * / // % ** @`, comparisons, `[…]`, `shape`, `reshape`, `flatten`, `permute`, `transpose`, `mT`, `unsqueeze`,
`squeeze`, `expand`, `chunk`, `split`, `mean`, `sum`, `amax`, `amin`, `argmax`.
"""

from lensmount_networks.ops.attention import attention
from lensmount_networks.ops.convolutions import (
    avg_pool2d,
    conv2d,
    conv_transpose2d,
    grid_sample,
    max_pool2d,
    pad,
    resize,
)
from lensmount_networks.ops.elementwise import (
    abs,  # torch's name
    cast,
    ceil,
    clamp,
    cos,
    elu,
    erf,
    exp,
    floor,
    gelu,
    hardswish,
    leaky_relu,
    log,
    maximum,
    minimum,
    relu,
    sigmoid,
    silu,
    sin,
    softmax,
    softplus,
    sqrt,
    tanh,
    where,
)
from lensmount_networks.ops.linear import batch_norm, group_norm, layer_norm, linear
from lensmount_networks.ops.places import arange, concat, contiguous, embedding, full, gather, put, stack, take, topk
from lensmount_networks.ops.suppression import non_max_suppression

__all__ = [
    "abs", "arange", "attention", "avg_pool2d", "batch_norm", "cast", "ceil", "clamp", "concat", "contiguous",
    "conv2d", "conv_transpose2d", "cos", "elu", "embedding", "erf", "exp", "floor", "full", "gather", "gelu",
    "grid_sample", "group_norm", "hardswish", "layer_norm", "leaky_relu", "linear", "log", "max_pool2d", "maximum",
    "minimum", "non_max_suppression", "pad", "put", "relu", "resize", "sigmoid", "silu", "sin", "softmax", "softplus",
    "sqrt", "stack", "take", "tanh", "topk", "where",
]  # fmt: skip
