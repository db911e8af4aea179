"""The small networks that backends are tested with: as ONNX files, and as numpy tells what they have to give."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lensmount.contracts import TensorSpec, TorchNetwork
from lensmount_networks import TYPES, Node, model_bytes

Array = NDArray[Any]
Feeds = Mapping[str, Array]
_SEED = 20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Graph:
    """A network in three forms: ONNX nodes, numpy, and torch (`as_network`).

    Attributes:
        name: Its name.
        inputs: Declared inputs.
        outputs: Declared outputs.
        nodes: Operators.
        tensors: Constants by name.
        reference: What it computes, in numpy.
        precision: Of its weights and arithmetic.
        metadata: Texts that its file embeds.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    nodes: tuple[Node, ...]
    reference: Callable[[Feeds], dict[str, Array]]
    tensors: Mapping[str, Array] = field(default_factory=dict)
    precision: str = "fp32"
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def onnx(self) -> bytes:
        """The graph as an ONNX file."""
        return model_bytes(self.nodes, self.inputs, self.outputs, self.tensors, self.metadata)

    def feeds(self, batch: int = 2, seed: int = 0) -> dict[str, Array]:
        """Random inputs, the same for the same seed.

        Args:
            batch: Size of every dynamic axis.
            seed: Tells several feeds apart.
        """
        generator = np.random.default_rng([_SEED, seed])
        made: dict[str, Array] = {}
        for spec in self.inputs:
            shape = [size if isinstance(size, int) else batch for size in spec.shape]
            if spec.dtype.startswith("float"):
                made[spec.name] = generator.uniform(-2, 2, shape).astype(spec.dtype)
            else:
                made[spec.name] = generator.integers(0, 200, shape).astype(spec.dtype)
        return made


def _spec(name: str, *shape: int | str, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name, shape, dtype)


def _random(*shape: int) -> Array:
    return np.random.default_rng([_SEED, *shape]).uniform(-1, 1, shape).astype(np.float32)


def convolve(images: Array, weights: Array) -> Array:
    """Convolution of stride 2 with a border of one zero.

    Args:
        images: `(B, C, H, W)`.
        weights: `(D, C, 3, 3)`.
    """
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::2, ::2]
    result: Array = np.einsum("bchwij,dcij->bdhw", windows, weights)
    return result


_TWO, _ONE = np.array(2, np.float32), np.array(1, np.float32)
_KERNEL, _MATRIX, _TABLE = _random(4, 3, 3, 3), _random(4, 2), _random(3, 4)


def _scale(feeds: Feeds) -> dict[str, Array]:
    scaled = np.maximum(feeds["images"] * _TWO - _ONE, 0)
    return {"scaled": scaled, "mean": scaled.mean(axis=(2, 3), dtype=np.float32)}


_SCALE = (
    Node("Mul", ("images", "two"), ("doubled",)),
    Node("Sub", ("doubled", "one"), ("shifted",)),
    Node("Relu", ("shifted",), ("scaled",)),
    Node("ReduceMean", ("scaled",), ("mean",), {"axes": (2, 3), "keepdims": 0}),
)

