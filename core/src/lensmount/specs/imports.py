"""Import strings: `"package.module:attribute"`, resolved on first use."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from lensmount.errors import LensmountError, MissingDependencyError, PluginError, reason

_FIX = "lensmount plugins shows which distribution brings it; pip install --upgrade it"


def import_string(text: str, owner: str) -> Any:
    """Imports what an import string names.

    Args:
        text: `"package.module:attribute"`.
        owner: Who gave it, for messages: `architecture 'yolo'`.

    Raises:
        MissingDependencyError: The module needs a package that is not installed.
        PluginError: The module or attribute does not exist, or the module raises.
    """
    module_name, _, attribute = text.partition(":")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise PluginError(f"{owner} names a module that does not exist", found=text, fix=_FIX) from error
        raise MissingDependencyError(
            f"{owner} needs a package that is not installed",
            found=f"no module named {error.name!r}",
            fix=_install_hint(error.name or ""),
        ) from error
    except LensmountError:
        raise
    except Exception as error:  # a third party's module: whatever it does at import is the plugin's failure
        raise PluginError(
            f"{owner} names a module that fails at import", found=f"{text}: {reason(error)}", fix=_FIX
        ) from error
    try:
        return getattr(module, attribute)
    except AttributeError:
        raise PluginError(f"{owner} names something that does not exist", found=text, fix=_FIX) from None


def _install_hint(module: str) -> str:
    top = module.partition(".")[0]
    extras = {
        "torch": "torch",
        "onnxruntime": "onnx",
        "tensorrt": "tensorrt",
        "cuda": "tensorrt",
        "safetensors": "torch",
    }
    others = {"cv2": "opencv-python-headless", "PIL": "pillow", "yaml": "pyyaml", "google": "protobuf"}
    return f'pip install "lensmount[{extras[top]}]"' if top in extras else f"pip install {others.get(top, top)}"
