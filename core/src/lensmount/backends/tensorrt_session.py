"""A session on a TensorRT engine. Importing this module imports `tensorrt` and `cuda.bindings`."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tensorrt as trt

from lensmount.backends.base import OpenRequest, TensorSpec, check_feeds
from lensmount.backends.cuda_memory import Cuda
from lensmount.backends.tensorrt_engine import Engine, open_engine
from lensmount.backends.tensorrt_pool import Lanes

if TYPE_CHECKING:
    from lensmount.backends.base import Array


def open_on(index: int, path: Path, request: OpenRequest) -> TensorRTSession:
    """Opens an engine on a device; raises what `lensmount.backends.tensorrt.open_session` says."""
    cuda = Cuda(index)
    with cuda.current():
        engine = open_engine(cuda, path, allow_host_code=request.options.allow_host_code)
    return TensorRTSession(engine, request)


class TensorRTSession:
    """An engine on a device; satisfies `lensmount.backends.Session`.

    Attributes:
        backend: `tensorrt`.
        device: Device that it runs on.
        precision: Precision that it was built to compute in.
        provider: Version of TensorRT, and the GPU's compute capability.
        inputs: Inputs in order; bfloat16 and float8 are given as float32.
        outputs: Outputs in order; bfloat16 and float8 come as float32.
        metadata: The graph's metadata, from the engine's manifest.
    """

    def __init__(self, engine: Engine, request: OpenRequest) -> None:
        manifest = engine.manifest
        self._subject = engine.subject
        self._profiles = engine.profiles
        self.backend = "tensorrt"
        self.device = engine.device
        self.precision = manifest.precision if manifest else request.package.precision
        self.provider = f"TensorRT {trt.__version__} {self.device} (compute capability {engine.cuda.capability()})"
        self.inputs: tuple[TensorSpec, ...] = tuple(tensor.spec for tensor in engine.inputs)
        self.outputs: tuple[TensorSpec, ...] = tuple(tensor.spec for tensor in engine.outputs)
        self.metadata: Mapping[str, str] = dict(engine.metadata)
        lanes = Lanes(engine, request.options.contexts, request.options.cuda_graphs)
        self._lanes = lanes
        # Device memory has no garbage collector: a session that nobody closes is closed when it goes.
        weakref.finalize(self, lanes.close).atexit = False

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Runs once; see `lensmount.backends.Session.run`. Waits while as many runs as `contexts` are under way."""
        check_feeds(self.inputs, feeds, self._subject)
        count, least = self._batches(feeds)
        if count >= least:
            with self._lanes.lane() as lane:
                return lane.run(feeds)
        padded = {name: _padded(array, least) for name, array in feeds.items()}
        with self._lanes.lane() as lane:
            results = lane.run(padded)
        return {name: array[:count] if array.shape[:1] == (least,) else array for name, array in results.items()}

    def _batches(self, feeds: Mapping[str, Array]) -> tuple[int, int]:
        """Images given, and the fewest that a profile takes, where every input has a dynamic first axis."""
        if not all(spec.shape and spec.shape[0] == "batch" for spec in (*self.inputs, *self.outputs)):
            return 0, 0
        counts = {array.shape[0] for array in feeds.values()}
        if len(counts) != 1:
            return 0, 0
        return counts.pop(), min(max(low[0] for low, _, _ in profile.values()) for profile in self._profiles)

    def close(self) -> None:
        """Frees the engine and its memory once the runs under way have ended; a second call does nothing."""
        self._lanes.close()


def _padded(array: Array, size: int) -> Array:
    padded: Array = np.zeros((size, *array.shape[1:]), array.dtype)
    padded[: len(array)] = array
    return padded
