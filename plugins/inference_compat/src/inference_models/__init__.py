"""lensmount under the names of inference-models: `from inference_models import AutoModel`.

Every name is one of lensmount's; `lensmount_inference_compat.table` lists them. Nothing of inference-models is in here.
"""

from __future__ import annotations

from typing import Any

from lensmount_inference_compat import finder as _finder
from lensmount_inference_compat.table import MODULES as _MODULES

_finder.refuse_beside_the_real_one()
_finder.install()

__all__ = [name for name in _MODULES[""] if not name.startswith("_")]


def __getattr__(name: str) -> Any:
    return _finder.resolve(__name__, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
