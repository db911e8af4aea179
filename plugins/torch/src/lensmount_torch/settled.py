"""Networks run the same whatever the caller has set torch to: autocast, default device, default dtype, gradients."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

_lock = threading.Lock()
_defaults: list[Any] = []  # the caller's default dtype, once for each block that needs float32: it is the process's


@contextmanager
def settled(torch: Any, device: Any) -> Iterator[None]:
    """A block in `inference_mode` without the caller's autocast on a device, default device and default dtype."""
    with ExitStack() as stack:
        for kind in {"cpu", device.type}:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if _defaults or torch.get_default_dtype() != torch.float32:
            stack.enter_context(_float32(torch))
        stack.enter_context(torch.inference_mode())
        yield


@contextmanager
def _float32(torch: Any) -> Iterator[None]:
    with _lock:
        _defaults.append(_defaults[0] if _defaults else torch.get_default_dtype())
        torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        with _lock:
            before = _defaults.pop()
            if not _defaults:
                torch.set_default_dtype(before)
