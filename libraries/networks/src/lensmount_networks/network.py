"""One network on its weights, and the two forms that it takes: torch's and ONNX's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmount.errors import LensmountError, UnsupportedModelError
from lensmount_networks.layers import Layer, check, declared

if TYPE_CHECKING:
    from lensmount.contracts import GraphNetwork, TensorSpec, TorchNetwork
    from lensmount_networks.graph import Graph
    from lensmount_networks.values import Value

EMBEDDED_BYTES = 1_900_000_000
"""Bytes of constants that still fit into the graph's own file (protobuf's limit is 2 GB)."""


@contextlib.contextmanager
def fitting(path: Path, label: str) -> Iterator[None]:
    """Turns what reading and building raise on tensors of another network into one error that says so.

    Args:
        path: The file with the weights.
        label: What its tensors should be: `a CLIP`.

    Raises:
        UnsupportedModelError: The tensors are of another network.
    """
    try:
        yield
    except LensmountError:
        raise
    except (KeyError, IndexError, RuntimeError, ValueError, TypeError) as error:
        raise UnsupportedModelError(
            f"the tensors of {path.name} are not those of {label}",
            found=str(error)[:500],
            fix="lensmount inspect FILE shows what is in it",
        ) from error


@dataclass(frozen=True, kw_only=True)
class Network:
    """A layer with the tensors of a file, and names for what goes in and comes out.

    Attributes:
        layer: Makes the layer; called once for each form.
        tensors: numpy arrays by the layer's names; views of the mapped file where nothing had to be converted.
        inputs: Inputs of `forward`, in order.
        outputs: What it returns, in order.
        metadata: What a graph file embeds.
        for_torch: Changes the layer and returns changed tensors for the torch form alone, where that computes the same
            in less time.
    """

    layer: Callable[[], Layer]
    tensors: Mapping[str, Any]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)
    for_torch: Callable[[Layer, Mapping[str, Any]], Mapping[str, Any]] | None = None

    def torch(self) -> TorchNetwork:
        """The network as a `torch.nn.Module`.

        Raises:
            ValueError: The tensors do not fit.
        """
        from lensmount.contracts import TorchNetwork
        from lensmount_networks.torch_adapter import torch_module

        layer, tensors = self.layer(), self.tensors
        check(layer, tensors)
        if self.for_torch is not None:
            tensors = self.for_torch(layer, tensors)
        return TorchNetwork(
            module=torch_module(layer, tensors),
            inputs=self.inputs,
            outputs=self.outputs,
            metadata=self.metadata,
        )

    def graph(self) -> GraphNetwork:
        """The network as an ONNX graph.

        Raises:
            ValueError: The tensors do not fit, or the layer gives other outputs than `outputs` declares.
        """
        graph, results = self._written({})
        return graph.finish(results, self.outputs, self.metadata)

    def save(self, path: Path, sizes: Mapping[str, int] | None = None) -> None:
        """Writes the network as an ONNX file; above 1.9 GB its constants go to a second one, `path` and `.data`.

        Args:
            path: The file.
            sizes: Fixes free axes, by name.

        Raises:
            ValueError: As for `graph`.
        """
        graph, results = self._written(sizes or {})
        graph.save(path, results, _fixed(self.outputs, sizes or {}), self.metadata, most=EMBEDDED_BYTES)

    def shapes(self, sizes: Mapping[str, int]) -> list[tuple[Any, ...]]:
        """Shapes of what `forward` returns where free axes have the given sizes, found without computing anything.

        Raises:
            TypeError: Parts of the network do not fit one another.
            ValueError: As for `graph`.
        """
        return [value.shape for value in self._written(sizes)[1]]

    def _written(self, sizes: Mapping[str, int]) -> tuple[Graph, list[Value]]:
        from lensmount_networks.graph import Graph

        layer, graph = self.layer(), Graph(spec.name for spec in self.outputs)
        arrays = check(layer, self.tensors)
        for name, owner, attribute, _ in list(declared(layer)):
            setattr(owner, attribute, graph.constant(arrays[name], name))
        made: Any = layer(*(graph.input(spec) for spec in _fixed(self.inputs, sizes)))
        return graph, list(made) if isinstance(made, tuple | list) else [made]


def _fixed(specs: tuple[TensorSpec, ...], sizes: Mapping[str, int]) -> tuple[TensorSpec, ...]:
    return tuple(replace(spec, shape=tuple(sizes.get(str(size), size) for size in spec.shape)) for spec in specs)
