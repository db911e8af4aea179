"""`hf://owner/repo[@revision][/file]`, through huggingface_hub's own cache, settings and token.

Nothing is copied into the store: files stay in the hub's cache, shared with every other tool. The store only
remembers their hashes (so that they are not taken again at each load) and, for addresses without a commit, which
commit their first download gave: a moving branch does not change a model silently.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from lensmount.contracts.finder import Fetched, FetchOptions, Folder, Repository
from lensmount.errors import ArtifactNotFoundError, IntegrityError, ModelFileError, OfflineError, SourceError
from lensmount.specs import Artifact, ModelCard
from lensmount.specs.offline import is_offline
from lensmount.store.addresses import COMMIT, HubAddress, parse_hub
from lensmount.store.download import SECOND_HAND, SECOND_HAND_NOTE
from lensmount.store.files import broken_promise, check_md5
from lensmount.store.hub_errors import NO_SUCH_FILE, translated
from lensmount.store.ledger import accept_change
from lensmount.store.offline import missing, missing_error
from lensmount.store.store import StoreFinder

MANIFEST = "lensmount.json"
LAYOUTS = (
    ("config.json", ("model.safetensors.index.json", "model.safetensors")),
    ("open_clip_config.json", ("open_clip_model.safetensors",)),
)
"""Configuration and weights of transformers' and open_clip's repositories."""
BESIDE = (
    "processor_config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "vocab.json", "merges.txt",
)  # fmt: skip
"""Other files that the models read; downloaded where a repository has them."""

ABSENT = ("nothing", "a file")
SHARD = re.compile(r"[\w.-]+\.safetensors")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class HubFinder(StoreFinder):
    """Answers for `hf`."""

    def fetch(self, artifact: Artifact, options: FetchOptions) -> Fetched:
        """Brings a file of a repository into the hub's cache; see `Finder.fetch`.

        Raises:
            AuthenticationError: Gated or private, with how to log in.
            ArtifactNotFoundError: No such repository, revision or file.
            OfflineError: Offline and not in the hub's cache.
            IntegrityError: Not what was promised, or not what the first download gave.
        """
        address = parse_hub(artifact.uri)
        if address.file is None:
            raise SourceError("a file is needed", found=artifact.uri, expected=f"{artifact.uri}/path/to/file")
        known = None if artifact.sha256 or address.pinned else self._store.ledger.reference(str(address))
        if known is not None and known.revision and COMMIT.fullmatch(known.revision):
            address = replace(address, revision=known.revision)
        promised = artifact.sha256 or self._first_hash(artifact, address)
        path = _cached(address)
        wrong = self._wrong(artifact, path, promised)
        for force in (False, True):
            if wrong is None:
                break
            damaged = path is not None and self._damaged(path)
            if force and not damaged:
                break
            if is_offline(options.offline):
                raise _missing(artifact, address, path if damaged else None)
            path = _download(address, options, force=force)
            wrong = self._wrong(artifact, path, promised)
        if path is None or wrong is not None:
            raise self._mismatch(artifact, address, wrong or ABSENT)
        if artifact.sha256 is None and artifact.md5 is not None:
            check_md5(path, artifact.md5)
        revision = _commit_of(path) or address.revision
        sha256 = self._store.verified_file(path)
        found = Fetched(path=path, size=path.stat().st_size, sha256=sha256, revision=revision)
        with contextlib.suppress(OSError):  # a read-only home: the hub's cache still has the file and its hash
            self._store.ledger.remember(str(parse_hub(artifact.uri)), found, published=artifact.sha256 is not None)
        return found

    def find(self, uri: str, options: FetchOptions) -> ModelCard | None:
        """The card of a repository with a lensmount manifest, else None.

        Raises:
            SourceError: As for `fetch`.
        """
        address = parse_hub(uri)
        if address.file is not None:
            return None
        repository = _Repository(address, options)
        manifest = repository.bring(MANIFEST)
        if manifest is None:
            return None
        from lensmount.store.manifests import parse_manifest

        return parse_manifest(manifest.read_bytes(), base_uri=str(repository.address))

    def folder(self, uri: str, options: FetchOptions) -> Folder | None:
        """Brings a repository of transformers' or open_clip's layout: configuration, safetensors weights, tokeniser.

        Weights of other kinds (pickles) are left where they are.

        Returns:
            Where it is in the hub's cache, with its address at the commit that was taken; None when there is no
            configuration or no safetensors file.

        Raises:
            SourceError: As for `fetch`.
        """
        address = parse_hub(uri)
        if address.file is not None:
            return None
        repository = _Repository(address, options)
        weights = repository.weights()
        if weights is None:
            return None
        for name in BESIDE:
            repository.bring(name)
        return Folder(weights=weights, uri=str(repository.address))

    def repository(self, uri: str, options: FetchOptions) -> Repository | None:
        """The repository of an address without a file; its files come into the hub's cache one by one.

        Raises:
            SourceError: As for `fetch`.
        """
        address = parse_hub(uri)
        return _Repository(address, options) if address.file is None else None

    def _first_hash(self, artifact: Artifact, address: HubAddress) -> str | None:
        for uri in (str(address), str(parse_hub(artifact.uri))):
            known = self._store.ledger.reference(uri)
            if known is not None:
                return known.sha256
        return None

    def _wrong(self, artifact: Artifact, path: Path | None, promised: str | None) -> tuple[str, str] | None:
        """What a file of the hub's cache is and what it should be, or None where it is that."""
        if path is None:
            return ABSENT
        size = path.stat().st_size
        if artifact.size is not None and size != artifact.size:
            return f"{size:,} bytes", f"{artifact.size:,} bytes"
        sha256 = self._store.verified_file(path)
        if artifact.sha256 is None and self._damaged(path):
            promised = path.resolve().name
        return None if promised in (None, sha256) else (f"sha256 {sha256}", f"sha256 {promised}")

    def _damaged(self, path: Path) -> bool:
        """Whether a large file of the hub's cache is not what the hub said: there its blob is named by its sha256."""
        blob = path.resolve()
        named = blob.parent.name == "blobs" and _SHA256.fullmatch(blob.name) is not None
        return named and self._store.verified_file(path) != blob.name

    def _mismatch(self, artifact: Artifact, address: HubAddress, wrong: tuple[str, str]) -> IntegrityError:
        if artifact.sha256 is None:
            fix = accept_change(str(parse_hub(artifact.uri)))
        else:
            fix = f"pin the revision that has this content: hf://{address.repo}@<commit>/{address.file}"
            if artifact.confidence in SECOND_HAND:
                fix += SECOND_HAND_NOTE
        return broken_promise(str(address), *wrong, fix)


