"""What a backend promises: a session with named, typed inputs and outputs. Imports no runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np

    from lensmount.contracts.arrays import Array
    from lensmount.specs import ModelPackage


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A named input or output.

    Attributes:
        name: As the graph has it.
        shape: Sizes; a string (symbol) or None where dynamic.
        dtype: numpy's name: `float32`, `float16`, `uint8`, `int64`, …
    """

    name: str
    shape: tuple[int | str | None, ...]
    dtype: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendOptions:
    """Settings of a session that users may give at load.

    Attributes:
        threads: CPU threads for one run; None for `LENSMOUNT_THREADS`, else the runtime's choice.
        compile: Ask the backend to compile the network (torch); costs time at first call.
        channels_last: Memory layout of convolutions (torch); None to let the backend choose.
        providers: onnxruntime execution providers to use, in order; None for the plain one of the device.
        build: Whether a backend that builds its own packages (tensorrt) may do so now: `never`, or `if-missing`.
        allow_host_code: Open engines that bring code for the host (TensorRT's version-compatible ones).
        contexts: Runs that an engine may do at the same time; further runs wait. Each takes its own device memory.
        cuda_graphs: Record a run of each shape of the input as one CUDA graph and replay it; pays where shapes repeat.
            None where the engine allows it (tensorrt), and not on torch, where it does not go with `compile`. Elsewhere
            it does nothing.
        device_path: Whether pictures are prepared and outputs finished on the network's device, in torch: None for
            CUDA where torch can use it, False for never, True for wherever torch runs, or an error.
    """

    threads: int | None = None
    compile: bool = False
    channels_last: bool | None = None
    providers: tuple[str, ...] | None = None
    build: Literal["never", "if-missing"] = "never"
    allow_host_code: bool = False
    contexts: int = 2
    cuda_graphs: bool | None = None
    device_path: bool | None = None

    def __post_init__(self) -> None:
        from lensmount.specs.options import flag, one_of, positive

        one_of("build", self.build, ("never", "if-missing"))
        flag("allow_host_code", self.allow_host_code)
        positive("contexts", self.contexts)
        for name in ("cuda_graphs", "device_path"):
            if getattr(self, name) is not None:
                flag(name, getattr(self, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchNetwork:
    """A torch module with names for what goes in and comes out.

    Attributes:
        module: `torch.nn.Module` in eval mode, float32, on the CPU, weights loaded. Its `forward` takes the inputs
            in order as positional tensors and returns a tensor or a tuple of tensors in the outputs' order.
        inputs: `TensorSpec`s of the inputs.
        outputs: `TensorSpec`s of the outputs.
        metadata: What a graph file would embed (class names, stride, task), as strings.
        float32_outputs: Cast floating outputs to float32 before they leave the device.
    """

    module: Any
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)
    float32_outputs: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphNetwork:
    """An ONNX graph in memory, made from the weights of a package.

    Attributes:
        model: The serialised model. Initializers named below are marked in it as lying outside.
        initializers: Contiguous numpy arrays by name, perhaps views of a mapped file; they must outlive the session.
    """

    model: bytes
    initializers: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRequest:
    """All that a backend needs to open one graph or network.

    Attributes:
        package: The package it belongs to.
        path: The graph's file, inside a verified folder; None for format `torch`.
        device: `cpu`, `cuda:0`, `mps`.
        precision: Precision to compute in (`fp32`, `fp16`, `bf16`; `int8` graphs run as they are).
        options: Session settings.
        network: For format `torch`: the network that the architecture built, on the CPU in float32.
        graph: For a backend that opens `graph` instead of the package's format: what the architecture wrote.
    """

    package: ModelPackage
    path: Path | None
    device: str
    precision: str
    options: BackendOptions = field(default_factory=BackendOptions)
    network: TorchNetwork | None = None
    graph: GraphNetwork | None = None


@runtime_checkable
class Session(Protocol):
    """A graph or network opened on a backend and a device. Safe to call from several threads.

    `device`, `precision` and `provider` are read back from the runtime after opening, not repeated from the request.
    """

    @property
    def backend(self) -> str:
        """Name of the backend."""

    @property
    def device(self) -> str:
        """Device that it effectively runs on."""

    @property
    def precision(self) -> str:
        """Precision that it effectively computes in."""

    @property
    def provider(self) -> str:
        """The runtime's own word for what executes it (`CPUExecutionProvider`, `torch 2.13 cpu`)."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Inputs in order."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Outputs in order."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """Metadata embedded in the graph; empty when there is none."""

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Runs once.

        Args:
            feeds: Every input by name, with the dtype and a shape that `inputs` allows; host arrays.

        Returns:
            Every output by name, as host arrays in the graph's dtype (bfloat16 comes as float32).

        Raises:
            BackendError: A name, dtype or shape does not fit, or the runtime failed.
            DeviceMemoryError: The device is out of memory.
            ClosedError: The session was closed.
        """

    def close(self) -> None:
        """Frees what the session holds; a second call does nothing."""


@runtime_checkable
class TensorSession(Protocol):
    """A session that can also take and give torch tensors on its device; the names are those of `Session.run`."""

    @property
    def tensor_device(self) -> str | None:
        """Where the tensors lie; None where a model is to prepare and finish on the host."""

    @property
    def channels_last(self) -> bool:
        """Whether a picture input is best given in that memory layout."""

    def run_tensors(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Runs once, ordered on the stream that is current in this thread.

        Args:
            feeds: Every input by name, as `torch.Tensor`s on `tensor_device`.

        Returns:
            Every output by name, as tensors there.

        Raises:
            BackendError: As for `run`.
        """


def check_feeds(inputs: tuple[TensorSpec, ...], feeds: Mapping[str, np.ndarray[Any, Any]], subject: str) -> None:
    """Compares feeds with the declared inputs, so that every backend refuses the same things in the same words.

    Raises:
        BackendError: A missing or surplus name, a wrong dtype, or a shape that does not fit.
    """
    from lensmount.errors import BackendError

    names = [spec.name for spec in inputs]
    if set(names) != set(feeds):
        raise BackendError(f"{subject} was given the wrong inputs", found=str(sorted(feeds)), expected=str(names))
    for spec in inputs:
        array = feeds[spec.name]
        if not hasattr(array, "dtype") or not hasattr(array, "shape"):
            raise BackendError(
                f"input {spec.name!r} of {subject} is not an array",
                found=type(array).__name__,
                expected=f"a numpy array, {spec.dtype} {spec.shape}",
            )
        fits = len(array.shape) == len(spec.shape) and all(
            not isinstance(want, int) or want == got for want, got in zip(spec.shape, array.shape, strict=True)
        )
        if not fits or str(array.dtype) != spec.dtype:
            raise BackendError(
                f"input {spec.name!r} of {subject} has the wrong shape or dtype",
                found=f"{array.dtype} {tuple(array.shape)}",
                expected=f"{spec.dtype} {spec.shape}",
            )
