"""Networks that are wanted before the first request."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any


def preload(load: Callable[..., Any], ids: Iterable[str] | None = None, **options: Any) -> list[Any]:
    """Loads networks, so that later loads of the same ids share them.

    Args:
        load: Loads a model by its id: `registry.load`, or the `load` of a registry of your own.
        ids: Model ids; None for the environment's `PRELOAD_HF_IDS`, separated by commas.
        **options: For `load`.

    Returns:
        The models; networks stay in memory as long as these do.

    Raises:
        LensmountError: As for `registry.load`.
    """
    wanted = os.environ.get("PRELOAD_HF_IDS", "").split(",") if ids is None else ids
    return [load(name.strip(), **options) for name in wanted if name.strip()]
