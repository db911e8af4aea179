"""Import strings: `"package.module:attribute"`, resolved on first use, and calls of what they name."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any

from lensmount.errors import LensmountError, MissingDependencyError, OptionError, PluginError, reason

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
    except (Exception, SystemExit) as error:  # a third party's: whatever it does at import is the plugin's failure
        raise PluginError(
            f"{owner} names a module that fails at import", found=f"{text}: {reason(error)}", fix=_FIX
        ) from error
    try:
        return getattr(module, attribute)
    except AttributeError:
        raise PluginError(f"{owner} names something that does not exist", found=text, fix=_FIX) from None


def call(text: str, owner: str, kind: Any, *arguments: Any, **settings: Any) -> Any:
    """Calls what an import string names; as `ask`."""
    return ask(owner, kind, import_string(text, owner), *arguments, **settings)


def ask(owner: str, kind: Any, function: Callable[..., Any], *arguments: Any, **settings: Any) -> Any:
    """Calls a plugin's function, which promises a `kind` (or one of several): its failure names the owner.

    Raises:
        LensmountError: As the function raises it.
        PluginError: It raises something else, exits, or returns something else.
    """
    try:
        answer = function(*arguments, **settings)
        if isinstance(answer, kind):
            return answer
    except (LensmountError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(f"{owner} failed", found=reason(error), fix=_FIX) from error
    kinds = kind if isinstance(kind, tuple) else (kind,)
    expected = " or ".join("None" if each is type(None) else each.__name__ for each in kinds)
    raise PluginError(f"{owner} returned the wrong thing", found=type(answer).__name__, expected=expected, fix=_FIX)


def patience() -> float:
    """Seconds that a plugin's quick answers may take: `LENSMOUNT_PROBE_SECONDS`, else 10."""
    text = os.environ.get("LENSMOUNT_PROBE_SECONDS", "") or "10"
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= threading.TIMEOUT_MAX:
        raise OptionError("LENSMOUNT_PROBE_SECONDS is not valid", found=repr(text), expected="seconds above 0")
    return seconds


def call_quickly(text: str, owner: str, kind: Any, *arguments: Any) -> Any:
    """As `call`, within `patience()` seconds.

    Raises:
        PluginError: It does not return in time; its thread is left behind and ends with the process.
    """
    seconds, answer, errors = patience(), [], []

    def run() -> None:
        try:
            answer.append(call(text, owner, kind, *arguments))
        except BaseException as error:  # told to who waits
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not answer:
        found, fix = f"no answer within {seconds:g} s", f"LENSMOUNT_PROBE_SECONDS={seconds * 6:g}, or {_FIX}"
        raise PluginError(f"{owner} hangs", found=found, expected="an answer at once", fix=fix)
    return answer[0]


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
