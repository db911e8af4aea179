"""From what the user names - an id, a path, an address - to a model card."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmount.contracts.finder import Finder, Repository, RepositoryFinder
from lensmount.contracts.requests import NotRunnable, ReadRequest
from lensmount.errors import AmbiguousModelError, MissingDependencyError, ModelFileError, ModelNotFoundError
from lensmount.host.hints import BARE_FILES, MARKERS, known_plugin
from lensmount.specs import ModelCard
from lensmount.specs.imports import ask as ask_plugin
from lensmount.specs.imports import call, call_quickly
from lensmount.specs.options import meant
from lensmount.store.addresses import known_as, path_of, public

if TYPE_CHECKING:
    from lensmount.contracts.finder import FetchOptions
    from lensmount.host.discovery import Index
    from lensmount.host.plan import Ask
    from lensmount.host.site import Name
    from lensmount.specs import Architecture, Reader

MODEL_SUFFIXES = (".onnx", ".pt", ".pth", ".safetensors", ".bin", ".engine", ".plan", ".torchscript")


def resolve(ask: Ask, index: Index) -> ModelCard:
    """Finds the card of a model; with `locked`, of the files that the lock file names.

    Raises:
        ModelNotFoundError: No plugin, file or address has the name (with near matches); or the model has
            another task or architecture than asked for.
        AmbiguousModelError: Several plugins, or several architectures, answer.
        ModelFileError: A path exists but is not a usable model.
        MissingDependencyError: The plugin that reads such files is not installed.
        IntegrityError: The model is not in the lock file, or other files are.
    """
    card = _find(ask.subject, index, ask.fetch, ask.architecture)
    if card.base is not None:
        card = _on_base(card, index, ask.fetch)
    text, task, architecture = os.fspath(ask.subject), ask.task, ask.architecture
    if task is not None and card.task != task:
        raise ModelNotFoundError(f"{public(text)!r} is for another task", found=card.task, expected=task)
    if architecture is not None and card.architecture != architecture:
        problem = f"{public(text)!r} has another architecture"
        raise ModelNotFoundError(problem, found=card.architecture, expected=architecture)
    if ask.locked is not False:
        from lensmount.store.lock import NAME, read_lock

        card = read_lock(Path(NAME if ask.locked is True else ask.locked)).apply(card)
    return card


def _find(name: Name, index: Index, fetch: FetchOptions, architecture: str | None = None) -> ModelCard:
    text = os.fspath(name)
    if "://" in text and not text.startswith("file://"):
        return _from_address(text, index, fetch, architecture)
    if isinstance(name, os.PathLike) or _looks_like_path(text, index):
        return _from_path(path_of(text), index, architecture)
    return _from_id(text, index)


def _on_base(card: ModelCard, index: Index, fetch: FetchOptions) -> ModelCard:
    """The card with its base's packages, and its own files added to theirs."""
    base = card.base or ""
    if "://" in base and not base.startswith(("file://", "hf://")):
        raise ModelFileError(
            f"{card.id!r} is built on an address", found=public(base), expected="a model id, a path, or hf://…"
        )
    try:
        found = _find(base, index, fetch)
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


# --- ids --------------------------------------------------------------------------------------------------------------


def _from_id(text: str, index: Index) -> ModelCard:
    distribution, _, rest = text.rpartition(":")
    entries = index.cards.get(rest if distribution else text, [])
    if distribution:
        wanted = distribution.lower().replace("_", "-")
        entries = [e for e in entries if e.distribution.lower().replace("_", "-") == wanted]
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


def _not_found(text: str, index: Index) -> ModelNotFoundError:
    near, plugin = meant(text, index.cards, 4), known_plugin(text.lower())
    fixes = [*(_to_install(plugin, index) if plugin else []), *([near] if near else [])]
    if re.fullmatch(r"[\w.-]+/[\w.-]+", text):
        fixes.append(f"a repository of Hugging Face is hf://{text}")
    fixes += index.left_out
    return ModelNotFoundError(
        f"no model {public(text)!r}",
        found=f"{len(index.cards)} known ids and aliases",
        expected="a model id (see: lensmount models), a path, or an address such as hf://owner/repo",
        fix="; ".join(fixes) or "lensmount models",
    )


def _to_install(distribution: str, index: Index) -> list[str]:
    """What makes one of lensmount's own plugins available; nothing for one that is there, or broken."""
    states = {status.distribution: status.state for status in index.statuses}
    if distribution not in states:
        return [f"pip install {distribution}"]
    blocked = f"{distribution} is blocked, by LENSMOUNT_BLOCK_PLUGINS or LENSMOUNT_PLUGINS"
    return [blocked] if states[distribution] == "blocked" else []


# --- files and folders ------------------------------------------------------------------------------------------------


def _looks_like_path(text: str, index: Index) -> bool:
    """Whether a string is a path: it starts like one, ends like a model file, or is no id and there is such a path."""
    if text.startswith(("file://", "./", "../", "/", "~", ".\\", "..\\")) or text.lower().endswith(MODEL_SUFFIXES):
        return True
    return text not in index.cards and ":" not in text[2:] and Path(text).exists()


def _marked(index: Index) -> dict[str, Reader]:
    """Readers by the name of the file that marks their folders."""
    return {reader.marker: reader for reader in index.readers.values() if reader.marker is not None}


