"""Pictures to network input, and outputs to results, in torch on the device that runs the network.

The same results as the host's transforms, boxes and masks; what differs, and by how much, stands in docs/gpu.md. Any
distribution may import this room's names; it imports `results`, `images` and the core. Every module needs torch: import
names only where a session says where its tensors lie (`Session.tensor_device`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lensmount.lazy import lazy_names

_LAZY = {
    "DevicePath": "lensmount_vision.device.path",
    "DevicePreparer": "lensmount_vision.device.preparing",
    "Overlapping": "lensmount_vision.device.suppression",
    "box_overlaps": "lensmount_vision.device.suppression",
    "decode_prototypes": "lensmount_vision.device.masks",
    "resize_logits": "lensmount_vision.device.masks",
    "resize_whole": "lensmount_vision.device.whole_masks",
    "rotated_overlaps": "lensmount_vision.device.suppression",
    "suppress": "lensmount_vision.device.suppression",
    "top_k": "lensmount_vision.device.ordering",
}

if TYPE_CHECKING:
    from lensmount_vision.device.masks import decode_prototypes as decode_prototypes
    from lensmount_vision.device.masks import resize_logits as resize_logits
    from lensmount_vision.device.ordering import top_k as top_k
    from lensmount_vision.device.path import DevicePath as DevicePath
    from lensmount_vision.device.preparing import DevicePreparer as DevicePreparer
    from lensmount_vision.device.suppression import Overlapping as Overlapping
    from lensmount_vision.device.suppression import box_overlaps as box_overlaps
    from lensmount_vision.device.suppression import rotated_overlaps as rotated_overlaps
    from lensmount_vision.device.suppression import suppress as suppress
    from lensmount_vision.device.whole_masks import resize_whole as resize_whole

__all__ = [
    "DevicePath",
    "DevicePreparer",
    "Overlapping",
    "box_overlaps",
    "decode_prototypes",
    "resize_logits",
    "resize_whole",
    "rotated_overlaps",
    "suppress",
    "top_k",
]

__getattr__, __dir__ = lazy_names(__name__, _LAZY)
