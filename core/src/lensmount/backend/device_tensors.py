"""Torch tensors for backends that are not torch: whether they are wanted, and in an input's dtype."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lensmount.backend.devices import requested_device_path, split_device
from lensmount.errors import BackendError, DeviceError, MissingDependencyError

if TYPE_CHECKING:
    from lensmount.contracts.session import OpenRequest


INSTALL_TORCH = 'pip install "lensmount[torch]"'


def import_torch() -> Any:
    """Imports torch.

    Raises:
        MissingDependencyError: It is not installed, or cannot be imported.
    """
    try:
        import torch
    except ModuleNotFoundError as error:
        raise MissingDependencyError("the torch backend needs torch", found=str(error), fix=INSTALL_TORCH) from error
    except (ImportError, OSError) as error:  # OSError: a shared library of torch's is missing.
        raise MissingDependencyError(
            "torch is installed but cannot be imported",
            found=str(error),
            fix=f"pip install --force-reinstall torch, or {INSTALL_TORCH}",
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
