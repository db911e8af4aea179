"""The torch backend: networks that an architecture builds, placed, cast, laid out and run by this module.

What it decides, and why:

* fp32 is the default everywhere. fp16 on a CPU without half-precision instructions is refused: it is ten times
  slower than fp32 there, and no caller can mean that. bf16 is taken on every CPU.
* Convolutions run channels-last on a CPU, and on CUDA in fp16 and bf16, unless `channels_last` says otherwise.
* `torch.set_num_threads` holds for the whole process, so it is called only when `threads=` or `LENSMOUNT_THREADS`
  asks for it; the last session that asks decides for all.
* `cuda_graphs` records each shape of the input once (`torch_graphs`).
* The caller's autocast, default device and default dtype do not reach the network (`lensmount.backend.settled`).
* On CUDA in fp32, torch's own setting decides whether convolutions may use TF32; `provider` says so when they may.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lensmount.backend import torch_errors, wheels
from lensmount.backend.devices import requested_device_path, requested_threads, split_device
from lensmount.backend.torch_place import INSTALL, check_device, import_torch, settled
from lensmount.contracts.session import OpenRequest, TensorSpec, check_feeds
from lensmount.errors import BackendError, ClosedError, LensmountError, ModelFileError, OptionError
from lensmount.specs import BackendStatus
from lensmount_torch import memory as torch_memory
from lensmount_torch.placing import check_compiler, may_use_tf32, place, read_back

if TYPE_CHECKING:
    from lensmount.contracts import Environment, Gpu
    from lensmount.contracts.arrays import Array


def probe(environment: Environment) -> BackendStatus:
    """Whether torch runs here, and where; reads installed metadata only."""
    version = environment.version("torch")
    if version is None:
        fix = wheels.obstacle(environment, "torch") or INSTALL
        return BackendStatus(usable=False, reason="torch is not installed", fix=fix)
    devices: list[str] = []
    precisions: list[tuple[str, tuple[str, ...]]] = []
    left_out, why_not = _without_cuda(version, environment)
    gpus = [gpu for gpu in environment.gpus if gpu not in left_out]
    if gpus:
        devices += [f"cuda:{gpu.index}" for gpu in gpus]
        # Ampere is the first generation with bfloat16 in hardware; earlier ones emulate it slowly.
        ampere = all(_capability(gpu.compute_capability) >= (8, 0) for gpu in gpus)
        precisions.append(("cuda", ("fp32", "fp16", "bf16") if ampere else ("fp32", "fp16")))
    if environment.mps:
        devices.append("mps")
        precisions.append(("mps", ("fp32", "fp16")))
    return BackendStatus(
        usable=True,
        version=version,
        devices=(*devices, "cpu"),
        precisions=(*precisions, ("cpu", ("fp32", "bf16"))),
        reason=why_not if environment.gpus else None,
        fix=wheels.cuda_build(
            environment, "torch", f"install the build of torch that fits the GPU and its driver: {wheels.TORCH_PAGE}"
        )
        if environment.gpus and why_not
        else None,
    )


def _without_cuda(version: str, environment: Environment) -> tuple[tuple[Gpu, ...], str | None]:
    """The GPUs that cannot be used, and why."""
    built = re.search(r"[+.]cu(\d+)(\d)$", version)
    if built is None:
        return environment.gpus, f"not on CUDA: the installed torch {version} is a build without it"
    if wheels.driver_too_old(environment, built[1]):
        why = f"torch {version} needs a driver for CUDA {built[1]}, this one ends at {environment.cuda}"
        return environment.gpus, f"not on CUDA: {why}"
    if old := wheels.too_old_for(environment, built[1]):
        return old, f"not on CUDA: {wheels.no_kernels(f'torch {version}', old)}"
    return (), None


def _capability(text: str | None) -> tuple[int, ...]:
    return tuple(int(part) for part in (text or "0").split("."))


@settled(inference=False)
def open_session(request: OpenRequest) -> TorchSession:
    """Places a network on a device; the network's module is moved and cast in place, not copied.

    Raises:
        MissingDependencyError: torch is not installed or cannot be imported.
        ModelFileError: The request holds no network.
        DeviceError: The device is not there.
        DeviceMemoryError: The network does not fit the device's memory.
        OptionError: The precision does not run on the device, `threads` or `device_path` is not valid, or both
            `compile` and `cuda_graphs` were asked for.
        BackendError: `compile` was asked for and there is no C++ compiler for the CPU.
    """
    network = request.network
    if network is None:
        raise ModelFileError(
            f"package {request.package.name!r} came without a network",
            expected="a TorchNetwork from the architecture's `network` function",
        )
    threads = requested_threads(request)
    split_device(request.device)
    if request.options.compile and request.options.cuda_graphs:
        raise OptionError(
            "compile and cuda_graphs do not go together",
            found="compile=True, cuda_graphs=True",
            fix="choose one, and measure it: lensmount bench",
        )
    on_device = requested_device_path(request)
    torch = import_torch()
    device = check_device(torch, request.device)
    if threads is not None:
        torch.set_num_threads(threads)
    subject = f"network {type(network.module).__name__!r}"
    try:
        channels_last = place(torch, network.module, device, request)
    except LensmountError:
        raise
    except Exception as error:
        raise torch_errors.running(error, subject, request.device) from error
    session = TorchSession(torch, request, subject, channels_last)
    if on_device or (on_device is None and device.type == "cuda"):
        session.tensor_device = session.device
    return session


class TorchSession:
    """A network on a device; satisfies `lensmount.contracts.Session`.

    Floating inputs are given in the dtype that `inputs` declares (float32) and cast to the precision on the device.

    Attributes:
        backend: `torch`.
        module: The module itself, for an architecture that needs more than `run`. None once closed.
        device: Device that the parameters lie on.
        precision: Precision that the parameters have.
        provider: Version of torch, device, and how the module runs.
        channels_last: Whether convolutions run in that layout.
        tensor_device: Where `run_tensors` takes and gives tensors; None where models are to work on the host.
        inputs: Inputs in order.
        outputs: Outputs in order.
        metadata: The network's metadata.
    """

    def __init__(self, torch: Any, request: OpenRequest, subject: str, channels_last: bool) -> None:
        network = request.network
        assert network is not None
        self._torch = torch
        self._subject = subject
        self._float32 = network.float32_outputs
        self.backend = "torch"
        self.tensor_device: str | None = None
        self.module: Any | None = network.module
        self.channels_last = channels_last
        self.device, self.precision, self._dtype = read_back(torch, network.module, request)
        self._place = torch.device(self.device)
        self.inputs: tuple[TensorSpec, ...] = network.inputs
        self.outputs: tuple[TensorSpec, ...] = tuple(self._output_spec(spec) for spec in network.outputs)
        self._names = [spec.name for spec in self.outputs]
        self.metadata: Mapping[str, str] = dict(network.metadata)
        self._weights = {
            tensor.untyped_storage().data_ptr() for tensor in (*network.module.parameters(), *network.module.buffers())
        }
        self._call: Any | None = network.module
        self.provider = f"torch {torch.__version__} {self.device}"
        if request.options.compile:
            check_compiler(self.device)
            self._call = torch.compile(network.module)
            self.provider += ", compiled"
        if request.options.cuda_graphs and self._place.type == "cuda":
            from lensmount_torch.graphs import CudaGraph, Recorded

            self._call = Recorded(network.module, CudaGraph)
            self.provider += ", CUDA graphs"
        if self.precision == "fp32" and may_use_tf32(torch, self.device):
            self.provider += ", TF32 convolutions"

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Runs once; see `lensmount.contracts.Session.run`. The network must not write into its inputs."""
        check_feeds(self.inputs, feeds, self._subject)
        try:
            return {name: self._to_host(tensor, feeds) for name, tensor in self._forward(feeds).items()}
        except LensmountError:
            raise
        except Exception as error:
            raise self._failure(error, feeds) from error

    def run_on_device(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Runs once and leaves the outputs on the device, in the precision that the network computes in.

        Args:
            feeds: Every input by name, as a host array or as a tensor.

        Returns:
            Every output by name, as `torch.Tensor`s made under `inference_mode`.

        Raises:
            BackendError: As for `run`.
        """
        expected = [spec.name for spec in self.inputs]
        if set(feeds) != set(expected):
            raise BackendError(
                f"{self._subject} was given the wrong inputs", found=str(sorted(feeds)), expected=str(expected)
            )
        arrays = {name: value for name, value in feeds.items() if not isinstance(value, self._torch.Tensor)}
        check_feeds(tuple(spec for spec in self.inputs if spec.name in arrays), arrays, self._subject)
        try:
            return self._forward(feeds)
        except LensmountError:
            raise
        except Exception as error:
            raise self._failure(error, feeds) from error

    def run_tensors(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """`run_on_device` in the dtypes that `outputs` declares; see `lensmount.contracts.session.TensorSession`."""
        torch = self._torch
        made = self.run_on_device(feeds)
        for name, tensor in made.items():
            if tensor.is_floating_point() and (self._float32 or tensor.dtype == torch.bfloat16):
                made[name] = tensor.to(torch.float32)
        return made

    def _failure(self, error: Exception, feeds: Mapping[str, Any]) -> LensmountError:
        """The error for a run that failed; where memory ran out, with the batch that would fit."""
        if torch_errors.is_memory(error):
            with settled():
                return torch_memory.shortage(
                    self._torch, error, self._subject, self.device, self.inputs, feeds, self._forward
                )
        return torch_errors.running(error, self._subject, self.device)

    def close(self) -> None:
        """Lets go of the network, and gives CUDA memory back to the driver; a second call does nothing."""
        was_open, self._call, self.module = self._call is not None, None, None
        if was_open and self._place.type == "cuda":
            self._torch.cuda.empty_cache()

    def _forward(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        call = self._call
        if call is None:
            raise ClosedError(f"the session of {self._subject} was closed", fix="load the model again")
        with settled():
            results = call(*(self._to_device(feeds[spec.name]) for spec in self.inputs))
        values = [results] if isinstance(results, self._torch.Tensor) else list(results)
        if len(values) != len(self._names) or not all(isinstance(value, self._torch.Tensor) for value in values):
            raise BackendError(
                f"{self._subject} gave other outputs than it declares",
                found=str([type(value).__name__ for value in values]),
                expected=f"tensors for {self._names}",
            )
        return dict(zip(self._names, values, strict=True))

    def _to_device(self, value: Any) -> Any:
        if not isinstance(value, self._torch.Tensor):
            # torch warns of read-only arrays and refuses negative strides.
            if not value.flags.writeable or any(stride < 0 for stride in value.strides):
                value = value.copy()
            value = self._torch.from_numpy(value)
        value = value.to(self._place, self._dtype if value.is_floating_point() else value.dtype)
        if self.channels_last and value.ndim == 4:
            value = value.contiguous(memory_format=self._torch.channels_last)
        return value

    def _to_host(self, tensor: Any, feeds: Mapping[str, Array]) -> Array:
        torch = self._torch
        if tensor.is_floating_point() and (self._float32 or tensor.dtype == torch.bfloat16):
            tensor = tensor.to(torch.float32)
        tensor = tensor.cpu().contiguous()
        storage = tensor.untyped_storage().data_ptr()
        # A network that hands out a weight or its input would let the caller write into it.
        if storage in self._weights or any(_within(array, storage) for array in feeds.values()):
            tensor = tensor.clone()
        array: Array = tensor.numpy()
        return array

    def _output_spec(self, spec: TensorSpec) -> TensorSpec:
        if spec.dtype not in ("float16", "bfloat16", "float32"):
            return spec
        half = self.precision == "fp16" and not self._float32
        return TensorSpec(spec.name, spec.shape, "float16" if half else "float32")


def _within(array: Array, address: int) -> bool:
    return array.size > 0 and array.__array_interface__["data"][0] == address
