"""The conformance kit: what every plugin, model, backend, cache and source of weights promises, as tests to subclass.

    from lensmount_testing import ModelContract

    class TestHello(ModelContract):
        model_id = "hello"

Each test of a contract is one promise; docs/conformance.md says what and why. It needs `lensmount[testing]`, which is
pytest alone. Importing this package imports nothing; names are resolved on first use (PEP 562), since the pytest plugin
in it is loaded by every pytest run in an environment with lensmount-testing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_LAZY = {
    "BackendContract": "lensmount_testing.backend_contract",
    "CacheContract": "lensmount_testing.cache_contract",
    "ModelContract": "lensmount_testing.model_contract",
    "PluginContract": "lensmount_testing.plugin_contract",
    "SourceContract": "lensmount_testing.source_contract",
}

if TYPE_CHECKING:
    from lensmount_testing.backend_contract import BackendContract as BackendContract
    from lensmount_testing.cache_contract import CacheContract as CacheContract
    from lensmount_testing.model_contract import ModelContract as ModelContract
    from lensmount_testing.plugin_contract import PluginContract as PluginContract
    from lensmount_testing.source_contract import SourceContract as SourceContract

__all__ = ["BackendContract", "CacheContract", "ModelContract", "PluginContract", "SourceContract"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        try:
            return getattr(import_module(_LAZY[name]), name)
        except ModuleNotFoundError as error:
            if error.name != "pytest":
                raise
            from lensmount.errors import MissingDependencyError

            fix = 'pip install "lensmount[testing]"'
            raise MissingDependencyError("the conformance kit needs pytest", found=str(error), fix=fix) from error
    raise AttributeError(f"module 'lensmount_testing' has no attribute {name!r}")
