"""The reader of bare files: every architecture is asked whether it knows a file, by its content alone."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lensmount.errors import AmbiguousModelError, LensmountError, PluginError, PluginWarning, UnsupportedModelError
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
        LensmountError: As the architecture raises it that knows the file, or the only one that was asked.
    """
    path = request.path
    facts = require_usable(inspect_file(request.given))
    cards: dict[str, ModelCard] = {}
    failed: list[LensmountError] = []
    for label, recognise in request.recognisers.items():
        try:
            card = recognise(facts)
        except LensmountError as error:  # one that fails or refuses harms no other
            failed.append(error)
            continue
        if card is not None:
            cards[label] = card
    broken = [error.details for error in failed if isinstance(error, PluginError)]
    if cards and broken:
        warnings.warn("\n".join(broken), PluginWarning, stacklevel=2)
    if len(cards) == 1:
        return _placed(next(iter(cards.values())), path, request.name or path.name)
    if cards:
        raise AmbiguousModelError(
            f"several architectures recognise {path.name}",
            found=", ".join(cards),
            fix=f"say which: architecture={next(iter(cards))!r}",
        )
    refusals = [error for error in failed if not isinstance(error, PluginError)]
    if refusals or (failed and len(request.recognisers) == 1):
        raise [*refusals, *failed][0]
    harmed = [text.replace("\n ", ",") for text in broken]
    install = ["install the plugin of its architecture, e.g. pip install lensmount-yolo"]
    raise UnsupportedModelError(
        f"no installed architecture recognises {path.name}",
        found=facts.summary(),
        expected=f"a model of: {', '.join(request.recognisers) or 'no architecture is installed'}",
        fix="; ".join([*harmed, *request.left_out] or install),
    )


def _placed(card: ModelCard, path: Path, name: str) -> ModelCard:
    """Fills in what a recogniser does not look at: the file's name and where it lies."""
    stem = re.sub(r"[^A-Za-z0-9._-]", "-", Path(name).stem).strip("-._") or "model"
    packages = tuple(
        replace(package, artifacts=tuple(replace(a, uri=a.uri or path.as_uri()) for a in package.artifacts))
        for package in card.packages
    )
    return replace(card, id=stem, packages=packages)