class _Repository:
    """A repository at the one commit that its first file came from.

    Args:
        address: As the user gave it.
        options: How the hub may be reached.

    Raises:
        OfflineError: Offline, and nothing of it is in the hub's cache.
    """

    def __init__(self, address: HubAddress, options: FetchOptions) -> None:
        self.address = address
        self._options = options
        if is_offline(options.offline) and not _repository_cached(address):
            manifest = replace(address, file=MANIFEST)
            raise _missing(Artifact(name=MANIFEST, uri=str(manifest)), manifest)

    @property
    def uri(self) -> str:
        """Its address, at the commit that its first file came from."""
        return str(self.address)

    def bring(self, name: str) -> Path | None:
        """One of its files in the hub's cache, or None when it has no such file."""
        wanted = replace(self.address, file=name)
        try:
            if is_offline(self._options.offline):
                path = _cached(wanted)
            else:
                path = _download(wanted, self._options, force=False)
        except ArtifactNotFoundError as error:
            if error.found == NO_SUCH_FILE:
                return None
            raise
        commit = None if path is None else _commit_of(path)
        if commit:
            self.address = replace(self.address, revision=commit)
        return path

    def weights(self) -> Path | None:
        """The weights' file, or the index of its shards, of the first layout that the repository has."""
        for config, names in LAYOUTS:
            if self.bring(config) is None:
                continue
            for name in names:
                path = self.bring(name)
                if path is not None and name.endswith(".index.json"):
                    path = path if all(self.bring(shard) is not None for shard in _shards(path)) else None
                if path is not None:
                    return path
        return None


def _shards(index: Path) -> list[str]:
    """The files that an index of shards names.

    Raises:
        ModelFileError: It is not such an index.
    """
    try:
        names = set(json.loads(index.read_bytes())["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelFileError(
            f"{index.name} is not an index of shards", found=str(error), expected='{"weight_map": {tensor: file}}'
        ) from error
    if not names or not all(isinstance(name, str) and SHARD.fullmatch(name) for name in names):
        raise ModelFileError(
            f"{index.name} names other files than shards",
            found=str(sorted(map(str, names)))[:200],
            expected=SHARD.pattern,
        )
    return sorted(names)


def _cached(address: HubAddress) -> Path | None:
    """The file in the hub's cache, without the network."""
    from huggingface_hub import try_to_load_from_cache

    with translated(address):
        found = try_to_load_from_cache(address.repo, address.file or "", revision=address.revision)
    return Path(found) if isinstance(found, str) else None


def _repository_cached(address: HubAddress) -> bool:
    from huggingface_hub import constants

    return (Path(constants.HF_HUB_CACHE) / f"models--{address.repo.replace('/', '--')}").is_dir()


def _commit_of(path: Path) -> str | None:
    """The commit of a file in the hub's cache: `…/snapshots/<commit>/…`."""
    parts = path.parts
    for before, part in itertools.pairwise(parts):
        if before == "snapshots" and COMMIT.fullmatch(part):
            return part
    return None


def _missing(artifact: Artifact, address: HubAddress, damaged: Path | None = None) -> OfflineError:
    revision = f" --revision {address.revision}" if address.revision else ""
    place = f"the hub's cache (HF_HOME), filled by `hf download {address.repo} {address.file}{revision}`"
    if damaged is not None:
        place = f"{damaged}, which is damaged: its content is not what its name says ({place} --force-download)"
    return missing_error((missing(artifact, place),), artifact.name)


def _download(address: HubAddress, options: FetchOptions, *, force: bool) -> Path:
    import inspect

    from huggingface_hub import hf_hub_download

    settings: dict[str, Any] = {"force_download": force, "token": options.credentials.get("hf")}
    if options.progress is False and "tqdm_class" in inspect.signature(hf_hub_download).parameters:
        settings["tqdm_class"] = _silent_bar()
    with translated(address):
        return Path(hf_hub_download(address.repo, address.file or "", revision=address.revision, **settings))


def _silent_bar() -> Any:
    from huggingface_hub.utils.tqdm import tqdm

    kind: Any = tqdm

    class SilentBar(kind):  # type: ignore[misc]  # tqdm comes without types
        def __init__(self, *args: Any, **settings: Any) -> None:
            super().__init__(*args, **{**settings, "disable": True})

    return SilentBar
