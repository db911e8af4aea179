"""Whether the user forbids the network."""

from __future__ import annotations

import os

VARIABLES = ("LENSMOUNT_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_TRUE = {"1", "ON", "YES", "TRUE"}


def named_variable() -> str | None:
    """The environment variable that forbids the network, or None where none does.

    The variables are read at each call, so a process may set them at any time.
    """
    return next((name for name in VARIABLES if os.environ.get(name, "").strip().upper() in _TRUE), None)


def is_offline(asked: bool | None = None) -> bool:
    """Whether no socket may be opened.

    The environment has the last word: where it says offline, `offline=False` does not open the network.

    Args:
        asked: What the caller said with `offline=`; None where nothing was said.
    """
    return bool(asked) or named_variable() is not None
