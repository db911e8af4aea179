"""CUDA graphs: a network's whole run recorded once for each shape of its inputs, then replayed in one launch.

Recordings refer to the weights where they lie: the network must not be moved or cast after its first run.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Protocol

Tensors = tuple[Any, ...]

WARMUP = 3  # runs before recording, on a stream of their own, as torch asks for
MOST = 8  # input shapes kept; each holds its own inputs, outputs and whatever lies between


class Graph(Protocol):
    """A recorded run: reads its entries, writes its exits."""

    entries: Tensors
    exits: Tensors

    def replay(self, inputs: Sequence[Any]) -> Tensors:
        """Copies inputs into the entries, runs, and returns copies of the exits; on the current stream."""


Recorder = Callable[[Callable[..., Any], Sequence[Any]], Graph]


class Recorded:
    """A network that is recorded for each shape of its inputs. Safe to call from several threads.

    The recording that was used least recently goes when there are more than `MOST`. Outputs are copies: the next run
    does not change them.

    Args:
        network: Takes and returns tensors; always the same work for the same shapes, without looking at values.
        record: Makes a recording; another one stands in for CUDA's in tests.
        most: Recordings kept.
    """

    def __init__(self, network: Callable[..., Any], record: Recorder, most: int = MOST) -> None:
        self._network = network
        self._record = record
        self._most = most
        self._lock = threading.Lock()
        self._graphs: OrderedDict[tuple[Any, ...], Graph] = OrderedDict()

    def __call__(self, *inputs: Any) -> Tensors:
        """Runs the network."""
        key = tuple((tuple(tensor.shape), tensor.dtype, tensor.stride()) for tensor in inputs)
        with self._lock:
            graph = self._graphs.get(key)
            if graph is None:
                # Before the new one is made: what it frees may be what the new one needs.
                while len(self._graphs) >= self._most:
                    self._graphs.popitem(last=False)
                graph = self._graphs[key] = self._record(self._network, inputs)
            self._graphs.move_to_end(key)
            return graph.replay(inputs)

    def __len__(self) -> int:
        return len(self._graphs)


class CudaGraph:
    """`torch.cuda.CUDAGraph` with its buffers, safe to replay from one stream after another."""

    def __init__(self, network: Callable[..., Any], inputs: Sequence[Any]) -> None:
        import torch

        self._cuda = torch.cuda
        device = inputs[0].device
        with torch.cuda.device(device):
            self.entries: Tensors = tuple(tensor.clone() for tensor in inputs)
            side = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch has no annotation
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(WARMUP):
                    network(*self.entries)
            torch.cuda.current_stream().wait_stream(side)
            self._graph = torch.cuda.CUDAGraph()
            # Other threads go on using the device while this one records.
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                made = network(*self.entries)
            self.exits: Tensors = (made,) if isinstance(made, torch.Tensor) else tuple(made)
            self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._done.record()

    def replay(self, inputs: Sequence[Any]) -> Tensors:
        """See `Graph.replay`."""
        with self._cuda.device(self.entries[0].device):
            stream = self._cuda.current_stream()
            # The last replay may have been on another stream, and its outputs may not be copied out yet.
            stream.wait_event(self._done)
            for entry, tensor in zip(self.entries, inputs, strict=True):
                entry.copy_(tensor)
            self._graph.replay()
            copies = tuple(tensor.clone() for tensor in self.exits)
            self._done.record(stream)
            return copies
