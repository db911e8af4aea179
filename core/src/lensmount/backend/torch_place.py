"""Places a network: device, precision, memory layout; and reads back what is effective."""

from __future__ import annotations

from typing import Any

from lensmount.backend.devices import split_device
from lensmount.contracts.session import OpenRequest
from lensmount.errors import DeviceError, MissingDependencyError, OptionError

INSTALL = 'pip install "lensmount[torch]"'

DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
PRECISIONS = {name: precision for precision, name in DTYPES.items()}


def import_torch() -> Any:
    """Imports torch.

    Raises:
        MissingDependencyError: It is not installed, or cannot be imported.
    """
    try:
        import torch
    except ModuleNotFoundError as error:
        raise MissingDependencyError("the torch backend needs torch", found=str(error), fix=INSTALL) from error
    except (ImportError, OSError) as error:  # OSError: a shared library of torch's is missing.
        raise MissingDependencyError(
            "torch is installed but cannot be imported",
            found=str(error),
            fix=f"pip install --force-reinstall torch, or {INSTALL}",
        ) from error
    return torch


def check_device(torch: Any, name: str) -> Any:
    """The `torch.device` of that name.

    Raises:
        DeviceError: It is not there, with what is.
    """
    kind, index = split_device(name)
    count = torch.cuda.device_count() if kind == "cuda" and torch.cuda.is_available() else 0
    if kind == "cpu" or (kind == "mps" and torch.backends.mps.is_available()):
        return torch.device(kind)
    if kind == "cuda" and index < count:
        return torch.device(kind, index)
    there = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    there += ["mps"] if torch.backends.mps.is_available() else []
    build = f"torch {torch.__version__}"
    raise DeviceError(
        f"{build} has no device {name!r}",
        found=", ".join([*there, "cpu"]),
        expected=name,
        fix="lensmount doctor; a torch build for your GPU: https://pytorch.org/get-started/locally",
    )


def place(torch: Any, module: Any, device: Any, request: OpenRequest) -> bool:
    """Moves, casts and lays out a module in place.

    Returns:
        Whether convolutions run channels-last.

    Raises:
        OptionError: The precision does not run on the device.
    """
    dtype = getattr(torch, _dtype_name(torch, device, request.precision))
    layout = request.options.channels_last
    channels_last = _pays(torch, module, device, dtype) if layout is None else layout
    module.eval().requires_grad_(False)
    module.to(device=device, dtype=dtype)
    if channels_last:
        module.to(memory_format=torch.channels_last)
    return bool(channels_last)


def _dtype_name(torch: Any, device: Any, precision: str) -> str:
    if precision not in DTYPES:
        raise OptionError(
            f"the torch backend does not compute in {precision!r}", found=precision, expected=", ".join(DTYPES)
        )
    if precision == "fp16" and device.type == "cpu" and not _cpu_has_fp16(torch):
        raise OptionError(
            "this CPU has no half-precision instructions: fp16 would run about ten times slower than fp32",
            found="precision='fp16' on cpu",
            expected="fp32 or bf16",
            fix="leave precision out, or ask for device='cuda:0'",
        )
    return DTYPES[precision]


def may_use_tf32(torch: Any, device: str) -> bool:
    """Whether fp32 convolutions on a device may keep 10 bits of the mantissa: torch's default on CUDA."""
    # Not `allow_tf32`: reading it raises once someone has used the newer setting.
    return device.startswith("cuda") and str(torch.backends.cudnn.conv.fp32_precision) != "ieee"


def _cpu_has_fp16(torch: Any) -> bool:
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_fp16_supported", None)
    return bool(supported and supported())


def _pays(torch: Any, module: Any, device: Any, dtype: Any) -> bool:
    """Whether channels-last is faster: for networks made of convolutions, not for one patch embedding."""
    if device.type == "mps" or (device.type == "cuda" and dtype == torch.float32):
        return False
    sizes = [parameter.numel() for parameter in module.parameters()]
    convolutions = [m.weight.numel() for m in module.modules() if isinstance(m, torch.nn.Conv2d)]
    return bool(sum(convolutions) * 2 > sum(sizes))


def read_back(torch: Any, module: Any, request: OpenRequest) -> tuple[str, str, Any]:
    """Device, precision and dtype that a module's parameters have, the largest share of them deciding the latter.

    Raises:
        DeviceError: Parts of the module lie elsewhere than on the device asked for.
    """
    tensors = [*module.parameters(), *module.buffers()]
    kind, index = split_device(request.device)
    expected = f"cuda:{index}" if kind == "cuda" else kind
    devices = {_name(tensor.device) for tensor in tensors} or {expected}
    if devices != {expected}:
        raise DeviceError(
            "the network does not lie where it was asked to", found=", ".join(sorted(devices)), expected=expected
        )
    counts: dict[Any, int] = {}
    for tensor in tensors:
        if tensor.is_floating_point():
            counts[tensor.dtype] = counts.get(tensor.dtype, 0) + tensor.numel()
    dtype = max(counts, key=counts.__getitem__) if counts else getattr(torch, DTYPES[request.precision])
    return expected, PRECISIONS.get(str(dtype).removeprefix("torch."), str(dtype)), dtype


def _name(device: Any) -> str:
    return f"cuda:{device.index or 0}" if device.type == "cuda" else str(device.type)
