"""From a tree of parts to layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lensmount.errors import UnsupportedModelError
from lensmount_networks import Layer, layers, ops
from lensmount_networks.layers import Tensor
from lensmount_reading import printable
from lensmount_yolo.networks import attention, blocks, elan, heads, lean, task_heads
from lensmount_yolo.networks.base import Block
from lensmount_yolo.networks.nodes import Node
from lensmount_yolo.networks.parts import require_parts

#: Kind -> class; several kinds differ in their parts alone.
BLOCKS: Mapping[str, type[Block]] = {
    "Conv": blocks.Conv,
    "DWConv": blocks.Conv,
    "Bottleneck": blocks.Bottleneck,
    "RepBottleneck": blocks.Bottleneck,
    "C3": blocks.C3,
    "C3k": blocks.C3,
    "RepCSP": blocks.C3,
    "RepC3": blocks.C3,
    "C2f": blocks.C2f,
    "C3k2": blocks.C2f,
    "C2fCIB": blocks.C2f,
    "C2fPSA": blocks.C2f,
    "SPPF": blocks.SPPF,
    "Concat": blocks.Concat,
    "RepConv": elan.RepConv,
    "ELAN1": elan.RepNCSPELAN4,
    "RepNCSPELAN4": elan.RepNCSPELAN4,
    "SPPELAN": elan.SPPELAN,
    "AConv": elan.AConv,
    "ADown": elan.ADown,
    "CBLinear": elan.CBLinear,
    "CBFuse": elan.CBFuse,
    "SCDown": lean.SCDown,
    "CIB": lean.CIB,
    "RepVGGDW": lean.RepVGGDW,
    "Attention": attention.Attention,
    "PSABlock": attention.PSABlock,
    "PSA": attention.PSA,
    "C2PSA": attention.C2PSA,
    "AAttn": attention.AAttn,
    "ABlock": attention.ABlock,
    "A2C2f": attention.A2C2f,
    "DFL": heads.DFL,
    "Proto": heads.Proto,
    "Detect": heads.Detect,
    "v10Detect": heads.Detect,
    "Segment": heads.Segment,
    "Pose": task_heads.Pose,
    "OBB": task_heads.OBB,
    "Classify": task_heads.Classify,
}


#: Beyond any network of these families; a file must not make a picture grow without end.
_LARGEST_STEP = 64


def _bounded(settings: Mapping[str, Any]) -> dict[str, Any]:
    for name in ("kernel_size", "stride", "padding", "dilation", "output_padding", "output_size", "scale_factor"):
        value = settings.get(name)
        numbers = value if isinstance(value, tuple) else (value,)
        if value is not None and not all(isinstance(n, int | float) and 0 <= n <= _LARGEST_STEP for n in numbers):
            raise ValueError(f"{name} is out of range: {printable(value)}")
    return dict(settings)


class Function(Layer):
    """A layer without tensors."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """The function's value."""
        return self.function(x)


def _conv(settings: Mapping[str, Any]) -> Layer:
    names = ("in_channels", "out_channels", "kernel_size", "stride", "padding")
    dilation, groups, bias = settings.get("dilation", 1), settings.get("groups", 1), settings.get("bias", True)
    return layers.Conv2d(*(settings[name] for name in names), dilation=dilation, groups=groups, bias=bias)


def _upwards(settings: Mapping[str, Any]) -> Layer:
    def number(name: str, usual: int | None = None) -> int:
        value = settings.get(name, usual)
        sides = set(value) if isinstance(value, tuple) else {value}
        if len(sides) != 1 or (name in ("dilation", "groups") and sides != {1}):
            raise ValueError(f"a transposed convolution of another form: {name} is {printable(value)}")
        return int(sides.pop())

    number("dilation", 1), number("groups", 1)
    sizes = [number(name) for name in ("in_channels", "out_channels", "kernel_size", "stride")]
    more, bias = number("output_padding", 0), settings.get("bias", True)
    return layers.ConvTranspose2d(*sizes, number("padding", 0), output_padding=more, bias=bias)


def _norm(settings: Mapping[str, Any]) -> Layer:
    return layers.BatchNorm2d(settings["num_features"], settings["eps"], settings["momentum"])


def _max_pool(settings: Mapping[str, Any]) -> Layer:
    size, step, margin = (settings.get(name) for name in ("kernel_size", "stride", "padding"))
    return Function(lambda x: ops.max_pool2d(x, size, step, margin or 0))


def _mean_pool(settings: Mapping[str, Any]) -> Layer:
    if settings.get("output_size") not in (1, (1, 1)):
        raise ValueError(f"pooling to another size than one: {printable(settings.get('output_size'))}")
    return Function(lambda x: x.mean((2, 3), keepdim=True))


def _upsample(settings: Mapping[str, Any]) -> Layer:
    if settings.get("size") is not None or settings.get("mode", "nearest") != "nearest":
        raise ValueError(f"upsampling other than to nearest by a factor: {dict(settings)}")
    factor = float(settings["scale_factor"])
    return Function(lambda x: ops.resize(x, scale=factor))


