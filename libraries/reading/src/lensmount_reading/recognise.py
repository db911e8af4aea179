"""The reader of bare files: every architecture is asked whether it knows a file, by its content alone."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lensmount.errors import AmbiguousModelError, UnsupportedModelError
from lensmount_reading.inspection import inspect_file, require_usable

if TYPE_CHECKING:
    from lensmount.contracts import ReadRequest
    from lensmount.specs import ModelCard


def read(request: ReadRequest) -> ModelCard:
    """Asks every architecture whether it knows a bare file (or Hugging Face folder).

    Raises:
        UnsupportedModelError: None does.
        AmbiguousModelError: Several do.
        ModelFileError: The file is corrupt.
    """
    path = request.path
    facts = require_usable(inspect_file(request.given))
    answers = ((label, recognise(facts)) for label, recognise in request.recognisers.items())
    cards = {label: card for label, card in answers if card is not None}
    if len(cards) == 1:
        return _placed(next(iter(cards.values())), path, request.name or path.name)
    if cards:
        raise AmbiguousModelError(
            f"several architectures recognise {path.name}",
            found=", ".join(cards),
            fix=f"say which: architecture={next(iter(cards))!r}",
        )
    install = ["install the plugin of its architecture, e.g. pip install lensmount-yolo"]
    raise UnsupportedModelError(
        f"no installed architecture recognises {path.name}",
        found=facts.summary(),
        expected=f"a model of: {', '.join(request.recognisers) or 'no architecture is installed'}",
        fix="; ".join(request.left_out or install),
    )


def _placed(card: ModelCard, path: Path, name: str) -> ModelCard:
    """Fills in what a recogniser does not look at: the file's name and where it lies."""
    stem = re.sub(r"[^A-Za-z0-9._-]", "-", Path(name).stem).strip("-._") or "model"
    packages = tuple(
        replace(package, artifacts=tuple(replace(a, uri=a.uri or path.as_uri()) for a in package.artifacts))
        for package in card.packages
    )
    return replace(card, id=stem, packages=packages)
