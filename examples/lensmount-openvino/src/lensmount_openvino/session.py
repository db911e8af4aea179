"""A graph opened on OpenVINO: named arrays in, named arrays out."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lensmount.contracts import TensorSpec, check_feeds
from lensmount.errors import BackendError, ClosedError, ModelFileError, UnsupportedModelError
from lensmount_openvino import errors
from lensmount_reading import GraphValue

DTYPES = frozenset(
    ("float32", "float16", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool")
)
WIDE = frozenset(("int64", "uint64", "uint32"))
"""Integers that OpenVINO holds in 32 bits with a sign while it computes."""

INT32 = np.iinfo(np.int32)


def describe(values: Iterable[GraphValue], subject: str) -> tuple[TensorSpec, ...]:
    """Inputs or outputs as the file names them.

    Raises:
        UnsupportedModelError: A type that numpy or OpenVINO cannot take, or an input that may have any number of axes.
    """
    found: list[TensorSpec] = []
    for value in values:
        if value.dtype not in DTYPES:
            raise UnsupportedModelError(
                f"{value.name!r} of {subject} is not an array that numpy and OpenVINO can hold",
                found=value.dtype,
                expected=", ".join(sorted(DTYPES)),
                fix="export the model with float inputs and outputs",
            )
        found.append(TensorSpec(value.name, value.shape, value.dtype))
    return tuple(found)


class OpenVinoSession:
    """A graph opened on OpenVINO; satisfies `lensmount.contracts.Session`.

    Each run takes an infer request of its own from a pool, so that several threads may run at once.

    Args:
        compiled: The `openvino.CompiledModel`.
        subject: The graph, in words.
        inputs: Inputs as the file has them.
        outputs: Outputs as the file has them.
        metadata: The file's metadata.
        device: Device that it effectively runs on.
        precision: Precision that it effectively computes in.
        provider: OpenVINO's version and device.

    Attributes:
        backend: `openvino`.
        inputs: Inputs in order; sizes that OpenVINO worked out are filled in.
        outputs: Outputs in order; the same.

    Raises:
        ModelFileError: OpenVINO's graph has not the inputs and outputs of the file.
    """

    def __init__(
        self,
        compiled: Any,
        subject: str,
        *,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        metadata: Mapping[str, str],
        device: str,
        precision: str,
        provider: str,
    ) -> None:
        self._compiled: Any | None = compiled
        self._subject = subject
        self._idle: list[Any] = []
        self._lock = threading.Lock()
        self.backend = "openvino"
        self.device = device
        self.precision = precision
        self.provider = provider
        self.metadata = dict(metadata)
        given, self._given = _match(inputs, compiled.inputs, subject)
        taken, self._taken = _match(outputs, compiled.outputs, subject)
        self.inputs: tuple[TensorSpec, ...] = given
        self.outputs: tuple[TensorSpec, ...] = taken

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Runs once; see `lensmount.contracts.Session.run`.

        Raises:
            BackendError: Also for integers beyond 32 bits, which OpenVINO would cut.
        """
        check_feeds(self.inputs, feeds, self._subject)
        self._check_range(feeds)
        # Not ascontiguousarray, which gives a scalar an axis.
        arrays = {port: np.asarray(feeds[name], order="C") for name, port in self._given.items()}
        request = self._take()
        try:
            # Inputs are read where they lie; outputs are copied out of the request, which the next run overwrites.
            results = request.infer(arrays, share_inputs=True, share_outputs=False).to_tuple()
        except Exception as error:
            raise errors.running(error, self._subject, self.device) from error
        self._give_back(request)
        return {name: results[port] for name, port in self._taken.items()}

    def close(self) -> None:
        """Frees the session once all started runs have ended; a second call does nothing."""
        with self._lock:
            self._compiled = None
            self._idle.clear()

    def _take(self) -> Any:
        with self._lock:
            if self._compiled is None:
                raise ClosedError(f"the session of {self._subject} was closed", fix="load the model again")
            return self._idle.pop() if self._idle else self._compiled.create_infer_request()

    def _give_back(self, request: Any) -> None:
        with self._lock:
            if self._compiled is not None:
                self._idle.append(request)

    def _check_range(self, feeds: Mapping[str, NDArray[Any]]) -> None:
        for spec in self.inputs:
            array = feeds[spec.name]
            if spec.dtype in WIDE and array.size and (array.max() > INT32.max or array.min() < INT32.min):
                raise BackendError(
                    f"input {spec.name!r} of {self._subject} holds integers that OpenVINO would cut to 32 bits",
                    found=f"{array.min()} to {array.max()}",
                    expected=f"{INT32.min} to {INT32.max}",
                    fix="load the model with backend='onnx'",
                )


def _match(
    specs: tuple[TensorSpec, ...], ports: Iterable[Any], subject: str
) -> tuple[tuple[TensorSpec, ...], dict[str, int]]:
    """The file's tensors with OpenVINO's sizes, and the number of each one's port."""
    numbers = {name: (number, port) for number, port in enumerate(ports) for name in port.get_names()}
    missing = [spec.name for spec in specs if spec.name not in numbers]
    if missing:
        raise ModelFileError(
            f"OpenVINO does not find all of {subject}", found=str(sorted(numbers)), expected=missing[0]
        )
    filled: list[TensorSpec] = []
    for spec in specs:
        shape = numbers[spec.name][1].get_partial_shape()
        if shape.rank.is_static:
            names = spec.shape if len(spec.shape) == len(shape) else (None,) * len(shape)
            sizes = (
                size.get_length() if size.is_static else name if isinstance(name, str) else None
                for size, name in zip(shape, names, strict=True)
            )
            spec = TensorSpec(spec.name, tuple(sizes), spec.dtype)
        filled.append(spec)
    return tuple(filled), {spec.name: numbers[spec.name][0] for spec in specs}
