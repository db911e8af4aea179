"""The reader of bare files: every architecture is asked whether it knows a file, by its content alone."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from lensmount.contracts import NotRunnable
from lensmount.errors import (
    AmbiguousModelError,
    LensmountError,
    ModelFileError,
    PluginError,
    PluginWarning,
    UnsupportedModelError,
)
from lensmount.specs import Artifact
from lensmount_reading.external_data import bring_external_data
from lensmount_reading.folders import OFFICIAL, bring_model, find_checkpoint, is_index
from lensmount_reading.inspection import inspect_file, require_usable
from lensmount_reading.safetensors_file import shard_paths
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
    "lensmount_mediapipe": "lensmount-mediapipe",
}


def read(request: ReadRequest) -> ModelCard:
    """Asks every architecture whether it knows a bare file, or the model in a folder or repository.

    Raises:
        UnsupportedModelError: None does.
        AmbiguousModelError: Several do, or there are several models.
        ModelFileError: The file is corrupt, or there is none.
        LensmountError: As the architecture raises it that knows the file, or the only one that was asked.
    """
    if request.repository is None:
        given = find_checkpoint(request.given)
    else:
        request, given = bring_model(request, request.repository)
    facts = require_usable(inspect_file(given))
    try:
        return _recognised(facts, given.absolute(), request)
    except ModelFileError as error:
        error.sound = True
        raise


def _recognised(facts: FileFacts, path: Path, request: ReadRequest) -> ModelCard:
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
        name = request.given.name if path.name in OFFICIAL and request.given.name != path.name else path.name
        card = _placed(next(iter(cards.values())), path, request.name or name)
        if is_index(path.name):
            return _with_shards(card, path)
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


def _with_shards(card: ModelCard, index: Path) -> ModelCard:
    """The card with the shards that an index names; the index has its own name, by which it is known to be one."""
    shards = tuple(
        Artifact(name=path.name, uri=path.as_uri(), role="data", size=path.stat().st_size, confidence="official")
        for path in shard_paths(index)
    )
    packages = []
    for package in card.packages:
        own = tuple(
            replace(a, name=index.name, size=index.stat().st_size) if a.role == "weights" else a
            for a in package.artifacts
        )
        packages.append(replace(package, artifacts=(*own, *shards)))
    return replace(card, packages=tuple(packages))


def _with_data(card: ModelCard, facts: FileFacts, path: Path, request: ReadRequest) -> ModelCard:
    """The card with the files that the graph's tensors lie in; the graph has its own name, as they have theirs."""
    assert facts.onnx is not None
    files = bring_external_data(facts.onnx, path, request.bring)
    data = tuple(
        Artifact(name=name, uri=file.as_uri(), role="data", size=file.stat().st_size, confidence="official")
        for name, file in files.items()
    )
    named = path.name if request.repository is not None else request.name
    name = (named or path.name).replace("\\", "_")
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
