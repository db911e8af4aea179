"""A graph opened on LiteRT: named arrays in, named arrays out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lensmount.contracts import TensorSpec, check_feeds
from lensmount.errors import BackendError, ClosedError, DeviceMemoryError, LensmountError
from lensmount_reading import Quantisation, TfliteModel, printable

Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of the graph.

    Attributes:
        index: LiteRT's number of it.
        spec: As callers see it: float32 where the graph has whole numbers that stand for real ones.
        dtype: What the graph has.
        scale: What one step of the whole numbers is worth; None where they are what they are.
        zero_point: The whole number that stands for 0.
    """

    index: int
    spec: TensorSpec
    dtype: str
    scale: float | None = None
    zero_point: int = 0

    def to_graph(self, array: NDArray[Any]) -> NDArray[Any]:
        """Real numbers as the nearest whole ones (halves away from zero), those out of range at its ends."""
        if self.scale is None:
            return np.asarray(array, order="C")
        steps = array / np.float32(self.scale)
        nearest = np.trunc(steps + np.copysign(np.float32(0.5), steps)) + self.zero_point
        limits = np.iinfo(self.dtype)
        made: NDArray[Any] = np.clip(nearest, limits.min, limits.max).astype(self.dtype, order="C")
        return made

    def from_graph(self, array: NDArray[Any]) -> NDArray[Any]:
        """The numbers that the graph's whole ones stand for."""
        if self.scale is None:
            return array
        made: NDArray[Any] = (array.astype(np.float32) - np.float32(self.zero_point)) * np.float32(self.scale)
        return made


def ports(model: TfliteModel, numbers: Sequence[int]) -> tuple[Port, ...]:
    """The inputs or outputs of a graph."""
    made = []
    for number, name in zip(numbers, model.unique_names(numbers), strict=True):
        tensor = model.tensors[number]
        shape = tuple(None if size < 0 else size for size in tensor.shape)
        scale, zero_point = _linear(tensor.quantisation, tensor.dtype)
        spec = TensorSpec(name, shape, tensor.dtype if scale is None else "float32")
        made.append(Port(number, spec, tensor.dtype, scale, zero_point))
    return tuple(made)


def _linear(quantisation: Quantisation | None, dtype: str) -> tuple[float | None, int]:
    if quantisation is None or dtype not in ("int8", "uint8", "int16") or len(quantisation.scales) != 1:
        return None, 0
    scale = quantisation.scales[0]
    return (scale, quantisation.zero_points[0]) if scale > 0 else (None, 0)


class LitertSession:
    """A graph opened on LiteRT; satisfies `lensmount.contracts.Session`.

    An interpreter holds the values of one run, so each run takes one from a pool. There are at most `contexts` of them;
    an interpreter costs the graph's intermediate values and LiteRT's own copy of the weights.

    Args:
        make: Makes one more interpreter.
        first: The first one, whose memory is laid out.
        model: The graph.
        subject: The graph, in words.
        contexts: Runs at the same time; further ones wait.
        provider: LiteRT and its version.

    Attributes:
        backend: `litert`.
        device: `cpu`.
        precision: `int8` where the graph has whole numbers with a scale, else `fp32`: weights stored in half are
            widened before they are used.
        inputs: Inputs in order.
        outputs: Outputs in order.
        metadata: Texts that the file carries.
    """

    def __init__(
        self,
        make: Callable[[], Any],
        first: Any,
        model: TfliteModel,
        subject: str,
        *,
        contexts: int,
        provider: str,
    ) -> None:
        self._make = make
        self._subject = subject
        self._given = ports(model, model.inputs)
        self._taken = ports(model, model.outputs)
        self._lock = threading.Lock()
        self._free = threading.Semaphore(contexts)
        self._idle: list[tuple[Shapes | None, Any]] = [(None, first)]
        self._closed = False
        self.backend = "litert"
        self.device = "cpu"
        self.provider = provider
        self.precision = "int8" if any(tensor.quantisation for tensor in model.tensors) else "fp32"
        self.inputs = tuple(port.spec for port in self._given)
        self.outputs = tuple(port.spec for port in self._taken)
        self.metadata: Mapping[str, str] = dict(model.metadata)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Runs once; see `lensmount.contracts.Session.run`."""
        self._require_open()
        check_feeds(self.inputs, feeds, self._subject)
        arrays = [feeds[port.spec.name] for port in self._given]
        if any(array.size == 0 for array in arrays):
            raise BackendError(f"{self._subject} was given nothing", found=str([a.shape for a in arrays]))
        shapes = tuple(tuple(int(size) for size in array.shape) for array in arrays)
        with self._free:
            known, interpreter = self._take(shapes)
            # One that fails is not used again: what state it is left in is not said.
            try:
                if known != shapes:
                    self._shape(interpreter, shapes)
                for port, array in zip(self._given, arrays, strict=True):
                    interpreter.set_tensor(port.index, port.to_graph(array))
                interpreter.invoke()
                # copies: the interpreter's memory is written to by the next run
                found = {port.spec.name: port.from_graph(interpreter.get_tensor(port.index)) for port in self._taken}
            except Exception as error:
                raise self._failure(error) from error
            self._give_back(shapes, interpreter)
        return found

    def close(self) -> None:
        """Frees the session once all started runs have ended; a second call does nothing."""
        with self._lock:
            self._closed = True
            self._idle.clear()

    def _shape(self, interpreter: Any, shapes: Shapes) -> None:
        free = [None in port.spec.shape for port in self._given]
        if any(free):
            for port, shape, is_free in zip(self._given, shapes, free, strict=True):
                if is_free:
                    interpreter.resize_tensor_input(port.index, shape)
            interpreter.allocate_tensors()

    def _take(self, shapes: Shapes) -> tuple[Shapes | None, Any]:
        """An interpreter, one that is laid out for these shapes where there is one."""
        with self._lock:
            self._require_open()
            for place, (known, _) in enumerate(self._idle):
                if known == shapes:
                    return self._idle.pop(place)
            if self._idle:
                return self._idle.pop()
        return None, self._make()

    def _give_back(self, shapes: Shapes, interpreter: Any) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append((shapes, interpreter))

    def _require_open(self) -> None:
        if self._closed:
            raise ClosedError(f"the session of {self._subject} was closed", fix="load the model again")

    def _failure(self, error: Exception) -> LensmountError:
        said = brief(error)
        if isinstance(error, MemoryError) or ("alloc" in said.lower() and "fail" in said.lower()):
            return DeviceMemoryError(
                f"there is not enough memory to run {self._subject}", found=said, fix="use a smaller batch or input"
            )
        return BackendError(f"LiteRT failed to run {self._subject}", found=said)


def brief(error: BaseException) -> str:
    """One line of what LiteRT said, without its source files."""
    words = [word for word in str(error).split() if not word.startswith(("external/", "third_party/", "tflite/"))]
    return printable(" ".join(words), 300)
