"""Settings from the environment, under the names that users of Roboflow's inference server know."""

from __future__ import annotations

import os

from lensmount.errors import OptionError

#: What stands for on and off.
_ON, _OFF = ("1", "true", "yes", "on"), ("0", "false", "no", "off", "")


def environment_flag(name: str, default: bool) -> bool:
    """A switch of the environment.

    Raises:
        OptionError: It is neither on nor off.
    """
    text = os.environ.get(name)
    if text is None:
        return default
    if text.strip().lower() not in (*_ON, *_OFF):
        raise OptionError(f"the environment's {name} should be a switch", found=repr(text), expected="true or false")
    return text.strip().lower() in _ON


def environment_count(name: str, default: int, lowest: int = 0) -> int:
    """A number of the environment.

    Raises:
        OptionError: It is no whole number, or below `lowest`.
    """
    text = os.environ.get(name)
    if text is None or not text.strip():
        return default
    try:
        value = int(text)
    except ValueError:
        value = lowest - 1
    if value < lowest:
        raise OptionError(
            f"the environment's {name} should be a number", found=repr(text), expected=f"a whole number from {lowest}"
        )
    return value
