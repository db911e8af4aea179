"""What plugins hand to the core, as plain data: descriptors, catalogues, hooks and the checks of options.

Every plugin's hook module imports this package, so it holds the standard library and pluggy alone. It may be imported
by every room and every distribution; it imports `lensmount.errors` only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lensmount.lazy import lazy_names
from lensmount.specs.descriptors import (
    MODEL_ID,
    Artifact,
    BatchPolicy,
    Confidence,
    ModelCard,
    ModelPackage,
    Pairs,
    Precision,
    Preprocess,
    Requirements,
    ResizeMode,
    to_dict,
)
from lensmount.specs.extensions import (
    IMPORT_STRING,
    NAME,
    PROJECT,
    Architecture,
    Backend,
    BackendStatus,
    CacheProvider,
    Command,
    Exporter,
    Reader,
    Selector,
    Source,
    hookimpl,
)

_LAZY = {
    "lensmount.specs.catalog": ("read_catalog",),
    "lensmount.specs.imports": ("import_string",),
    "lensmount.specs.offline": ("is_offline",),
    "lensmount.specs.parsing": ("from_dict",),
}

if TYPE_CHECKING:
    from lensmount.specs.catalog import read_catalog
    from lensmount.specs.imports import import_string
    from lensmount.specs.offline import is_offline
    from lensmount.specs.parsing import from_dict

__all__ = [
    "IMPORT_STRING", "MODEL_ID", "NAME", "PROJECT", "Architecture", "Artifact", "Backend", "BackendStatus",
    "BatchPolicy", "CacheProvider", "Command", "Confidence", "Exporter", "ModelCard", "ModelPackage", "Pairs",
    "Precision", "Preprocess", "Reader", "Requirements", "ResizeMode", "Selector", "Source", "from_dict",
    "hookimpl", "import_string", "is_offline", "read_catalog", "to_dict",
]  # fmt: skip

__getattr__, __dir__ = lazy_names(__name__, _LAZY)
