"""The reader of bare files: every architecture is asked whether it knows a file, by its content alone."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from lensmount.contracts import NotRunnable
from lensmount.errors import AmbiguousModelError, LensmountError, PluginError, PluginWarning, UnsupportedModelError
from lensmount.specs import Artifact
from lensmount_reading.checkpoint import INDEX_NAME, SINGLE_NAME
from lensmount_reading.external_data import bring_external_data
from lensmount_reading.inspection import inspect_file, require_usable
from lensmount_reading.text import listing, printable

if TYPE_CHECKING:
    from lensmount.contracts import ReadRequest
    from lensmount.specs import ModelCard
    from lensmount_reading.facts import FileFacts

#: Distributions of lensmount that recognise bare files, by their package.
_RECOGNISING = {
    "lensmount_yolo": "lensmount-yolo",
    "lensmount_rfdetr": "lensmount-rfdetr",
    "lensmount_sam2": "lensmount-sam2",
    "lensmount_clip": "lensmount-clip",
    "lensmount_perception_encoder": "lensmount-perception-encoder",
    "lensmount_owlv2": "lensmount-owlv2",
}


def read(request: ReadRequest) -> ModelCard:
    """Asks every architecture whether it knows a bare file (or Hugging Face folder).

    Raises:
        UnsupportedModelError: None does.
        AmbiguousModelError: Several do.
        ModelFileError: The file is corrupt.
        LensmountError: As the architecture raises it that knows the file, or the only one that was asked.
    """
    given = _graph_in(request.given)
    path = given.absolute()
    facts = require_usable(inspect_file(given))
    cards: dict[str, ModelCard] = {}
    known: dict[str, NotRunnable] = {}
    failed: list[LensmountError] = []
    for label, recognise in request.recognisers.items():
        try:
            answer = recognise(facts)
        except LensmountError as error:  # one that fails or refuses harms no other
            failed.append(error)
            continue
        if isinstance(answer, NotRunnable):
            known[label] = answer
        elif answer is not None:
            cards[label] = answer
    broken = [error.details for error in failed if isinstance(error, PluginError)]
    if cards and broken:
        warnings.warn("\n".join(broken), PluginWarning, stacklevel=2)
    if len(cards) == 1:
        card = _placed(next(iter(cards.values())), path, request.name or path.name)
        return _with_data(card, facts, path, request) if facts.onnx and facts.onnx.external_data else card
    if cards:
        raise AmbiguousModelError(
            f"several architectures recognise {path.name}",
            found=", ".join(cards),
            fix=f"say which: architecture={next(iter(cards))!r}",
        )
    refusals = [error for error in failed if not isinstance(error, PluginError)]
    if refusals or (failed and len(request.recognisers) == 1):
        raise [*refusals, *failed][0]
    harmed = [*(text.replace("\n ", ",") for text in broken), *request.left_out]
    expected = f"a model of: {', '.join(request.recognisers) or 'no architecture is installed'}"
    if known:
        first = next(iter(known.values()))
        raise UnsupportedModelError(
            f"{path.name} is {' or '.join(dict.fromkeys(answer.what for answer in known.values()))}, "
            "which is not run here",
            found=first.found,
            expected=expected,
            fix="; or ".join(dict.fromkeys(answer.runs_with for answer in known.values())),
        )
    raise UnsupportedModelError(
        f"no installed architecture recognises {path.name}{_several_inputs(facts)}",
        found=facts.summary(),
        expected=expected,
        fix="; ".join(harmed or _what_may_help(request)),
    )


def _several_inputs(facts: FileFacts) -> str:
    if len(facts.inputs) < 2:
        return ""
    names = listing((printable(value.name, 40) for value in facts.inputs), 6)
    return f": it is a graph of {len(facts.inputs)} inputs ({names}), and those that are run take a picture alone"


def _what_may_help(request: ReadRequest) -> list[str]:
    """Plugins that recognise further files, where there are any; those that are installed have said no already."""
    missing = [name for package, name in _RECOGNISING.items() if find_spec(package) is None]
    if missing and request.architecture is None:
        return [f"it may be a model of a plugin that is not installed: pip install {' or '.join(missing)}"]
    further = [] if request.architecture is None else ["leave architecture out: the others are asked then"]
    return [*further, "run it with the runtime of its format, or write a plugin for it: docs/writing-a-plugin.md"]


def _graph_in(path: Path) -> Path:
    """The one ONNX graph of a folder that holds no checkpoint, else the path as it is."""
    if not path.is_dir() or any((path / name).exists() for name in (SINGLE_NAME, INDEX_NAME)):
        return path
    graphs = sorted(file for file in path.iterdir() if file.suffix.lower() == ".onnx" and file.is_file())
    if len(graphs) > 1:
        raise AmbiguousModelError(
            f"{path} holds several graphs",
            found=", ".join(graph.name for graph in graphs[:20]),
            fix=f"name one: {graphs[0]}",
        )
    return graphs[0] if graphs else path


def _with_data(card: ModelCard, facts: FileFacts, path: Path, request: ReadRequest) -> ModelCard:
    """The card with the files that the graph's tensors lie in; the graph has its own name, as they have theirs."""
    assert facts.onnx is not None
    files = bring_external_data(facts.onnx, path, request.bring)
    data = tuple(
        Artifact(name=name, uri=file.as_uri(), role="data", size=file.stat().st_size, confidence="official")
        for name, file in files.items()
    )
    name = (request.name or path.name).replace("\\", "_")
    packages = tuple(
        replace(p, artifacts=(*(replace(a, name=name) if a.role == "graph" else a for a in p.artifacts), *data))
        for p in card.packages
    )
    return replace(card, packages=packages)


def _placed(card: ModelCard, path: Path, name: str) -> ModelCard:
    """Fills in what a recogniser does not look at: the file's name and where it lies."""
    stem = re.sub(r"[^A-Za-z0-9._-]", "-", Path(name).stem).strip("-._") or "model"
    packages = tuple(
        replace(package, artifacts=tuple(replace(a, uri=a.uri or path.as_uri()) for a in package.artifacts))
        for package in card.packages
    )
    return replace(card, id=stem, packages=packages)
