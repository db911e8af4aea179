"""Places a network: device, precision, memory layout; and reads back which of them it has."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Any

from lensmount.backend.devices import split_device
from lensmount.contracts.session import OpenRequest
from lensmount.errors import BackendError, DeviceError, OptionError

DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
PRECISIONS = {name: precision for precision, name in DTYPES.items()}
COMPILER_FIX = "install a C++ compiler (Debian: apt install g++), or load without compile=True"


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


def check_compiler(device: str) -> None:
    """Looks for what `torch.compile` needs, so that its lack is known when loading and not at the first image.

    Raises:
        BackendError: There is no C++ compiler and the network is to run on the CPU.
    """
    if device != "cpu":
        return
    named = os.environ.get("CXX")
    candidates = (named,) if named else ("cl",) if sys.platform == "win32" else ("g++", "clang++", "c++")
    if not any(shutil.which(name) for name in candidates):
        raise BackendError(
            "torch.compile needs a C++ compiler to run on the CPU",
            found=f"none of {', '.join(candidates)}",
            expected="a C++ compiler on the PATH, or named by CXX",
            fix=COMPILER_FIX,
        )
