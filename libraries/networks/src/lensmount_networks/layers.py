"""How a network is written: layers whose parameters bear the names of the official files.

A layer is a plain class. Its `__init__` names its parameters and its parts, its `forward` computes with `self`'s
attributes and the functions of `lensmount_networks.ops`:

    class Mlp(Layer):
        def __init__(self, width: int, hidden: int) -> None:
            self.c_fc = Linear(width, hidden)              # parameters c_fc.weight and c_fc.bias
            self.c_proj = Linear(hidden, width)
            self.gain = parameter(width)                   # a tensor of its own

        def forward(self, x):
            return x + self.c_proj(ops.gelu(self.c_fc(x))) * self.gain

Write it as a `torch.nn.Module` of inference, with these rules:

* `x.shape` holds whole numbers, or a `Size` where an axis is free: compute with `+ - * //`, pass it on to `reshape`,
  `expand`, `ops.arange` or `ops.resize`, but never ask `if` about a free size, nor about a tensor.
* Lists of parts are `Layers`, chains are `Sequential`; parts that may be missing are None.
* No tensor is changed in place, and none is made from numbers in `forward`: `constant(array)` in `__init__` holds a
  table that follows from sizes, `ops.arange` and `ops.full` make the others.
* Two tensors of one operator have one dtype; numbers take the tensor's.

`lensmount_networks.Network` then makes a `torch.nn.Module` or an ONNX graph of it, with the tensors of a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lensmount_networks import ops

__all__ = [
    "BatchNorm2d", "Conv2d", "ConvTranspose2d", "Embedding", "GroupNorm", "Layer", "LayerNorm", "Layers", "Linear",
    "Sequential", "Tensor", "buffer", "check", "constant", "declared", "parameter", "parts",
]  # fmt: skip

if TYPE_CHECKING:
    from numpy.typing import NDArray

Pair = int | tuple[int, int]
"""One number for both sides, or height and width."""

Tensor = Any
"""A torch tensor or a `Value` of a graph: what a network's code sees is the same."""


@dataclass(frozen=True, slots=True, eq=False)
class Declared:
    """A tensor that a layer needs.

    Attributes:
        shape: Its shape.
        trained: Whether it is a parameter; else a buffer (running statistics, tables).
        array: Its values where they follow from sizes, and no file holds them.
    """

    shape: tuple[int, ...]
    trained: bool = True
    array: NDArray[Any] | None = None


def parameter(*shape: int) -> Any:
    """A trained tensor that files hold under the attribute's name."""
    return Declared(shape)


def buffer(*shape: int) -> Any:
    """A tensor that files hold and training does not touch by gradients."""
    return Declared(shape, trained=False)


def constant(array: NDArray[Any]) -> Any:
    """A table that follows from sizes; files do not hold it."""
    return Declared(array.shape, trained=False, array=array)


class Layer:
    """Base of all layers; see this module's text for how one is written."""

    training = False

    forward: Callable[..., Any]
    """Computes; a subclass says what."""

    def __call__(self, *inputs: Any, **settings: Any) -> Any:
        """Computes: `forward`."""
        return self.forward(*inputs, **settings)


class Layers(Layer):
    """A list of layers, named by their numbers."""

    def __init__(self, parts: Iterable[Any]) -> None:
        self.length = 0
        for part in parts:
            setattr(self, str(self.length), part)
            self.length += 1

    def __iter__(self) -> Iterator[Any]:
        return (getattr(self, str(number)) for number in range(self.length))

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: Any) -> Any:
        numbers = range(self.length)[index]
        return getattr(self, str(numbers)) if isinstance(numbers, int) else [getattr(self, str(n)) for n in numbers]


class Sequential(Layers):
    """Layers one behind the other."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(parts)

    def forward(self, x: Tensor) -> Tensor:
        """Through all of them."""
        for part in self:
            x = part(x)
        return x


class Linear(Layer):
    """`(…, inputs)` to `(…, outputs)`."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        self.weight = parameter(outputs, inputs)
        self.bias = parameter(outputs) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """See `ops.linear`."""
        return ops.linear(x, self.weight, self.bias)


