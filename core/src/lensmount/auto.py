"""`AutoModel.from_pretrained`, for those who come from `inference-models`: one import to change."""

from __future__ import annotations

from typing import Any

from lensmount import registry


class AutoModel:
    """A thin alias of `lensmount.registry.load`; never instantiated."""

    def __init__(self) -> None:
        raise TypeError("AutoModel is not instantiated: AutoModel.from_pretrained('yolov8n-640')")

    @staticmethod
    def from_pretrained(model_id_or_path: registry.Name, **options: Any) -> Any:
        """Loads a model; every argument is `lensmount.registry.load`'s."""
        return registry.load(model_id_or_path, **options)
