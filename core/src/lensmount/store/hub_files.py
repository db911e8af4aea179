"""Files of repositories in the hub's own cache and through its own client, and what the hub says of a repository."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lensmount.contracts.finder import FetchOptions
from lensmount.errors import ArtifactNotFoundError, AuthenticationError, OfflineError, SourceError, SourceNotice
from lensmount.specs import Artifact
from lensmount.store.addresses import COMMIT, HubAddress
from lensmount.store.hub_errors import translated
from lensmount.store.offline import missing, missing_error
from lensmount.store.transport import Policy, read_small

PATIENCE = Policy(attempts=2, timeout=5.0)


@dataclass(frozen=True, slots=True)
class Listing:
    """What the hub says of a repository at a revision: its commit, and its files with the sha256 of large ones."""

    commit: str
    files: Mapping[str, str | None]


def ask(address: HubAddress, options: FetchOptions) -> Listing | None:
    """The hub's word on a repository; None where it does not say (a mirror, no right to know): then its files tell.

    Raises:
        SourceError: The hub is out of reach or out of order.
    """
    from huggingface_hub import constants, get_token

    token = options.credentials.get("hf") or get_token()
    revision = quote(address.revision or "main", safe="")
    url = f"{constants.ENDPOINT}/api/models/{address.repo}/revision/{revision}?blobs=true"
    try:
        answer = json.loads(read_small(url, {"Authorization": f"Bearer {token}"} if token else {}, PATIENCE))
        files = {str(file["rfilename"]): (file.get("lfs") or {}).get("sha256") for file in answer["siblings"]}
        return Listing(answer["sha"], files) if COMMIT.fullmatch(answer["sha"]) else None
    except (AuthenticationError, ArtifactNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None


def newest_of(address: HubAddress, options: FetchOptions) -> tuple[Listing | None, SourceError | None]:
    """What `ask` says; or, unless what is newest was asked for, why the hub cannot be asked."""
    try:
        return ask(address, options), None
    except SourceError as error:
        if options.refresh:
            raise
        return None, error


def notice(address: HubAddress, text: str) -> None:
    """Tells the user something of an address, in one line."""
    warnings.warn(f"{address} {text}", SourceNotice, stacklevel=2)


def newer(commit: str | None, there: str) -> str:
    """The text on a branch that has moved on from the commit that is used."""
    return f"has a newer commit {there:.12}; {commit:.12} is used: refresh=True or `lensmount pull --refresh` takes it"


def cached(address: HubAddress, *, without_ref: bool = False) -> Path | None:
    """A file in the hub's cache; with `without_ref` also where only `commit_in_cache` knows what the revision is."""
    from huggingface_hub import try_to_load_from_cache

    with translated(address):
        found = try_to_load_from_cache(address.repo, address.file or "", revision=address.revision)
    if isinstance(found, str):
        return Path(found)
    commit = commit_in_cache(address) if without_ref else None
    return cached(replace(address, revision=commit)) if commit not in (None, address.revision) else None


def repository_folder(address: HubAddress) -> Path:
    """Where the hub's cache keeps a repository."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{address.repo.replace('/', '--')}"


def commit_in_cache(address: HubAddress) -> str | None:
    """The commit that the hub's cache has for an address: of its branch, or, without branches, the only one."""
    folder, found = repository_folder(address), ""
    with contextlib.suppress(OSError, ValueError):
        found = (folder / "refs" / (address.revision or "main")).read_text(encoding="utf-8").strip()
    if COMMIT.fullmatch(found):
        return found
    start = "" if address.revision in (None, "main") else str(address.revision)
    there = [path.name for path in folder.glob(f"snapshots/{'[0-9a-f]' * 40}") if path.name.startswith(start)]
    return there[0] if len(there) == 1 and len(start) not in range(1, 7) else None


def commit_of(path: Path) -> str | None:
    """The commit of a file in the hub's cache: `…/snapshots/<commit>/…`."""
    pairs = itertools.pairwise(path.parts)
    return next((part for before, part in pairs if before == "snapshots" and COMMIT.fullmatch(part)), None)


def absent(artifact: Artifact, address: HubAddress, damaged: Path | None = None) -> OfflineError:
    """The error for a file, or a repository, that is needed offline."""
    revision = f" --revision {address.revision}" if address.revision else ""
    what = f"{address.repo} {address.file}" if address.file else address.repo
    place = f"the hub's cache (HF_HOME), filled by `hf download {what}{revision}`"
    if damaged is not None:
        place = f"{damaged}, which is damaged: its content is not what its name says ({place} --force-download)"
    return missing_error((missing(artifact, place),), artifact.name)


def download(address: HubAddress, options: FetchOptions, *, force: bool) -> Path:
    """Brings a file into the hub's cache, or raises what `HubFinder.fetch` does."""
    import inspect

    from huggingface_hub import hf_hub_download

    settings: dict[str, Any] = {"force_download": force, "token": options.credentials.get("hf")}
    if options.progress is False and "tqdm_class" in inspect.signature(hf_hub_download).parameters:
        settings["tqdm_class"] = _silent_bar()
    with translated(address), _few_retries():
        return Path(hf_hub_download(address.repo, address.file or "", revision=address.revision, **settings))


@contextlib.contextmanager
def _few_retries() -> Iterator[None]:
    """The hub's client tells each of its tries in two lines: those of the first one are enough."""
    told = itertools.count()
    logger = logging.getLogger("huggingface_hub.utils._http")

    def first(record: logging.LogRecord) -> bool:
        return ("etry" not in record.getMessage() and "thrown while" not in record.getMessage()) or next(told) < 2

    logger.addFilter(first)
    try:
        yield
    finally:
        logger.removeFilter(first)


def _silent_bar() -> Any:
    from huggingface_hub.utils.tqdm import tqdm

    kind: Any = tqdm

    class SilentBar(kind):  # type: ignore[misc]  # tqdm comes without types
        def __init__(self, *args: Any, **settings: Any) -> None:
            super().__init__(*args, **{**settings, "disable": True})

    return SilentBar