def _from_path(path: Path, index: Index, architecture: str | None) -> ModelCard:
    if not path.exists():
        near = meant(path.stem, index.cards, 4)
        fix = f"an id has no suffix: {near}" if near else "check the path; model ids: lensmount models"
        raise ModelFileError(f"no such file or folder: {public(str(path))}", fix=fix)
    if path.is_dir():
        for marker, reader in _marked(index).items():
            if (path / marker).exists():
                return _read(reader, path, index, architecture)
        for marker, distribution in MARKERS.items():
            if (path / marker).exists():
                raise _no_reader(f"{path} is a folder with a {marker}", distribution, index)
    return _read_bare(path, index, architecture)


def _read_bare(path: Path, index: Index, architecture: str | None, **known: Any) -> ModelCard:
    """The card of a file, or of a folder without a marker; `known` as for `_read`."""
    reader = next((reader for reader in index.readers.values() if reader.marker is None), None)
    if reader is None:
        raise _no_reader(f"{path} is a model file without a manifest", BARE_FILES, index)
    return _read(reader, path, index, architecture, **known)


def _no_reader(problem: str, distribution: str, index: Index) -> MissingDependencyError:
    return MissingDependencyError(
        f"{problem}, which no installed plugin reads",
        found="readers: " + ", ".join(index.readers),
        expected=distribution,
        fix="; ".join([*_to_install(distribution, index), *index.left_out]),
    )


def _read(reader: Reader, path: Path, index: Index, architecture: str | None, **known: Any) -> ModelCard:
    """The card that a reader gives; `known` is what else the request says: the name, how other files are brought."""

    def there(name: str) -> Path | None:
        file = (path if path.is_dir() else path.parent).absolute().joinpath(*name.split("/"))
        return file if file.is_file() else None

    request = ReadRequest(
        path=path.absolute(),
        given=path,
        architecture=architecture,
        recognisers={
            label: partial(_recognise, descriptor)
            for label, descriptor in index.architectures.items()
            if descriptor.recognise is not None and architecture in (None, label)
        },
        left_out=tuple(index.left_out),
        **{"bring": there, **known},
    )
    card: ModelCard = call(reader.read, f"reader {reader.name!r}", ModelCard, request)
    return card


def _recognise(architecture: Architecture, facts: Any) -> Any:
    owner = f"the recogniser of architecture {architecture.name!r}"
    return call_quickly(architecture.recognise or "", owner, (ModelCard, NotRunnable, type(None)), facts)


# --- addresses --------------------------------------------------------------------------------------------------------


def _from_address(text: str, index: Index, fetch: FetchOptions, architecture: str | None) -> ModelCard:
    scheme = text.partition("://")[0]
    source = index.sources.get(scheme)
    if source is None:
        raise ModelNotFoundError(
            f"no source for addresses of scheme {scheme!r}",
            found=public(text),
            expected=", ".join(sorted(index.sources)),
        )
    owner = f"source {scheme!r}"
    finder: Finder = call(source.finder, owner, Finder)
    try:
        return _found_at(finder, owner, text, index, fetch, architecture)
    except ModelFileError as error:
        if not error.sound:
            from lensmount.store.store import Store

            Store().disown(known_as(text), error)
        raise


def _found_at(
    finder: Finder, owner: str, text: str, index: Index, fetch: FetchOptions, architecture: str | None
) -> ModelCard:
    card: ModelCard | None = ask_plugin(owner, (ModelCard, type(None)), finder.find, text, fetch)
    if card is not None:
        return card
    shown, scheme = public(text), text.partition("://")[0]
    path = shown.partition("#")[0]
    if path.lower().endswith(MODEL_SUFFIXES):
        from lensmount.store.fetch import fetch_beside, fetch_uri

        fetched = fetch_uri(text, {scheme: finder}, fetch)
        bring = partial(fetch_beside, text, fetched, {scheme: finder}, fetch)
        return _read_bare(fetched.path, index, architecture, name=path.rpartition("/")[2], bring=bring)
    by_repository = finder.repository if isinstance(finder, RepositoryFinder) else lambda *_: None
    repository = ask_plugin(owner, (Repository, type(None)), by_repository, text, fetch)
    if repository is None:
        raise ModelNotFoundError(
            f"{shown!r} names neither a model file nor a folder that can be recognised",
            expected=f"an address that ends in {', '.join(MODEL_SUFFIXES)}, a repository with a lensmount.json, or one "
            "with a model's weights (config.json and model.safetensors, a single checkpoint or graph)",
        )
    return _from_repository(repository, text.rstrip("/").rpartition("/")[2].partition("@")[0], index, architecture)


def _from_repository(repository: Repository, name: str, index: Index, architecture: str | None) -> ModelCard:
    """The card of a repository that has the marker of a reader of repositories, or the files of a model."""
    folder = Path(name)

    def bring(file: str) -> Path | None:
        nonlocal folder
        path = repository.bring(file)
        folder = folder if path is None else path.parents[file.count("/")]
        return path

    readers = (reader for marker, reader in _marked(index).items() if reader.repositories and bring(marker))
    reader = next(readers, None)
    read = _read_bare if reader is None else partial(_read, reader)
    return _at(read(folder, index, architecture, name=name, bring=bring, repository=repository), folder, repository)


def _at(card: ModelCard, folder: Path, repository: Repository) -> ModelCard:
    """The card with a repository's files at their address instead of where they were brought to."""
    here = folder.absolute().as_uri()

    def moved(uri: str) -> str:
        return repository.uri + uri.removeprefix(here) if uri.startswith(f"{here}/") else uri

    packages = tuple(
        replace(package, artifacts=tuple(replace(a, uri=moved(a.uri)) for a in package.artifacts))
        for package in card.packages
    )
    return replace(card, packages=packages)
