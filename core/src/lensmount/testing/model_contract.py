"""What a model promises."""

from __future__ import annotations


class ModelContract:
    """Subclass as `Test…` and set `model_id`."""

    model_id: str = ""
