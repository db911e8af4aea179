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

__version__ = "0.1.0"

_LAZY = {
    "AutoModel": "lensmount.auto",
    "Classification": "lensmount.results",
    "Detections": "lensmount.results",
    "Embeddings": "lensmount.results",
    "InstanceSegmentation": "lensmount.results",
    "LensmountError": "lensmount.errors",
    "PromptedMasks": "lensmount.results",
    "VideoMasks": "lensmount.results",
}

if TYPE_CHECKING:
    from lensmount import registry as registry
    from lensmount.auto import AutoModel as AutoModel
    from lensmount.errors import LensmountError as LensmountError
    from lensmount.results import Classification as Classification
    from lensmount.results import Detections as Detections
    from lensmount.results import Embeddings as Embeddings
    from lensmount.results import InstanceSegmentation as InstanceSegmentation
    from lensmount.results import PromptedMasks as PromptedMasks
    from lensmount.results import VideoMasks as VideoMasks

__all__ = ["__version__", "registry", *sorted(_LAZY)]


def __getattr__(name: str) -> Any:
    if name == "registry":
        return import_module("lensmount.registry")
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'lensmount' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
