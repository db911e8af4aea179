"""From what the user names - an id, a path, an address - to a model card."""

from __future__ import annotations

import difflib
import os
import re
import sys
from dataclasses import replace
from fnmatch import fnmatch
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lensmount.errors import AmbiguousModelError, ModelFileError, ModelNotFoundError, UnsupportedModelError
from lensmount.specs.imports import import_string

if TYPE_CHECKING:
    from lensmount.contracts.finder import FetchOptions, Finder, Folder
    from lensmount.host.discovery import Index
    from lensmount.specs import ModelCard

MODEL_SUFFIXES = (".onnx", ".pt", ".pth", ".safetensors", ".bin", ".engine", ".plan", ".torchscript")


def resolve(
    name: str | os.PathLike[str],
    index: Index,
    *,
    architecture: str | None = None,
    task: str | None = None,
    fetch: FetchOptions | None = None,
) -> ModelCard:
    """Finds the card of a model.

    Args:
        name: Model id, alias, `distribution:id`, path of a file or folder, or address (`hf://owner/repo`).
        index: What the plugins contribute.
        architecture: Asks only this architecture to recognise a bare file.
        task: Must be the model's task where given.
        fetch: How an address may be reached.

    Raises:
        ModelNotFoundError: No plugin, file or address has this name; with near matches and the plugin to install.
        AmbiguousModelError: Several plugins, or several architectures, answer.
        ModelFileError: A path exists but is not a usable model.
    """
    text = os.fspath(name)
    if "://" in text and not text.startswith("file://"):
        card = _from_address(text, index, fetch, architecture)
    elif isinstance(name, os.PathLike) or looks_like_path(text):
        from lensmount.store.addresses import path_of

        card = _from_path(path_of(text), index, architecture)
    else:
        card = _from_id(text, index)
    if card.base is not None:
        card = _on_base(card, index, fetch)
    if task is not None and card.task != task:
        raise ModelNotFoundError(f"{text!r} is for another task", found=card.task, expected=task)
    if architecture is not None and card.architecture != architecture:
        raise ModelNotFoundError(f"{text!r} has another architecture", found=card.architecture, expected=architecture)
    return card


def _on_base(card: ModelCard, index: Index, fetch: FetchOptions | None) -> ModelCard:
    """The card with its base's packages, and its own files in addition to theirs.

    Raises:
        ModelFileError: The base is itself built on another model, or an address on the web.
        ModelNotFoundError: No plugin, file or address has the base's name.
    """
    base = card.base or ""
    if "://" in base and not base.startswith(("file://", "hf://")):
        raise ModelFileError(
            f"{card.id!r} is built on an address", found=base, expected="a model id, a path, or hf://…"
        )
    try:
        found = resolve(base, index, fetch=fetch)
    except (ModelNotFoundError, ModelFileError) as error:
        raise ModelNotFoundError(
            f"{card.id!r} is built on {base!r}, which cannot be found",
            found=error.found or error.problem,
            fix=error.fix or f"bring {base} back to where it was",
        ) from error
    if found.base is not None or found.architecture != card.architecture:
        raise ModelFileError(
            f"{card.id!r} cannot be built on {base!r}",
            found=f"architecture {found.architecture!r}, base {found.base!r}",
            expected=f"a plain model of architecture {card.architecture!r}",
        )
    own = tuple(artifact for package in card.packages for artifact in package.artifacts)
    settings = tuple(pair for package in card.packages for pair in package.settings)
    packages = tuple(
        replace(p, artifacts=(*p.artifacts, *own), settings=(*p.settings, *settings)) for p in found.packages
    )
    return replace(card, packages=packages)


def looks_like_path(text: str) -> bool:
    """Whether a string can only be meant as a path: it starts like one, ends like a model file, or exists."""
    if text.startswith(("file://", "./", "../", "/", "~", ".\\", "..\\")) or text.lower().endswith(MODEL_SUFFIXES):
        return True
    return Path(text).is_dir() and any((Path(text) / f).exists() for f in ("lensmount.json", "model_config.json"))


def _from_id(text: str, index: Index) -> ModelCard:
    distribution, _, rest = text.rpartition(":")
    entries = index.cards.get(rest if distribution else text, [])
    if distribution:
        entries = [e for e in entries if _same(e.distribution, distribution)]
    if len(entries) == 1:
        return entries[0].card
    if not entries:
        raise _not_found(text, index)
    owners = sorted({e.distribution for e in entries})
    raise AmbiguousModelError(
        f"model id {text!r} is claimed by several plugins",
        found=", ".join(owners),
        fix="name one: " + " or ".join(repr(f"{owner}:{text}") for owner in owners),
    )


def _same(a: str, b: str) -> bool:
    return a.lower().replace("_", "-") == b.lower().replace("_", "-")


def _not_found(text: str, index: Index) -> ModelNotFoundError:
    near = difflib.get_close_matches(text, list(index.cards), 4, 0.6)
    fixes = [f"did you mean {', '.join(near)}?"] if near else []
    plugin = known_plugin(text)
    states = {s.distribution: s.state for s in index.statuses}
    if plugin and plugin not in states:
        fixes.insert(0, f"pip install {plugin}")
    if plugin and states.get(plugin) == "blocked":
        fixes.insert(0, f"{plugin} is blocked, by LENSMOUNT_BLOCK_PLUGINS or LENSMOUNT_PLUGINS")
    if Path(text).exists():
        fixes.append(f"to load the path of this name, write ./{text}")
    fixes += index.left_out
    return ModelNotFoundError(
        f"no model {text!r}",
        found=f"{len(index.cards)} known ids and aliases",
        expected="a model id (see: lensmount models), a path, or an address such as hf://owner/repo",
        fix="; ".join(fixes) or "lensmount models",
    )


