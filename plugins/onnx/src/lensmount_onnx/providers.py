"""Execution providers of onnxruntime: which to ask for, with which options, and what was effectively got.

onnxruntime answers a provider that it lacks, or that fails to start, by running on the CPU. Here that is an error.

| device | provider by default |
|---|---|
| `cpu` | `CPUExecutionProvider` |
| `cuda:N` | `CUDAExecutionProvider` |
| `mps` | `CoreMLExecutionProvider`: on the GPU in fp32; for fp16 graphs CoreML may use the Neural Engine too |

Others are asked for by name, in order: `providers=("TensorrtExecutionProvider", "CUDAExecutionProvider")`.
"""

from __future__ import annotations

from typing import Any

from lensmount.backend.devices import split_device
from lensmount.contracts.session import OpenRequest
from lensmount.errors import DeviceError, OptionError

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
COREML = "CoreMLExecutionProvider"

DEFAULTS = {"cpu": CPU, "cuda": CUDA, "mps": COREML}

DEVICE_KINDS = {CPU: "cpu", CUDA: "cuda", TENSORRT: "cuda", "NvTensorRTRTXExecutionProvider": "cuda", COREML: "mps"}
"""Kind of device that a provider runs on. One that is not listed here is taken to run on the device asked for."""

INSTALL_GPU = 'pip uninstall -y onnxruntime && pip install --force-reinstall "lensmount[onnx-gpu]"'


def choose(request: OpenRequest, available: list[str]) -> list[tuple[str, dict[str, Any]]]:
    """The providers to ask for, with their options.

    Args:
        request: What to open where.
        available: `onnxruntime.get_available_providers()`.

    Raises:
        DeviceError: This build of onnxruntime has no such provider, or none for the device.
        OptionError: A provider runs on another kind of device than the one asked for, or gets this graph wrong.
    """
    kind, _ = split_device(request.device)
    names = request.options.providers
    if names is None:
        if kind not in DEFAULTS:
            raise DeviceError(
                f"the onnx backend has no provider for device {request.device!r}",
                found=request.device,
                expected=", ".join(DEFAULTS),
            )
        names = (DEFAULTS[kind],)
    if not names or len(set(names)) != len(names):
        raise OptionError("providers is not valid", found=repr(names), expected="one or more distinct names")
    for name in names:
        _check(name, kind, request, available)
    return [(name, _options(name, request)) for name in names]


def _check(name: str, kind: str, request: OpenRequest, available: list[str]) -> None:
    if name in request.package.requirements.excluded_providers:
        raise OptionError(
            f"package {request.package.name!r} gives wrong results with {name}",
            found=name,
            expected="a provider that the package does not exclude",
            fix="leave out providers=, or choose another package",
        )
    if name not in available:
        runs_on_cuda = DEVICE_KINDS.get(name) == "cuda"
        raise DeviceError(
            f"the installed onnxruntime has no {name}, so it cannot run on {request.device!r}",
            found=", ".join(available),
            expected=name,
            fix=INSTALL_GPU if runs_on_cuda else "install the build of onnxruntime that has it",
        )
    wants = DEVICE_KINDS.get(name, kind)
    # The CPU may stand after another provider, for the nodes which that one does not take.
    if wants != kind and name != CPU:
        raise OptionError(f"{name} does not run on {request.device!r}", found=request.device, expected=wants)


def _options(name: str, request: OpenRequest) -> dict[str, Any]:
    _, index = split_device(request.device)
    half = request.precision == "fp16"
    if name == CUDA:
        # Heuristic: the exhaustive search, onnxruntime's default, repeats for seconds at every new input size.
        # TF32 keeps 10 bits of a float's mantissa: a user who asked for fp32 gets fp32.
        return {"device_id": index, "cudnn_conv_algo_search": "HEURISTIC", "use_tf32": 0}
    if name == TENSORRT:
        return {
            "device_id": index,
            "trt_fp16_enable": half,
            "trt_engine_cache_enable": True,
            "trt_engine_cache_path": _engine_cache(),
        }
    if name == COREML:
        return {"ModelFormat": "MLProgram", "MLComputeUnits": "ALL" if half else "CPUAndGPU"}
    return {}


def _engine_cache() -> str:
    """Where the TensorRT provider keeps the engines that it builds: minutes each, good for this machine only."""
    from platformdirs import user_cache_path

    return str(user_cache_path("lensmount") / "onnxruntime-tensorrt")


def read_back(session: Any, chosen: list[tuple[str, dict[str, Any]]], request: OpenRequest) -> tuple[str, str]:
    """Compares what a session got with what was asked for.

    Args:
        session: The opened `onnxruntime.InferenceSession`.
        chosen: What `choose` answered.
        request: What was asked for.

    Returns:
        The provider and the device that the session effectively runs on.

    Raises:
        DeviceError: onnxruntime fell back to another provider or device.
    """
    got = list(session.get_providers())
    missing = [name for name, _ in chosen if name not in got]
    first = chosen[0][0]
    if missing or got[0] != first:
        raise DeviceError(
            f"onnxruntime fell back from {first} to {got[0]}, so the graph would not run on {request.device!r}",
            found=", ".join(got),
            expected=", ".join(name for name, _ in chosen),
            fix="check the CUDA, cuDNN and TensorRT libraries that this onnxruntime needs: lensmount doctor",
        )
    kind, _ = split_device(request.device)
    effective = DEVICE_KINDS.get(first, kind)
    if effective == "cuda":
        effective = f"cuda:{int(session.get_provider_options().get(first, {}).get('device_id', 0))}"
        if effective != f"cuda:{split_device(request.device)[1]}":
            raise DeviceError("onnxruntime chose another GPU", found=effective, expected=request.device)
    if first != CPU:
        _check_assignment(session, first, request)
    return first, effective


def assignment(session: Any) -> dict[str, int]:
    """Nodes of the optimised graph by the provider that runs them; empty where onnxruntime does not tell."""
    counts: dict[str, int] = {}
    if hasattr(session, "get_provider_graph_assignment_info"):
        for part in session.get_provider_graph_assignment_info():
            counts[part.ep_name] = counts.get(part.ep_name, 0) + len(part.get_nodes())
    return counts


def _check_assignment(session: Any, provider: str, request: OpenRequest) -> None:
    counts = assignment(session)
    if counts and not counts.get(provider):
        raise DeviceError(
            f"onnxruntime started {provider} but gave it none of the graph's nodes",
            found=", ".join(f"{name}: {count} nodes" for name, count in counts.items()),
            expected=f"nodes on {request.device}",
            fix="ask for device='cpu', or use a package in another precision",
        )
