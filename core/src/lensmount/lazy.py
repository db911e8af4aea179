"""Names of a package that are imported on first use (PEP 562), so that importing the package costs nothing."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, modules: Mapping[str, Sequence[str]], *, deprecated: Mapping[str, tuple[str, str]] | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` of a package whose public names live in its modules.

    Args:
        package: The package's `__name__`.
        modules: Module to the public names that it defines.
        deprecated: Old name to the import string of what replaces it and the version of lensmount that removes the old
            name: `{"old": ("lensmount.new:name", "0.3")}`. An old name still works, but is not listed, and its use
            gives a `LensmountDeprecationWarning` that points at the line that uses it.

    Returns:
        Both functions; `from package import name` then imports that module alone.
    """
    defined_in = {name: module for module, names in modules.items() for name in names}
    old = deprecated or {}

    def resolve(name: str) -> Any:
        if name in old:
            replacement, version = old[name]
            module, _, attribute = replacement.partition(":")
            from lensmount.errors import LensmountDeprecationWarning

            # Python shows a warning once for each line of code, because the value is not kept in the package.
            warnings.warn(
                f"{package}.{name} is deprecated and will be removed in lensmount {version}; "
                f"use {module}.{attribute} instead",
                LensmountDeprecationWarning,
                stacklevel=2,
            )
            return getattr(import_module(module), attribute)
        if name not in defined_in:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(defined_in[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    def listing() -> list[str]:
        return sorted({*vars(sys.modules[package]), *defined_in})

    return resolve, listing
