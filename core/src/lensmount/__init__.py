"""lensmount: run any vision model on any backend.

    from lensmount import registry
    model = registry.load("yolov8n-640")
    for result in model("street.jpg"):
        print(result.class_name, result.confidence, result.xyxy)

Importing this package imports nothing heavy and scans nothing; names are resolved on first use (PEP 562).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lensmount.version import __version__ as __version__

_LAZY = {
    "AutoModel": "lensmount.auto",
    "Classification": "lensmount_vision.results.kinds",
    "Detections": "lensmount_vision.results.kinds",
    "Embeddings": "lensmount_vision.results.kinds",
    "InstanceSegmentation": "lensmount_vision.results.kinds",
    "LensmountError": "lensmount.errors",
    "PromptedMasks": "lensmount_vision.results.kinds",
    "VideoMasks": "lensmount_vision.results.kinds",
}

if TYPE_CHECKING:
    from lensmount import registry as registry
    from lensmount.auto import AutoModel as AutoModel
    from lensmount.errors import LensmountError as LensmountError
    from lensmount_vision.results.kinds import Classification as Classification
    from lensmount_vision.results.kinds import Detections as Detections
    from lensmount_vision.results.kinds import Embeddings as Embeddings
    from lensmount_vision.results.kinds import InstanceSegmentation as InstanceSegmentation
    from lensmount_vision.results.kinds import PromptedMasks as PromptedMasks
    from lensmount_vision.results.kinds import VideoMasks as VideoMasks

__all__ = ["__version__", "registry", *sorted(_LAZY)]


def __getattr__(name: str) -> Any:
    if name == "registry":
        return import_module("lensmount.registry")
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'lensmount' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
