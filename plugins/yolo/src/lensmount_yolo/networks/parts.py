"""Which kinds of modules are known, and the parts without which each cannot run.

Told without torch, so that a file is described only if its network can be put together too.
"""

from __future__ import annotations

from collections.abc import Mapping

from lensmount.errors import UnsupportedModelError
from lensmount_yolo.networks.nodes import Node

_CHAIN = ("cv1", "cv2", "m")
_HEAD = ("dfl", "cv2", "cv3")
_SINGLE_HEAD = ("dfl", "one2one_cv2", "one2one_cv3")

#: Kind of block -> the sets of parts of which it needs one.
PARTS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    **dict.fromkeys(("Conv", "DWConv", "CBLinear", "RepVGGDW", "DFL"), (("conv",),)),
    **dict.fromkeys(("Bottleneck", "RepBottleneck", "ADown", "SCDown"), (("cv1", "cv2"),)),
    **dict.fromkeys(("C3", "C3k", "RepCSP", "RepC3"), (("cv1", "cv2", "cv3", "m"),)),
    **dict.fromkeys(("C2f", "C3k2", "C2fCIB", "C2fPSA", "SPPF", "C2PSA", "A2C2f"), (_CHAIN,)),
    **dict.fromkeys(("Concat", "CBFuse"), ((),)),
    "RepConv": (("conv1", "conv2"), ("conv",)),
    **dict.fromkeys(("ELAN1", "RepNCSPELAN4"), (("cv1", "cv2", "cv3", "cv4"),)),
    "SPPELAN": (("cv1", "cv2", "cv3", "cv4", "cv5"),),
    **dict.fromkeys(("AConv", "CIB"), (("cv1",),)),
    "Attention": (("qkv", "proj", "pe"),),
    "PSABlock": (("attn", "ffn"),),
    "PSA": (("cv1", "cv2", "attn", "ffn"),),
    "AAttn": (("qkv", "proj", "pe"), ("qk", "v", "proj", "pe")),
    "ABlock": (("attn", "mlp"),),
    "Proto": (("cv1", "upsample", "cv2", "cv3"),),
    **dict.fromkeys(("Detect", "v10Detect"), (_HEAD, _SINGLE_HEAD)),
    "Segment": ((*_HEAD, "cv4", "proto"), (*_SINGLE_HEAD, "cv4", "proto")),
    **dict.fromkeys(("Pose", "OBB"), ((*_HEAD, "cv4"), (*_SINGLE_HEAD, "cv4"))),
    "Classify": (("conv", "pool", "linear"),),
}
#: Layers of torch itself, and its containers.
LAYERS = frozenset(
    (
        "Network", "Sequential", "ModuleList", "Conv2d", "ConvTranspose2d", "BatchNorm2d", "Linear", "MaxPool2d",
        "AdaptiveAvgPool2d", "Upsample", "SiLU", "ReLU", "GELU", "Hardswish", "LeakyReLU", "Identity", "Dropout",
    )
)  # fmt: skip
_FIX = "export it to ONNX where it was trained, and load that"


def require_parts(network: Node) -> None:
    """Refuses a network with blocks that are not known, or that lack what they need.

    Raises:
        UnsupportedModelError: With the block's kind.
    """
    for node in network.walk():
        if node.kind in LAYERS:
            continue
        if node.kind not in PARTS:
            raise UnsupportedModelError(
                "the network has a block that is not known here",
                found=node.kind,
                expected=", ".join(sorted(PARTS)),
                fix=_FIX,
            )
        if not any(set(wanted) <= set(node.parts) for wanted in PARTS[node.kind]):
            raise UnsupportedModelError(
                "the network has a block of another form than those known here",
                found=f"{node.kind} of {', '.join(node.parts) or 'nothing'}",
                expected=" or ".join(", ".join(wanted) for wanted in PARTS[node.kind]),
                fix=_FIX,
            )