def first_party(table: Literal["models", "commands"]) -> dict[str, list[str]]:
    """What lensmount's own distributions bring, installed or not: patterns of model ids, or names of commands.

    Args:
        table: Which of the two.

    Returns:
        Patterns or names by distribution.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    tables = tomllib.loads((resources.files("lensmount") / "first_party.toml").read_text(encoding="utf-8"))
    found: dict[str, list[str]] = tables[table]
    return found


def known_plugin(text: str) -> str | None:
    """The first-party plugin that has models of such an id."""
    table = first_party("models")
    return next((dist for dist, patterns in table.items() if any(fnmatch(text, p) for p in patterns)), None)


def _from_address(text: str, index: Index, fetch: FetchOptions | None, architecture: str | None) -> ModelCard:
    from lensmount.contracts.finder import FetchOptions as Options
    from lensmount.contracts.finder import FolderFinder

    scheme = text.partition("://")[0]
    source = index.sources.get(scheme)
    if source is None:
        raise ModelNotFoundError(
            f"no source for addresses of scheme {scheme!r}", found=text, expected=", ".join(sorted(index.sources))
        )
    options = fetch or Options()
    finder: Finder = import_string(source.finder, f"source {scheme!r}")()
    card = finder.find(text, options)
    if card is not None:
        return card
    if not text.partition("#")[0].lower().endswith(MODEL_SUFFIXES):
        folder = finder.folder(text, options) if isinstance(finder, FolderFinder) else None
        if folder is not None:
            name = text.rstrip("/").rpartition("/")[2].partition("@")[0]
            return _at(recognise(folder.weights, index, architecture, name=name), folder)
        raise ModelNotFoundError(
            f"{text!r} names neither a model file nor a folder that can be recognised",
            expected=f"an address that ends in {', '.join(MODEL_SUFFIXES)}, a repository with a lensmount.json, or one "
            "of transformers' layout (config.json and model.safetensors)",
        )
    from lensmount.store.fetch import fetch_uri

    fetched = fetch_uri(text, {scheme: finder}, options)
    name = text.partition("#")[0].rpartition("/")[2]
    return recognise(fetched.path, index, architecture, name=name)


def _at(card: ModelCard, folder: Folder) -> ModelCard:
    """The card with the folder's files at their address instead of where they were brought to."""
    here = folder.weights.parent.absolute().as_uri()

    def moved(uri: str) -> str:
        return folder.uri + uri.removeprefix(here) if uri.startswith(f"{here}/") else uri

    packages = tuple(
        replace(package, artifacts=tuple(replace(a, uri=moved(a.uri)) for a in package.artifacts))
        for package in card.packages
    )
    return replace(card, packages=packages)


def _from_path(path: Path, index: Index, architecture: str | None) -> ModelCard:
    if not path.exists():
        raise ModelFileError(f"no such file or folder: {path}", fix="check the path; model ids: lensmount models")
    if path.is_dir():
        if (path / "lensmount.json").exists():
            from lensmount.store.manifests import read_manifest

            return read_manifest(path)
        if (path / "model_config.json").exists():
            from lensmount_roboflow.packages.folder import read_peer_folder

            return read_peer_folder(path)
    return recognise(path, index, architecture)


def _placed(card: ModelCard, path: Path, name: str) -> ModelCard:
    """Fills in what a recogniser does not look at: the file's name and where it lies."""
    file = path.absolute()
    stem = re.sub(r"[^A-Za-z0-9._-]", "-", Path(name).stem).strip("-._") or "model"
    packages = tuple(
        replace(package, artifacts=tuple(replace(a, uri=a.uri or file.as_uri()) for a in package.artifacts))
        for package in card.packages
    )
    return replace(card, id=stem, packages=packages)


def recognise(path: Path, index: Index, architecture: str | None = None, *, name: str | None = None) -> ModelCard:
    """Asks every architecture whether it knows a bare file (or Hugging Face folder), by its content alone.

    Args:
        path: The file or folder.
        index: What the plugins contribute.
        architecture: Asks only this one.
        name: What to call the model; None for the file's name.

    Raises:
        UnsupportedModelError: None does.
        AmbiguousModelError: Several do.
        ModelFileError: The file is corrupt.
    """
    from lensmount_reading import inspect_file, require_usable

    facts = require_usable(inspect_file(path))
    cards: dict[str, ModelCard] = {}
    asked = []
    for label, descriptor in index.architectures.items():
        if descriptor.recognise is None or (architecture is not None and label != architecture):
            continue
        asked.append(label)
        card = import_string(descriptor.recognise, f"architecture {label!r}")(facts)
        if card is not None:
            cards[label] = card
    if len(cards) == 1:
        return _placed(next(iter(cards.values())), path, name or path.name)
    if cards:
        raise AmbiguousModelError(
            f"several architectures recognise {path.name}",
            found=", ".join(cards),
            fix=f"say which: architecture={next(iter(cards))!r}",
        )
    raise UnsupportedModelError(
        f"no installed architecture recognises {path.name}",
        found=facts.summary(),
        expected=f"a model of: {', '.join(asked) or 'no architecture is installed'}",
        fix="; ".join(index.left_out or ["install the plugin of its architecture, e.g. pip install lensmount-yolo"]),
    )