class Conv2d(Layer):
    """A convolution; see `ops.conv2d`."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: Pair,
        stride: Pair = 1,
        padding: Pair = 0,
        *,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        sides = (kernel, kernel) if isinstance(kernel, int) else tuple(kernel)
        self.weight = parameter(outputs, inputs // groups, *sides)
        self.bias = parameter(outputs) if bias else None
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` to `(B, O, h, w)`."""
        return ops.conv2d(
            x,
            self.weight,
            self.bias,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
        )


class ConvTranspose2d(Layer):
    """A transposed convolution; see `ops.conv_transpose2d`."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        padding: int = 0,
        *,
        output_padding: int = 0,
        bias: bool = True,
    ) -> None:
        self.weight = parameter(inputs, outputs, kernel, kernel)
        self.bias = parameter(outputs) if bias else None
        self.stride, self.padding, self.output_padding = stride, padding, output_padding

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` to `(B, O, h, w)`."""
        return ops.conv_transpose2d(
            x, self.weight, self.bias, stride=self.stride, padding=self.padding, output_padding=self.output_padding
        )


class LayerNorm(Layer):
    """Normalises the last axis."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        self.weight, self.bias = parameter(width), parameter(width)
        self.width, self.eps = width, eps

    def forward(self, x: Tensor) -> Tensor:
        """See `ops.layer_norm`."""
        return ops.layer_norm(x, (self.width,), self.weight, self.bias, self.eps)


class GroupNorm(Layer):
    """Normalises groups of channels."""

    def __init__(self, groups: int, channels: int, eps: float = 1e-5) -> None:
        self.weight, self.bias = parameter(channels), parameter(channels)
        self.groups, self.eps = groups, eps

    def forward(self, x: Tensor) -> Tensor:
        """See `ops.group_norm`."""
        return ops.group_norm(x, self.groups, self.weight, self.bias, self.eps)


class BatchNorm2d(Layer):
    """Normalises channels by running statistics; in training by the batch's."""

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        self.weight, self.bias = parameter(channels), parameter(channels)
        self.running_mean, self.running_var = buffer(channels), buffer(channels)
        self.eps, self.momentum = eps, momentum

    def forward(self, x: Tensor) -> Tensor:
        """See `ops.batch_norm`."""
        return ops.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.eps,
            training=self.training,
            momentum=self.momentum,
        )


class Embedding(Layer):
    """Rows of a table by number."""

    def __init__(self, rows: int, width: int) -> None:
        self.weight = parameter(rows, width)

    def forward(self, ids: Tensor) -> Tensor:
        """Integers of any shape to `(ids…, W)`."""
        return ops.embedding(ids, self.weight)


def parts(layer: Layer, prefix: str = "") -> Iterator[tuple[str, Layer]]:
    """A layer and all its parts, by the beginning of their tensors' names, as `mlp.c_fc.`; its own is empty."""
    yield prefix, layer
    for name, value in vars(layer).items():
        if isinstance(value, Layer):
            yield from parts(value, f"{prefix}{name}.")


def declared(layer: Layer) -> Iterator[tuple[str, Layer, str, Declared]]:
    """All tensors that a layer and its parts need: full name, owner, attribute, what it is."""
    for prefix, part in parts(layer):
        for name, value in vars(part).items():
            if isinstance(value, Declared):
                yield prefix + name, part, name, value


def check(layer: Layer, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors that a layer takes, constants among them, by full name.

    Raises:
        ValueError: Some are missing, not wanted, or of another shape.
    """
    wanted = {name: value for name, _, _, value in declared(layer)}
    missing = [name for name, value in wanted.items() if value.array is None and name not in tensors]
    surplus = [name for name in tensors if name not in wanted]
    wrong = [
        f"{name} {tuple(tensors[name].shape)} instead of {value.shape}"
        for name, value in wanted.items()
        if name in tensors and tuple(tensors[name].shape) != value.shape
    ]
    if missing or surplus or wrong:
        said = (("missing", missing), ("not expected", surplus), ("of another shape", wrong))
        text = "; ".join(f"{word}: {', '.join(names[:6])}" for word, names in said if names)
        raise ValueError(f"the tensors do not fit {type(layer).__name__}: {text}")
    return {name: tensors.get(name, value.array) for name, value in wanted.items()}
