"""Pictures to network input, and outputs to results, in torch on the device that runs the network.

The same results as the host's transforms, boxes and masks; what differs, and by how much, stands in docs/gpu.md. Any
distribution may import this room's names; it imports `results`, `images` and the core. Every module needs torch: import
names only where a session says where its tensors lie (`Session.tensor_device`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lensmount.lazy import lazy_names

_LAZY = {
    "lensmount_vision.device.masks": ("decode_prototypes", "resize_logits"),
    "lensmount_vision.device.ordering": ("top_k",),
    "lensmount_vision.device.path": ("DevicePath",),
    "lensmount_vision.device.preparing": ("DevicePreparer",),
    "lensmount_vision.device.suppression": ("Overlapping", "box_overlaps", "rotated_overlaps", "suppress"),
    "lensmount_vision.device.whole_masks": ("resize_whole",),
}

if TYPE_CHECKING:
    from lensmount_vision.device.masks import decode_prototypes, resize_logits
    from lensmount_vision.device.ordering import top_k
    from lensmount_vision.device.path import DevicePath
    from lensmount_vision.device.preparing import DevicePreparer
    from lensmount_vision.device.suppression import Overlapping, box_overlaps, rotated_overlaps, suppress
    from lensmount_vision.device.whole_masks import resize_whole

__all__ = [
    "DevicePath", "DevicePreparer", "Overlapping", "box_overlaps", "decode_prototypes", "resize_logits", "resize_whole",
    "rotated_overlaps", "suppress", "top_k",
]  # fmt: skip

__getattr__, __dir__ = lazy_names(__name__, _LAZY)
