"""A session on a TensorRT engine. Importing this module imports `tensorrt` and `cuda.bindings`."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tensorrt as trt

from lensmount.backend import memory, torch_errors
from lensmount.backend.batching import padded_batch
from lensmount.backend.device_tensors import tensors_wanted
from lensmount.contracts.session import OpenRequest, TensorSpec, check_feeds
from lensmount.errors import BackendError, LensmountError
from lensmount_tensorrt.cuda_memory import Cuda
from lensmount_tensorrt.engine import Engine, open_engine
from lensmount_tensorrt.lanes import Prepared
from lensmount_tensorrt.pool import Lanes
from lensmount_tensorrt.tensors import PreparedTensors, takes_tensors

if TYPE_CHECKING:
    from lensmount.contracts.arrays import Array


def open_on(index: int, path: Path, request: OpenRequest) -> TensorRTSession:
    """Opens an engine on a device; raises what `lensmount_tensorrt.backend.open_session` says."""
    cuda = Cuda(index)
    tensors = tensors_wanted(request)
    with cuda.current():
        engine = open_engine(cuda, path, allow_host_code=request.options.allow_host_code)
    session = TensorRTSession(engine, request)
    if tensors and takes_tensors((*engine.inputs, *engine.outputs)):
        session.tensor_device = session.device
    return session


class TensorRTSession:
    """An engine on a device; satisfies `lensmount.contracts.Session`.

    Attributes:
        backend: `tensorrt`.
        device: Device that it runs on.
        precision: Precision that it was built to compute in.
        provider: Version of TensorRT, and the GPU's compute capability.
        inputs: Inputs in order; bfloat16 and float8 are given as float32.
        outputs: Outputs in order; bfloat16 and float8 come as float32.
        metadata: The graph's metadata, from the engine's manifest.
        tensor_device: Where `run_tensors` takes and gives tensors; None where models are to work on the host.
        channels_last: False: engines take their pictures contiguous.
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
        self.tensor_device: str | None = None
        self.channels_last = False
        lanes = Lanes(engine, request.options.contexts, request.options.cuda_graphs)
        self._lanes = lanes
        # Device memory has no garbage collector: a session that nobody closes is closed when it goes.
        weakref.finalize(self, lanes.close).atexit = False

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Runs once; see `lensmount.contracts.Session.run`. Waits while as many runs as `contexts` are in progress."""
        check_feeds(self.inputs, feeds, self._subject)
        return self._run(feeds, None)

    def run_tensors(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Runs once on `torch.Tensor`s; see `lensmount.contracts.TensorSession`. Outputs are the caller's own."""
        if self.tensor_device is None:
            raise BackendError(f"the session of {self._subject} takes no tensors", fix="load with device_path=True")
        names = [spec.name for spec in self.inputs]
        if set(feeds) != set(names):
            raise BackendError(
                f"{self._subject} was given the wrong inputs", found=str(sorted(feeds)), expected=str(names)
            )
        try:
            return self._run(feeds, PreparedTensors)
        except LensmountError:
            raise
        except Exception as error:
            if not torch_errors.is_memory(error):
                raise torch_errors.running(error, self._subject, self.device) from error
            batch = memory.batch_of(self.inputs, feeds)
            said = torch_errors.brief(error)
            raise memory.shortage(self._subject, self.device, said, batch=batch, fits=None, free=None) from error

    def _run(self, feeds: Mapping[str, Any], kind: type[Prepared] | None) -> dict[str, Any]:
        count, least = self._batches(feeds)
        if count >= least:
            with self._lanes.lane() as lane:
                return lane.run(feeds, kind)
        padded = {name: padded_batch(array, least) for name, array in feeds.items()}
        with self._lanes.lane() as lane:
            results = lane.run(padded, kind)
        return {name: array[:count] if array.shape[:1] == (least,) else array for name, array in results.items()}

    def _batches(self, feeds: Mapping[str, Any]) -> tuple[int, int]:
        """Images given, and the fewest that a profile takes, where every input has a dynamic first axis."""
        if not all(spec.shape and spec.shape[0] == "batch" for spec in (*self.inputs, *self.outputs)):
            return 0, 0
        counts = {array.shape[0] for array in feeds.values()}
        if len(counts) != 1:
            return 0, 0
        return counts.pop(), min(max(low[0] for low, _, _ in profile.values()) for profile in self._profiles)

    def close(self) -> None:
        """Frees the engine and its memory once all started runs have ended; a second call does nothing."""
        self._lanes.close()
