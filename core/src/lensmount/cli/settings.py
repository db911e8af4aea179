"""Load options on the command line: `--set NAME=VALUE`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from lensmount.errors import InputError

HELP = "Load option of the model's architecture, NAME=VALUE; may be repeated."


def load_options(texts: Sequence[str] | None, threads: int | None = None) -> dict[str, Any]:
    """What `--set` and `--threads` ask for, as keyword arguments of `registry.load`.

    A value is read as JSON (`640`, `0.5`, `true`, `[480, 640]`; a list becomes a tuple), else as text.

    Raises:
        InputError: A text has no `=`, or a name comes twice.
    """
    options: dict[str, Any] = {} if threads is None else {"threads": threads}
    for text in texts or ():
        name, sign, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if not sign or not name.isidentifier():
            raise InputError("--set is not valid", found=repr(text), expected="NAME=VALUE, such as antialias=true")
        if name in options:
            raise InputError(f"{name} is set twice", found=repr(text), expected="each option once")
        options[name] = _value(value)
    return options


def _value(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return tuple(value) if isinstance(value, list) else value
