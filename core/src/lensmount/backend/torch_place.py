"""torch where it is installed, and its devices."""

from __future__ import annotations

from typing import Any

from lensmount.backend.devices import split_device
from lensmount.errors import DeviceError, MissingDependencyError

INSTALL = 'pip install "lensmount[torch]"'


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
    if kind == "cpu" or (kind == "mps" and torch.backends.mps.is_available()):
        return torch.device(kind)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "cuda" and index < count:
        return torch.device(kind, index)
    there = [f"cuda:{i}" for i in range(count)]
    there += ["mps"] if torch.backends.mps.is_available() else []
    raise DeviceError(
        f"torch {torch.__version__} has no device {name!r}",
        found=", ".join([*there, "cpu"]),
        expected=name,
        fix="lensmount doctor; a torch build for your GPU: https://pytorch.org/get-started/locally",
    )