_ALL = (
    Graph(
        name="scale",
        inputs=(_spec("images", "batch", 3, 8, 8),),
        outputs=(_spec("scaled", "batch", 3, 8, 8), _spec("mean", "batch", 3)),
        nodes=_SCALE,
        tensors={"two": _TWO, "one": _ONE},
        reference=_scale,
        metadata={"names": "{0: 'cat'}", "stride": "32"},
    ),
    Graph(
        name="static",
        inputs=(_spec("images", 2, 3, 8, 8),),
        outputs=(_spec("scaled", 2, 3, 8, 8), _spec("mean", 2, 3)),
        nodes=_SCALE,
        tensors={"two": _TWO, "one": _ONE},
        reference=_scale,
    ),
    Graph(
        name="convolution",
        inputs=(_spec("images", "batch", 3, 8, 8),),
        outputs=(_spec("maps", "batch", 4, 4, 4),),
        nodes=(
            Node("Conv", ("images", "kernel"), ("raw",), {"pads": (1, 1, 1, 1), "strides": (2, 2)}),
            Node("Sigmoid", ("raw",), ("maps",)),
        ),
        tensors={"kernel": _KERNEL},
        reference=lambda feeds: {"maps": 1 / (1 + np.exp(-convolve(feeds["images"], _KERNEL)))},
    ),
    Graph(
        name="float16",
        inputs=(_spec("values", "batch", 4, dtype="float16"),),
        outputs=(_spec("halved", "batch", 4, dtype="float16"),),
        nodes=(Node("Mul", ("values", "half"), ("small",)), Node("Add", ("small", "one"), ("halved",))),
        tensors={"half": np.array(0.5, np.float16), "one": np.array(1, np.float16)},
        reference=lambda feeds: {"halved": feeds["values"] * np.float16(0.5) + np.float16(1)},
        precision="fp16",
    ),
    Graph(
        name="uint8",
        inputs=(_spec("pixels", "batch", 8, 8, 3, dtype="uint8"),),
        outputs=(_spec("planes", "batch", 3, 8, 8),),
        nodes=(
            Node("Cast", ("pixels",), ("floats",), {"to": TYPES["float32"]}),
            Node("Transpose", ("floats",), ("turned",), {"perm": (0, 3, 1, 2)}),
            Node("Mul", ("turned", "two"), ("planes",)),
        ),
        tensors={"two": _TWO},
        reference=lambda feeds: {"planes": feeds["pixels"].transpose(0, 3, 1, 2).astype(np.float32) * _TWO},
    ),
    Graph(
        name="int64",
        inputs=(_spec("tokens", "batch", 5, dtype="int64"),),
        outputs=(_spec("moved", "batch", 5, dtype="int64"),),
        nodes=(Node("Mul", ("tokens", "three"), ("tripled",)), Node("Sub", ("tripled", "seven"), ("moved",))),
        tensors={"three": np.array(3, np.int64), "seven": np.array(7, np.int64)},
        reference=lambda feeds: {"moved": feeds["tokens"] * 3 - 7},
    ),
    Graph(
        name="pair",
        inputs=(_spec("left", "batch", 4), _spec("right", "batch", 4)),
        outputs=(_spec("difference", "batch", 4), _spec("product", "batch", 2)),
        nodes=(
            Node("Sub", ("left", "right"), ("difference",)),
            Node("MatMul", ("right", "matrix"), ("product",)),
        ),
        tensors={"matrix": _MATRIX},
        reference=lambda feeds: {"difference": feeds["left"] - feeds["right"], "product": feeds["right"] @ _MATRIX},
    ),
    Graph(
        name="identity",
        inputs=(_spec("values", "batch", 4),),
        outputs=(_spec("same", "batch", 4),),
        nodes=(Node("Identity", ("values",), ("same",)),),
        reference=lambda feeds: {"same": feeds["values"].copy()},
    ),
    Graph(
        name="weights",
        inputs=(_spec("values", "batch", 4),),
        outputs=(_spec("table", 3, 4), _spec("sums", "batch", 3)),
        nodes=(
            Node("Identity", ("constant",), ("table",)),
            Node("MatMul", ("values", "turned"), ("sums",)),
        ),
        tensors={"constant": _TABLE, "turned": np.ascontiguousarray(_TABLE.T)},
        reference=lambda feeds: {"table": _TABLE.copy(), "sums": feeds["values"] @ _TABLE.T},
    ),
    Graph(
        name="mismatch",
        inputs=(_spec("left", "rows"), _spec("right", "others")),
        outputs=(_spec("sum", "rows"),),
        nodes=(Node("Add", ("left", "right"), ("sum",)),),
        reference=lambda feeds: {"sum": feeds["left"] + feeds["right"]},
    ),
)

GRAPHS: Mapping[str, Graph] = {graph.name: graph for graph in _ALL}
"""By name. `mismatch` fails when it is run on two lengths: its shapes alone do not tell."""


def unknown_operator() -> bytes:
    """An ONNX file that is well formed and asks for an operator that nobody has."""
    graph = GRAPHS["identity"]
    nodes = [Node("NoSuchOperator", ("values",), ("same",))]
    return model_bytes(nodes, graph.inputs, graph.outputs, {})


def as_network(graph: Graph) -> TorchNetwork:
    """The graph as an architecture would hand it to a backend; needs torch."""
    import torch
    from torch.nn import functional as F

    prefix = "kit_"  # a module has attributes of its own, such as `half`

    def scale(w: dict[str, torch.Tensor], images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scaled = torch.relu(images * w["two"] - w["one"])
        return scaled, scaled.mean(dim=(2, 3))

    forwards: dict[str, Callable[..., Any]] = {
        "scale": scale,
        "static": scale,
        "convolution": lambda w, images: F.conv2d(images, w["kernel"], stride=2, padding=1).sigmoid(),
        "float16": lambda w, values: values * w["half"] + w["one"],
        "uint8": lambda w, pixels: pixels.permute(0, 3, 1, 2).to(w["two"].dtype) * w["two"],
        "int64": lambda w, tokens: tokens * w["three"] - w["seven"],
        "pair": lambda w, left, right: (left - right, right @ w["matrix"]),
        "identity": lambda w, values: values,
        "weights": lambda w, values: (w["constant"], values @ w["turned"]),
        "mismatch": lambda w, left, right: left + right,
    }

    class Network(torch.nn.Module):
        """One of the kit's networks."""

        def __init__(self) -> None:
            super().__init__()
            for name, array in graph.tensors.items():
                # A network comes in float32; the backend casts it.
                tensor = torch.from_numpy(array.copy())
                self.register_buffer(prefix + name, tensor.float() if tensor.is_floating_point() else tensor)

        def forward(self, *inputs: torch.Tensor) -> Any:
            """Runs it."""
            weights = {name.removeprefix(prefix): tensor for name, tensor in self.named_buffers()}
            return forwards[graph.name](weights, *inputs)

    return TorchNetwork(
        module=Network().eval(), inputs=graph.inputs, outputs=graph.outputs, metadata=dict(graph.metadata)
    )
