"""Torch tensors for backends that are not torch: whether they are wanted, and in an input's dtype."""

from __future__ import annotations

from typing import Any

from lensmount.backend.devices import requested_device_path
from lensmount.backend.torch_place import check_device, import_torch
from lensmount.contracts.session import OpenRequest
from lensmount.errors import BackendError


def tensors_wanted(request: OpenRequest) -> bool:
    """Whether a session is to take tensors: as asked, else on CUDA where an installed torch has the same device.

    Raises:
        MissingDependencyError: They were asked for, and torch is not installed.
        DeviceError: They were asked for, and torch does not have the device.
    """
    asked = requested_device_path(request)
    if asked is not None:
        if asked:
            check_device(import_torch(), request.device)
        return asked
    if not request.device.startswith("cuda"):
        return False
    try:
        check_device(import_torch(), request.device)
    except (BackendError, ImportError):
        return False
    return True


def fitting(torch: Any, tensor: Any, name: str, dtype: str) -> Any:
    """A tensor in an input's dtype, contiguous; floating types are cast to one another, as for arrays.

    Raises:
        BackendError: The cast would change what the values mean.
    """
    wanted = getattr(torch, dtype)
    if tensor.dtype != wanted and not (tensor.dtype.is_floating_point and wanted.is_floating_point):
        raise BackendError(
            f"input {name!r} cannot take a {tensor.dtype} tensor", found=str(tensor.dtype), expected=dtype
        )
    return tensor.to(wanted).contiguous()