def _leaky(settings: Mapping[str, Any]) -> Layer:
    slope = float(settings.get("negative_slope", 0.01))
    return Function(lambda x: ops.leaky_relu(x, slope))


def _always(function: Callable[[Tensor], Tensor]) -> Callable[[Mapping[str, Any]], Layer]:
    return lambda settings: Function(function)


def _same(x: Tensor) -> Tensor:
    return x


#: Layers of torch itself: kind -> function of the settings.
LAYERS: Mapping[str, Callable[[Mapping[str, Any]], Layer]] = {
    "Conv2d": _conv,
    "ConvTranspose2d": _upwards,
    "BatchNorm2d": _norm,
    "Linear": lambda settings: layers.Linear(settings["in_features"], settings["out_features"], settings["bias"]),
    "MaxPool2d": _max_pool,
    "AdaptiveAvgPool2d": _mean_pool,
    "Upsample": _upsample,
    "SiLU": _always(ops.silu),
    "ReLU": _always(ops.relu),
    "GELU": _always(ops.gelu),
    "Hardswish": _always(ops.hardswish),
    "LeakyReLU": _leaky,
    "Identity": _always(_same),
    "Dropout": _always(_same),  # these networks are for use, where it does nothing
}


class Network(Layer):
    """Rows of layers, each fed by earlier rows; tensors bear the official names (`model.<row>.…`).

    Args:
        rows: Layers in order; the last is the head.
        sources: For each row the row, or rows, whose outputs it takes; negative counts back from it.

    Attributes:
        narrow: Whether it computes in float16 between float32 inputs and outputs; its tensors are float16 then.
        last: Turns the head's main output into another, without tensors of its own; None for the output itself.

    Raises:
        ValueError: A row takes the output of one that comes after it.
    """

    def __init__(self, rows: Sequence[Layer], sources: Sequence[int | tuple[int, ...]]) -> None:
        self.model = layers.Layers(rows)
        self.several = [isinstance(source, tuple) for source in sources]
        self.sources = [_absolute(source, row) for row, source in enumerate(sources)]
        for row, indices in enumerate(self.sources):
            if not all(-1 <= index < row for index in indices):
                raise ValueError(f"row {row} takes the output of rows {indices}")
        last_use = {index: row for row, indices in enumerate(self.sources) for index in indices}
        #: Rows whose outputs are not needed any more after each row.
        self._done = [[index for index, last in last_use.items() if last == row] for row in range(len(rows))]
        self.narrow = False
        self.last: Layer | None = None

    @property
    def head(self) -> Any:
        """The last row."""
        return self.model[-1]

    def forward(self, images: Tensor) -> Any:
        """Runs the network.

        Args:
            images: `(B, 3, H, W)` RGB in 0..1; H and W multiples of the largest stride.

        Returns:
            What the head returns: in training mode `heads.RawOutputs`; otherwise `(B, 4 + classes, N)` for detection,
            with `(B, 4 + classes + 32, N)` and prototypes `(B, 32, H / 4, W / 4)` for segmentation.
        """
        outputs: dict[int, Any] = {-1: ops.cast(images, "float16") if self.narrow else images}
        for row, (part, indices) in enumerate(zip(self.model, self.sources, strict=True)):
            inputs = [outputs[index] for index in indices]
            outputs[row] = part(inputs if self.several[row] else inputs[0])
            for index in self._done[row]:
                del outputs[index]
        made = outputs[len(self.model) - 1]
        if self.last is None and not self.narrow:
            return made
        main, *rest = made if isinstance(made, tuple) else (made,)
        given = [main if self.last is None else self.last(main), *rest]
        if self.narrow:
            given = [ops.cast(value, "float32") for value in given]
        return tuple(given) if rest else given[0]


def _absolute(source: int | tuple[int, ...], row: int) -> tuple[int, ...]:
    """Absolute rows of a row's inputs; -1 is the image."""
    sources = source if isinstance(source, tuple) else (source,)
    return tuple(row + index if index < 0 else index for index in sources)


def assemble(network: Node) -> Network:
    """The layers of a network's tree; their tensors are named, and not there yet.

    Raises:
        UnsupportedModelError: The tree contradicts itself, or has a part that is not known here.
    """
    require_parts(network)
    try:
        return Network([layer(part) for part in network.parts.values()], network.settings["sources"])
    except (TypeError, ValueError, KeyError, RuntimeError, OverflowError, ZeroDivisionError, AttributeError) as error:
        raise UnsupportedModelError(
            "the file describes a network that cannot be built here",
            found=str(error)[:200],
            fix="export it to ONNX where it was trained, and load that",
        ) from error


def layer(node: Node) -> Layer:
    """One layer with all its parts."""
    parts = {name: layer(part) for name, part in node.parts.items()}
    if node.kind == "Sequential":
        return layers.Sequential(*parts.values())
    if node.kind == "ModuleList":
        return layers.Layers(parts.values())
    if node.kind in LAYERS:
        return LAYERS[node.kind](_bounded(node.settings))
    return BLOCKS[node.kind].assembled(parts, node.settings)
