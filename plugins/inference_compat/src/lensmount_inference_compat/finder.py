"""Makes the modules below `inference_models` of the table, and says what lensmount has nothing for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module, metadata
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from lensmount_inference_compat.table import MODULES

ROOT = "inference_models"
HELP = "lensmount_inference_compat.table lists what there is; docs/moving/inference-models.md says what to use instead"


def refuse_beside_the_real_one() -> None:
    """Fails where `inference-models` is installed, whose files lie at the same path.

    Raises:
        ImportError: It is.
    """
    try:
        version = metadata.version("inference-models")
    except metadata.PackageNotFoundError:
        return
    raise ImportError(
        f"inference-models {version} and lensmount-inference-compat are both installed, "
        f"and both are imported as {ROOT}. "
        "Uninstall both, then install the one that you want: "
        "pip uninstall inference-models lensmount-inference-compat",
        name=ROOT,
    )


def resolve(module: str, name: str) -> Any:
    """What stands for a name.

    Args:
        module: Full name of the module.
        name: The name.

    Raises:
        ImportError: Nothing does. (An AttributeError would lose the message in `from module import name`.)
        AttributeError: The same, for names of Python's own protocols.
    """
    known = MODULES[module.removeprefix(ROOT).lstrip(".")]
    if name in known:
        target, _, attribute = known[name].partition(":")
        value = getattr(import_module(target), attribute)
        setattr(sys.modules[module], name, value)
        return value
    if f"{module}.{name}".removeprefix(ROOT).lstrip(".") in MODULES:
        return import_module(f"{module}.{name}")
    if name.startswith("__"):
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    raise ImportError(f"lensmount has nothing for {module}.{name}: {HELP}", name=module)


class Making(Loader):
    """Makes a module of the table."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """An empty module, whose names are looked up when they are asked for."""
        return ModuleType(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Gives the module its lookup."""
        names = MODULES[module.__name__.removeprefix(ROOT).lstrip(".")]
        module.__doc__ = "lensmount's names for a module of inference-models."
        module.__dict__["__getattr__"] = lambda name: resolve(module.__name__, name)
        module.__dict__["__dir__"] = lambda: sorted({*vars(module), *names})
        module.__dict__["__all__"] = [name for name in names if not name.startswith("_")]


class Finder(MetaPathFinder):
    """Finds the modules of the table."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module's spec; None for modules that are not below `inference_models`.

        Raises:
            ModuleNotFoundError: lensmount has nothing for it.
        """
        head, _, below = name.partition(".")
        if head != ROOT or not below:
            return None
        if below not in MODULES:
            raise ModuleNotFoundError(f"lensmount has nothing for the module {name}: {HELP}", name=name)
        children = any(other.startswith(below + ".") for other in MODULES)
        return ModuleSpec(name, Making(), is_package=children)


def install() -> None:
    """Puts the finder before all others, once."""
    if not any(isinstance(finder, Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, Finder())
