"""lensmount: run any vision model on any backend.

    from lensmount import registry
    model = registry.load("yolov8n-640")
    for result in model("street.jpg"):
        print(result.class_name, result.confidence, result.xyxy)

Importing this package imports nothing heavy and scans nothing; names are resolved on first use (PEP 562).
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from lensmount.version import __version__ as __version__

for _switch in ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY"):
    os.environ.setdefault(_switch, "1")  # read when onnxruntime and huggingface_hub are imported: docs/security.md

_LAZY = {"AutoModel": "lensmount_vision.moving", "LensmountError": "lensmount.errors"}

if TYPE_CHECKING:
    from lensmount import registry as registry
    from lensmount.errors import LensmountError as LensmountError

__all__ = ["AutoModel", "LensmountError", "__version__", "registry"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'lensmount' has no attribute {name!r}")
    try:
        module = import_module(_LAZY.get(name, f"lensmount.{name}"))
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("lensmount_vision"):
            raise
        raise AttributeError("AutoModel comes with lensmount-vision: pip install lensmount-vision") from error
    return getattr(module, name, module)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
