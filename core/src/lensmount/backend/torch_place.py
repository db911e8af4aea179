"""torch where it is installed, its devices, and its settings while lensmount uses it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from lensmount.backend.devices import split_device
from lensmount.errors import DeviceError, MissingDependencyError

INSTALL = 'pip install "lensmount[torch]"'
_lock = threading.Lock()
_defaults: list[Any] = []  # the caller's default dtype, once for each block that needs float32: it is the process's


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
        fix = f"pip install --force-reinstall torch, or {INSTALL}"
        raise MissingDependencyError("torch is installed but cannot be imported", found=str(error), fix=fix) from error
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


@contextmanager
def settled(*, inference: bool = True) -> Iterator[None]:
    """A block, or a function that this decorates, that the caller's settings of torch do not reach.

    Those are autocast, default device, default dtype and gradients. Where torch was not imported there are none.

    Args:
        inference: In `torch.inference_mode`; else without gradients, as parameters of a network are made.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    with ExitStack() as stack:
        for kind in ("cpu", "cuda", "mps"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        with _lock:
            if _defaults or torch.get_default_dtype() != torch.float32:
                _defaults.append(_defaults[0] if _defaults else torch.get_default_dtype())
                torch.set_default_dtype(torch.float32)
                stack.callback(_restore, torch)
        with torch.inference_mode(inference), torch.no_grad():
            yield


def _restore(torch: Any) -> None:
    with _lock:
        before = _defaults.pop()
        if not _defaults:
            torch.set_default_dtype(before)
