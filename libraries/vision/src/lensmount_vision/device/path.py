"""A single graph's way on the device: pictures in, outputs as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor

from lensmount.backend import settled
from lensmount.backend.batching import run_batched
from lensmount.contracts.session import Session, TensorSession
from lensmount.specs import BatchPolicy, Preprocess
from lensmount_vision.device.preparing import DevicePreparer
from lensmount_vision.images.geometry import Geometry
from lensmount_vision.images.image import Image
from lensmount_vision.images.torch_streams import Runtime, runtime_for
from lensmount_vision.images.transforms import DType


class DevicePath:
    """Prepares pictures and runs a session without leaving its device. Thread-safe.

    All is queued on the stream that is current in the calling thread: nothing waits for the device before results are
    asked for.

    Args:
        session: Takes one input.
        spec: How it wants its pictures.
        dtype: Of its input.
        policy: Pictures that one run takes.
        nhwc: Whether the input is `(batch, height, width, channels)`.
    """

    def __init__(
        self, session: Session, spec: Preprocess, dtype: DType, policy: BatchPolicy, *, nhwc: bool = False
    ) -> None:
        assert isinstance(session, TensorSession)
        assert session.tensor_device is not None
        self._session = session
        self.device = session.tensor_device
        self._run = session.run_tensors
        self._policy = policy
        self._nhwc = nhwc
        self.runtime: Runtime = runtime_for(session.tensor_device)
        self.prepare = DevicePreparer(spec, self.runtime, dtype, channels_last=session.channels_last)

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        """Runs the network on a batch that lies on the device, in the chunks that it takes."""
        return run_batched(self._session, {self._session.inputs[0].name: batch}, self._policy, self._run)

    def infer(
        self, pictures: Sequence[Image], gate: AbstractContextManager[Any] | None = None
    ) -> tuple[dict[str, Tensor], list[Geometry]]:
        """Pictures of one network size to outputs on the device; see `SingleGraph.infer_pictures`."""
        with self.runtime.current(), settled():
            batch, geometries = self.prepare(pictures)
            batch = batch.permute(0, 2, 3, 1).contiguous() if self._nhwc else batch
            with gate or nullcontext():
                return self.forward(batch), geometries
