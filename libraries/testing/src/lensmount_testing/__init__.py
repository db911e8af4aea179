"""The conformance kit: what every plugin, model, backend, cache and source of weights promises, as tests to subclass.

    from lensmount_testing import ModelContract

    class TestHello(ModelContract):
        model_id = "hello"

Each test of a contract is one promise; docs/conformance.md says what and why. `Tolerance` is for contracts of one's own
model, `GRAPHS` has the networks that backends are tested with, and the other classes are what the fixtures give:
`isolated_registry`, `fake_backend` and `tmp_plugin`.

Importing this package imports nothing; names are resolved on first use (PEP 562), since its pytest plugin is
loaded by every pytest run where it is installed. Tests alone import it; it imports the core, `lensmount_reading`
and `lensmount_vision`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_LAZY = {
    "BackendContract": "lensmount_testing.backend_contract",
    "CacheContract": "lensmount_testing.cache_contract",
    "FakeBackend": "lensmount_testing.fake_backend",
    "GRAPHS": "lensmount_testing.graphs",
    "Graph": "lensmount_testing.graphs",
    "IsolatedRegistry": "lensmount_testing.isolation",
    "ModelContract": "lensmount_testing.model_contract",
    "PluginContract": "lensmount_testing.plugin_contract",
    "SourceContract": "lensmount_testing.source_contract",
    "Throwaway": "lensmount_testing.throwaway",
    "Tolerance": "lensmount_testing.comparing",
}

if TYPE_CHECKING:
    from lensmount_testing.backend_contract import BackendContract
    from lensmount_testing.cache_contract import CacheContract
    from lensmount_testing.comparing import Tolerance
    from lensmount_testing.fake_backend import FakeBackend
    from lensmount_testing.graphs import GRAPHS, Graph
    from lensmount_testing.isolation import IsolatedRegistry
    from lensmount_testing.model_contract import ModelContract
    from lensmount_testing.plugin_contract import PluginContract
    from lensmount_testing.source_contract import SourceContract
    from lensmount_testing.throwaway import Throwaway

__all__ = [
    "GRAPHS", "BackendContract", "CacheContract", "FakeBackend", "Graph", "IsolatedRegistry", "ModelContract",
    "PluginContract", "SourceContract", "Throwaway", "Tolerance",
]  # fmt: skip


def __getattr__(name: str) -> Any:  # not lensmount.lazy, which would import the core with the pytest plugin
    if name not in _LAZY:
        raise AttributeError(f"module 'lensmount_testing' has no attribute {name!r}")
    try:
        return getattr(import_module(_LAZY[name]), name)
    except ModuleNotFoundError as error:
        if error.name != "pytest":
            raise
        from lensmount.errors import MissingDependencyError

        fix = 'pip install "lensmount[testing]"'
        raise MissingDependencyError("the conformance kit needs pytest", found=str(error), fix=fix) from error
