"""What a backend is built from: devices and threads, dtypes, batches, memory, and torch's places and streams.

Backends, models and vision's `device` and `models` rooms import it; it imports `contracts`, `specs` and `errors`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lensmount.lazy import lazy_names

_LAZY = {
    "ONNXRUNTIME_DTYPES": "lensmount.backend.dtypes",
    "batch_policy": "lensmount.backend.batching",
    "check_device": "lensmount.backend.torch_place",
    "cpu_count": "lensmount.machine.system",
    "host_array": "lensmount.backend.dtypes",
    "import_torch": "lensmount.backend.torch_place",
    "is_tensor": "lensmount.backend.tensors",
    "join_batches": "lensmount.backend.batching",
    "padded_batch": "lensmount.backend.batching",
    "requested_device_path": "lensmount.backend.devices",
    "requested_threads": "lensmount.backend.devices",
    "run_batched": "lensmount.backend.batching",
    "session_threads": "lensmount.backend.devices",
    "split_device": "lensmount.backend.devices",
}

if TYPE_CHECKING:
    from lensmount.backend.batching import batch_policy as batch_policy
    from lensmount.backend.batching import join_batches as join_batches
    from lensmount.backend.batching import padded_batch as padded_batch
    from lensmount.backend.batching import run_batched as run_batched
    from lensmount.backend.devices import requested_device_path as requested_device_path
    from lensmount.backend.devices import requested_threads as requested_threads
    from lensmount.backend.devices import session_threads as session_threads
    from lensmount.backend.devices import split_device as split_device
    from lensmount.backend.dtypes import ONNXRUNTIME_DTYPES as ONNXRUNTIME_DTYPES
    from lensmount.backend.dtypes import host_array as host_array
    from lensmount.backend.tensors import is_tensor as is_tensor
    from lensmount.backend.torch_place import check_device as check_device
    from lensmount.backend.torch_place import import_torch as import_torch
    from lensmount.machine.system import cpu_count as cpu_count

__all__ = [
    "ONNXRUNTIME_DTYPES",
    "batch_policy",
    "check_device",
    "cpu_count",
    "host_array",
    "import_torch",
    "is_tensor",
    "join_batches",
    "padded_batch",
    "requested_device_path",
    "requested_threads",
    "run_batched",
    "session_threads",
    "split_device",
]

__getattr__, __dir__ = lazy_names(__name__, _LAZY)
