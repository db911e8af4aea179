"""Import strings: `"package.module:attribute"`, resolved on first use."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from lensmount.errors import MissingDependencyError, PluginError


def import_string(text: str, owner: str) -> Any:
    """Imports what an import string names.

    Args:
        text: `"package.module:attribute"`.
        owner: Who gave it, for messages: `architecture 'yolo'`.

    Raises:
        MissingDependencyError: The module needs a package that is not installed.
        PluginError: The module or attribute does not exist.
    """
    module_name, _, attribute = text.partition(":")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise PluginError(f"{owner} names a module that does not exist", found=text) from error
        raise MissingDependencyError(
            f"{owner} needs a package that is not installed",
            found=f"no module named {error.name!r}",
            fix=_install_hint(error.name or ""),
        ) from error
    try:
        return getattr(module, attribute)
    except AttributeError:
        raise PluginError(f"{owner} names something that does not exist", found=text) from None


def _install_hint(module: str) -> str:
    top = module.partition(".")[0]
    extras = {
        "torch": "torch",
        "onnxruntime": "onnx",
        "tensorrt": "tensorrt",
        "cuda": "tensorrt",
        "safetensors": "torch",
    }
    return f'pip install "lensmount[{extras[top]}]"' if top in extras else f"pip install {top}"
