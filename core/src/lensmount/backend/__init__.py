"""What a backend is built from: devices and threads, dtypes, batches, memory, and torch's places and streams.

Backends, models and vision's `device` and `models` rooms import it; it imports `contracts`, `specs` and `errors`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lensmount.lazy import lazy_names

_LAZY = {
    "lensmount.backend.batching": ("batch_policy", "join_batches", "padded_batch", "run_batched"),
    "lensmount.backend.devices": ("requested_device_path", "requested_threads", "session_threads", "split_device"),
    "lensmount.backend.tensors": ("host_array", "is_tensor"),
    "lensmount.backend.torch_place": ("check_device", "import_torch", "settled"),
    "lensmount.machine.system": ("cpu_count",),
}

if TYPE_CHECKING:
    from lensmount.backend.batching import batch_policy, join_batches, padded_batch, run_batched
    from lensmount.backend.devices import requested_device_path, requested_threads, session_threads, split_device
    from lensmount.backend.tensors import host_array, is_tensor
    from lensmount.backend.torch_place import check_device, import_torch, settled
    from lensmount.machine.system import cpu_count

__all__ = [
    "batch_policy", "check_device", "cpu_count", "host_array", "import_torch", "is_tensor", "join_batches",
    "padded_batch", "requested_device_path", "requested_threads", "run_batched", "session_threads", "settled",
    "split_device",
]  # fmt: skip

__getattr__, __dir__ = lazy_names(__name__, _LAZY)
