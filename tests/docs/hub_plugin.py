"""Our plugins as the local hub serves them: their own ids and code, with small seeded weights behind them.

`local_hub.py` installs this as a distribution of its own in front of a page, with ours blocked: a page that says
`registry.load("clip/ViT-B-32")` then finds, fetches, verifies and runs a model, of random weights.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from lensmount.specs import Architecture, Artifact, ModelCard, ModelPackage, hookimpl


class Hosted:
    """One of our plugins, its packages replaced by those of `packages.json`, by task."""

    def __init__(self, name: str) -> None:
        self._module: Any = import_module(f"lensmount_{name}.plugin")
        packages = json.loads(Path(__file__).with_name("packages.json").read_text(encoding="utf-8"))
        self._artifacts = {task: [Artifact(**a) for a in given] for task, given in packages[name].items()}

    @hookimpl
    def lensmount_architectures(self) -> Iterable[Architecture]:
        return self._module.lensmount_architectures()

    @hookimpl
    def lensmount_model_cards(self) -> Iterable[ModelCard]:
        for card in self._module.lensmount_model_cards():
            if card.task not in self._artifacts:
                yield card
                continue
            artifacts = tuple(self._artifacts[card.task])
            form = "onnx" if any(a.role == "graph" for a in artifacts) else "torch"
            package = ModelPackage(name=form, format=form, artifacts=artifacts)
            # variant and resolution are those of the released weights
            yield replace(card, packages=(package,), settings=())


def __getattr__(name: str) -> Hosted:
    return Hosted(name)
