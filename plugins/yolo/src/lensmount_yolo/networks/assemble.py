"""From a tree of parts to modules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from lensmount.errors import UnsupportedModelError
from lensmount_reading import printable

from . import attention, blocks, elan, heads, lean, task_heads
from .base import Block
from .nodes import Node
from .parts import require_parts

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


def _upsample(settings: Mapping[str, Any]) -> nn.Module:
    if settings.get("size") is not None or settings.get("mode", "nearest") != "nearest":
        raise ValueError(f"upsampling other than to nearest by a factor: {dict(settings)}")
    return nn.Upsample(scale_factor=float(settings["scale_factor"]), mode="nearest")


#: Layers of torch itself: kind -> function of the settings.
LAYERS: Mapping[str, Callable[[Mapping[str, Any]], nn.Module]] = {
    "Conv2d": lambda settings: nn.Conv2d(**settings),
    "ConvTranspose2d": lambda settings: nn.ConvTranspose2d(**settings),
    "BatchNorm2d": lambda settings: nn.BatchNorm2d(**settings),
    "Linear": lambda settings: nn.Linear(**settings),
    "MaxPool2d": lambda settings: nn.MaxPool2d(**settings),
    "AdaptiveAvgPool2d": lambda settings: nn.AdaptiveAvgPool2d(**settings),
    "Upsample": _upsample,
    "SiLU": lambda settings: nn.SiLU(),
    "ReLU": lambda settings: nn.ReLU(),
    "GELU": lambda settings: nn.GELU(),
    "Hardswish": lambda settings: nn.Hardswish(),
    "LeakyReLU": lambda settings: nn.LeakyReLU(**settings),
    "Identity": lambda settings: nn.Identity(),
    "Dropout": lambda settings: nn.Identity(),  # these networks are for use, where it does nothing
}


class Network(nn.Module):
    """Rows of modules, each fed by earlier rows; tensors bear the official names (`model.<row>.…`).

    Args:
        rows: Modules in order; the last is the head.
        sources: For each row the row, or rows, whose outputs it takes; negative counts back from it.

    Raises:
        ValueError: A row takes the output of one that comes after it.
    """

    def __init__(self, rows: Sequence[nn.Module], sources: Sequence[int | tuple[int, ...]]) -> None:
        super().__init__()
        self.model = nn.ModuleList(rows)
        self.several = [isinstance(source, tuple) for source in sources]
        self.sources = [_absolute(source, row) for row, source in enumerate(sources)]
        for row, indices in enumerate(self.sources):
            if not all(-1 <= index < row for index in indices):
                raise ValueError(f"row {row} takes the output of rows {indices}")
        last_use = {index: row for row, indices in enumerate(self.sources) for index in indices}
        #: Rows whose outputs are not needed any more after each row.
        self._done = [[index for index, last in last_use.items() if last == row] for row in range(len(rows))]

    @property
    def head(self) -> nn.Module:
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
        outputs: dict[int, Any] = {-1: images}
        for row, (module, indices) in enumerate(zip(self.model, self.sources, strict=True)):
            inputs = [outputs[index] for index in indices]
            outputs[row] = module(inputs if self.several[row] else inputs[0])
            for index in self._done[row]:
                del outputs[index]
        return outputs[len(self.model) - 1]


def _absolute(source: int | tuple[int, ...], row: int) -> tuple[int, ...]:
    """Absolute rows of a row's inputs; -1 is the image."""
    sources = source if isinstance(source, tuple) else (source,)
    return tuple(row + index if index < 0 else index for index in sources)


def assemble(network: Node) -> Network:
    """A network from its tree, with fresh weights; under `torch.device("meta")` nothing is allocated.

    Raises:
        UnsupportedModelError: The tree contradicts itself, or has a part that is not known here.
    """
    require_parts(network)
    try:
        return Network([module(part) for part in network.parts.values()], network.settings["sources"])
    except (TypeError, ValueError, KeyError, RuntimeError, OverflowError, ZeroDivisionError) as error:
        raise UnsupportedModelError(
            "the file describes a network that cannot be built here",
            found=str(error)[:200],
            fix="export it to ONNX where it was trained, and load that",
        ) from error


def module(node: Node) -> nn.Module:
    """One module with all its parts."""
    parts = {name: module(part) for name, part in node.parts.items()}
    if node.kind == "Sequential":
        return nn.Sequential(*parts.values())
    if node.kind == "ModuleList":
        return nn.ModuleList(parts.values())
    if node.kind in LAYERS:
        return LAYERS[node.kind](_bounded(node.settings))
    return BLOCKS[node.kind].assembled(parts, node.settings)
