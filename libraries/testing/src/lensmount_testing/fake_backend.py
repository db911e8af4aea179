"""A backend whose answers a test gives, as numbers or as a function, and which records what it was fed."""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lensmount.contracts.session import OpenRequest, TensorSpec, check_feeds
from lensmount.errors import ClosedError, DeviceError
from lensmount.specs import Backend, BackendStatus, hookimpl

Array = NDArray[Any]
Answers = Mapping[str, Any] | Callable[[dict[str, Array]], Mapping[str, Any]]
_numbers = itertools.count(1)


class FakeBackend:
    """Opens anything and answers as it was told.

    Use it as a context: import strings have to name something, so it puts a module of its own into `sys.modules` while
    it is open.

    Args:
        name: Name of the backend.

    Attributes:
        formats: Formats that it opens; set them before the plugin is added to a registry.
        inputs: What its sessions declare.
        outputs: The same for outputs.
        metadata: What a graph file would embed.
        answers: Outputs by name, or a function of the feeds. Arrays are handed out as copies; an array whose first
            axis is 1 is repeated for each row of the first input.
        devices: Devices that it claims, best first.
        precision: What its sessions compute in.
        feeds: Copies of what was fed, one mapping for each run, of all sessions.
        requests: What was asked to be opened.
    """

    def __init__(self, name: str = "fake") -> None:
        self.name = name
        self.formats: tuple[str, ...] = ("fake",)
        self.inputs: tuple[TensorSpec, ...] = (TensorSpec("images", ("batch", 3, 64, 64), "float32"),)
        self.outputs: tuple[TensorSpec, ...] = (TensorSpec("output", ("batch", None), "float32"),)
        self.metadata: dict[str, str] = {}
        self.answers: Answers = {"output": np.zeros((1, 1), np.float32)}
        self.devices: tuple[str, ...] = ("cpu",)
        self.precision = "fp32"
        self.feeds: list[dict[str, Array]] = []
        self.requests: list[OpenRequest] = []
        self._module = f"lensmount_fake_backend_{next(_numbers)}"

    def __enter__(self) -> FakeBackend:
        module = ModuleType(self._module)
        module.__dict__.update(probe=self._probe, open_session=self._open)
        sys.modules[self._module] = module
        return self

    def __exit__(self, *exc_info: object) -> None:
        sys.modules.pop(self._module, None)

    @property
    def descriptor(self) -> Backend:
        """The backend's descriptor."""
        return Backend(
            name=self.name,
            formats=self.formats,
            probe=f"{self._module}:probe",
            opener=f"{self._module}:open_session",
            preference=tuple((device.partition(":")[0], 100) for device in self.devices),
        )

    @property
    def plugin(self) -> object:
        """A plugin that brings it: `isolated_registry.add_plugin(fake_backend.plugin)`."""
        descriptor = self.descriptor

        class Plugin:
            """Brings the backend."""

            @hookimpl
            def lensmount_backends(self) -> list[Backend]:
                """The fake backend."""
                return [descriptor]

        return Plugin()

    def _probe(self, environment: object) -> BackendStatus:
        kinds = dict.fromkeys(device.partition(":")[0] for device in self.devices)
        return BackendStatus(
            usable=True,
            version="1",
            devices=self.devices,
            precisions=tuple((kind, (self.precision,)) for kind in kinds),
        )

    def _open(self, request: OpenRequest) -> FakeSession:
        if request.device not in self.devices:
            raise DeviceError(
                f"the backend {self.name!r} has no such device",
                found=request.device,
                expected=", ".join(self.devices),
            )
        self.requests.append(request)
        return FakeSession(self, request)


class FakeSession:
    """A session of a `FakeBackend`; satisfies `lensmount.contracts.Session`."""

    def __init__(self, owner: FakeBackend, request: OpenRequest) -> None:
        self._owner = owner
        self._lock = threading.Lock()
        self._closed = False
        self.backend = owner.name
        self.device = request.device
        self.precision = owner.precision
        self.provider = "fake"
        self.inputs = owner.inputs
        self.outputs = owner.outputs
        self.metadata: Mapping[str, str] = dict(owner.metadata)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Records the feeds and answers; see `lensmount.contracts.Session.run`."""
        if self._closed:
            raise ClosedError("the session was closed", fix="load the model again")
        check_feeds(self.inputs, feeds, "the fake graph")
        kept = {name: array.copy() for name, array in feeds.items()}
        with self._lock:
            self._owner.feeds.append(kept)
        answers = self._owner.answers
        rows = len(kept[self.inputs[0].name])
        found = answers(dict(kept)) if callable(answers) else answers
        return {spec.name: _repeated(np.asarray(found[spec.name], spec.dtype), rows) for spec in self.outputs}

    def close(self) -> None:
        """Makes later runs fail; a second call does nothing."""
        self._closed = True


def _repeated(array: Array, rows: int) -> Array:
    one = array.ndim > 0 and len(array) == 1 and rows != 1
    return np.repeat(array, rows, axis=0) if one else array.copy()
