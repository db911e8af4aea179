"""CUDA graphs: a batch size's whole run recorded once, then replayed without a launch per operation."""

from __future__ import annotations

import threading

import torch
from torch import Tensor, nn

_WARMUP = 3  # runs before recording, on a stream of their own, as torch asks for
_MOST = 8  # input shapes recorded; each holds its own buffers


class Captured(nn.Module):
    """Records the network for each input shape that it meets on a CUDA device; elsewhere it only passes on.

    Results are copied out of the recording's buffers, so that the next run does not change them. Recordings refer to
    the weights where they lie: the network must not be moved or cast after the first run.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._lock = threading.Lock()
        self._recorded: dict[tuple[object, ...], tuple[torch.cuda.CUDAGraph, Tensor, tuple[Tensor, ...]]] = {}

    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
        """As the network's."""
        if not pictures.is_cuda or torch.compiler.is_compiling():
            outputs: tuple[Tensor, ...] = self.network(pictures)
            return outputs
        key = (tuple(pictures.shape), pictures.dtype, pictures.device)
        with self._lock:
            if key not in self._recorded:
                if len(self._recorded) >= _MOST:
                    self._recorded.pop(next(iter(self._recorded)))
                self._recorded[key] = self._record(pictures)
            graph, entry, exits = self._recorded[key]
            entry.copy_(pictures)
            graph.replay()
            return tuple(output.clone() for output in exits)

    def _record(self, pictures: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, tuple[Tensor, ...]]:
        with torch.cuda.device(pictures.device):
            entry = pictures.clone()
            side = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch has no annotation
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(_WARMUP):
                    self.network(entry)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                exits = tuple(self.network(entry))
        return graph, entry, exits
