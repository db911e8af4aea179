"""Names and modules without what training wraps around a network, so that no architecture need know of it.

`DataParallel`, `DistributedDataParallel`, `AveragedModel` and DeepSpeed keep the network as `module`, `torch.compile`
as `_orig_mod`, FSDP as `_fsdp_wrapped_module`, activation checkpointing as `_checkpoint_wrapped_module`, Fabric as
`_forward_module`. A state dict then has these as parts of its keys: in front, one in another, or, where a part of the
network was wrapped by itself, in the middle. No network of the field has parts of these names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TypeVar

V = TypeVar("V")

WRAPPERS = frozenset(
    ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module", "_fpw_module")
)
"""Parts of a key that are a wrapper's."""


def without_wrappers(tensors: Mapping[str, V]) -> dict[str, V]:
    """The same values under keys without wrappers' parts.

    Where two keys would become one (`{"head.bias", "module.head.bias"}`), both stay as they are.
    """
    bare = {key: _bare(key) for key in tensors}
    if all(key == name for key, name in bare.items()):
        return dict(tensors)
    counts = Counter(bare.values())
    return {(name if counts[name] == 1 else key): tensors[key] for key, name in bare.items()}


def _bare(key: str) -> str:
    *path, last = key.split(".")
    return ".".join([*(part for part in path if part not in WRAPPERS), last])
